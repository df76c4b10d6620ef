"""Inference: InternImage-T and B beside the official network, FlashInternImage and ConvNeXt, in images per second."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.comparison import Agreement, Contender, relative_rms
from benchmarks.networks import copy_official_weights, random_images, scatter_sampling
from benchmarks.on_gpu.extensions import Missing, Peers
from benchmarks.on_gpu.measuring import LONG_BUDGET_S, Setup, Trial, build_measured, release
from benchmarks.timing import Workload
from internimage import create_model

EAGER, COMPILED, GRAPH = "internimage, eager", "internimage, compiled", "internimage, CUDA graph"
OFFICIAL = "official network and extension"
FLASH, FLASH_COMPILED = "FlashInternImage", "FlashInternImage, compiled"
CONVNEXT, CONVNEXT_COMPILED = "timm ConvNeXt", "timm ConvNeXt, compiled"
_CONVNEXT_NAMES = {"t": "convnext_tiny", "b": "convnext_base"}
# Values of a comparison's key "mode".
AS_WRITTEN, COMPILED_TOO, EVERYBODY = "as written", "compiled", "everybody"
_CHECKED_IMAGES = 2
# Relative RMS of logits under 16-bit autocast against float32, through some sixty layers.
_LOGITS_LIMIT = 5e-2


@dataclass
class Networks:
    """The networks of one size on the CPU in float32, from which every contender gets a copy.

    Args:
        ours: with the official network's weights where that could be built.
        others: by name.
    """

    ours: nn.Module
    others: dict[str, nn.Module]


def build_networks(trial: Trial, variant: str, setup: Setup) -> Networks:
    """Ours, then everybody else whose code is there; reasons go into the trial."""
    torch.manual_seed(0)
    ours = scatter_sampling(create_model("internimage_femto" if setup.on_cpu else f"internimage_{variant}"))
    others: dict[str, nn.Module] = {}
    makers: dict[str, Callable[[], nn.Module]] = {
        OFFICIAL: partial(_official, setup.peers, variant),
        FLASH: partial(_flash, setup.peers, variant),
        CONVNEXT: partial(_convnext, "convnext_atto" if setup.on_cpu else _CONVNEXT_NAMES[variant]),
    }
    for name, maker in makers.items():
        with trial.attempt(name):
            others[name] = maker()
    if OFFICIAL in others:
        copy_official_weights(others[OFFICIAL], ours)
    return Networks(ours, others)


def trials(setup: Setup) -> Iterator[Trial]:
    """Three comparisons for each variant and 16-bit type, each with everybody of the one before.

    As written, then compiled, then with those whose compilation takes longest; B first: a target is about it.
    """
    for variant in sorted(setup.variants):
        for dtype in setup.dtypes:
            yield from _inference_trials(variant, dtype, setup)
            cast(Any, torch)._dynamo.reset()
            release()


def _inference_trials(variant: str, dtype: torch.dtype, setup: Setup) -> Iterator[Trial]:
    batch, size = (2, 64) if setup.on_cpu else (8, 224) if setup.quick else (128, 224)
    kind = str(dtype).removeprefix("torch.")
    title = f"InternImage-{variant.upper()} inference, batch {batch}, {size} x {size}, {kind} autocast"
    key = {"suite": "networks", "variant": variant, "dtype": kind}
    trial = Trial(title, key | {"mode": AS_WRITTEN}, EAGER, images_per_call=batch)
    networks = build_networks(trial, variant, setup)
    images = random_images(batch, 3, size, torch.device("cpu"))
    with torch.no_grad():
        expected = networks.ours.eval()(images[:_CHECKED_IMAGES])
    images = images.to(setup.device, memory_format=torch.channels_last)
    _add_all(trial, _as_written(networks, images, dtype), expected, setup)
    yield trial
    if setup.on_cpu:
        return
    # Compiling takes minutes: before each step what was measured is in the file.
    for name, mode, builders in (
        (f"{title}, compiled and as written", COMPILED_TOO, _compiled(networks, images, dtype)),
        (f"{title}, everybody", EVERYBODY, _compiled_late(networks, images, dtype)),
    ):
        trial = trial.extended(name, {"mode": mode})
        trial.budget_s = LONG_BUDGET_S
        _add_all(trial, builders, expected, setup)
        yield trial


def _add_all(trial: Trial, builders: dict[str, Callable[[], Workload]], expected: Tensor, setup: Setup) -> None:
    for name, build in builders.items():
        with trial.attempt(name):
            call, memory = build_measured(build, setup.device)
            if name in (EAGER, COMPILED, GRAPH, OFFICIAL):
                logits = cast(Tensor, call())[:_CHECKED_IMAGES].float().cpu()
                what = "logits against the same weights in float32 on the CPU"
                trial.agreements.append(Agreement(name, what, relative_rms(logits, expected), _LOGITS_LIMIT))
            trial.contenders.append(Contender(name, call))
            # A graph's intermediate results lie in a pool of its own, which counts as free once it is recorded.
            if name != GRAPH:
                trial.memory[name] = memory


def _as_written(networks: Networks, images: Tensor, dtype: torch.dtype) -> dict[str, Callable[[], Workload]]:
    """Calls without torch.compile; ours and ConvNeXt channels-last, the others as they were released."""
    found: dict[str, Callable[[], Workload]] = {EAGER: partial(eager_call, networks.ours, images, dtype)}
    for name, network in networks.others.items():
        found[name] = partial(eager_call, network, images, dtype, channels_last=name == CONVNEXT)
    return found


def _compiled(networks: Networks, images: Tensor, dtype: torch.dtype) -> dict[str, Callable[[], Workload]]:
    """Ours and ConvNeXt through torch.compile."""
    found: dict[str, Callable[[], Workload]] = {COMPILED: partial(compiled_call, networks.ours, images, dtype)}
    if CONVNEXT in networks.others:
        found[CONVNEXT_COMPILED] = partial(compiled_call, networks.others[CONVNEXT], images, dtype)
    return found


def _compiled_late(networks: Networks, images: Tensor, dtype: torch.dtype) -> dict[str, Callable[[], Workload]]:
    """Ours as a CUDA graph, and FlashInternImage through torch.compile: DCNv4's kernel splits its graph."""
    found: dict[str, Callable[[], Workload]] = {GRAPH: partial(_graph_call, networks.ours, images, dtype)}
    if FLASH in networks.others:
        call = partial(compiled_call, networks.others[FLASH], images, dtype)
        found[FLASH_COMPILED] = partial(call, channels_last=False, fullgraph=False)
    return found


def placed(network: nn.Module, images: Tensor, *, channels_last: bool) -> nn.Module:
    """A copy of the network on the images' device."""
    own = copy.deepcopy(network).to(images.device)
    return own.to(memory_format=torch.channels_last) if channels_last else own


def eager_call(network: nn.Module, images: Tensor, dtype: torch.dtype, *, channels_last: bool = True) -> Workload:
    """Images to logits as written."""
    return _call(placed(network, images, channels_last=channels_last).eval(), images, dtype)


def compiled_call(
    network: nn.Module, images: Tensor, dtype: torch.dtype, *, channels_last: bool = True, fullgraph: bool = True
) -> Workload:
    """Images to logits through torch.compile, for this batch alone."""
    own = placed(network, images, channels_last=channels_last).eval()
    return _call(compiled_for(own, fullgraph=fullgraph), images, dtype)


def compiled_for(network: nn.Module, *, fullgraph: bool = True) -> nn.Module:
    """The network through torch.compile, each input's size a constant.

    Left to itself PyTorch makes a size variable that it has seen with another value, for any instance of a class.
    """
    return cast(nn.Module, torch.compile(network, fullgraph=fullgraph, dynamic=False))


def _graph_call(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Workload:
    """Images to logits, recorded once as a CUDA graph and replayed."""
    call = eager_call(network, images, dtype)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = call()

    def replay() -> object:
        graph.replay()
        return logits

    return replay


def _call(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Workload:
    def call() -> Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, dtype):
            return network(images)

    return call


def _official(peers: Peers, variant: str) -> nn.Module:
    return scatter_sampling(peers.official_network(variant))


def _flash(peers: Peers, variant: str) -> nn.Module:
    """Its offsets start at zero too: on the grid memory would be read as in no trained network."""
    network = peers.flash_network(variant)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".offset_mask." in name:
                if name.endswith("weight"):
                    parameter.normal_(std=0.04 / parameter.shape[1] ** 0.5)
                else:
                    parameter.uniform_(-1.5, 1.5)
    return network


def _convnext(name: str) -> nn.Module:
    if find_spec("timm") is None:
        raise Missing("timm is not installed")
    import timm

    return timm.create_model(name, pretrained=False)
