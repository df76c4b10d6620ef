"""What a network costs before it is trained: parameters, multiply-adds, memory, time.

Shape legend: N batch, C channels, H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import (
    _BatchNorm,  # pyright: ignore[reportPrivateUsage]  # the class of all batch normalisations
)
from torch.utils.flop_counter import FlopCounterMode

from internimage.model.backbone import Stage
from internimage.model.classifier import InternImageClassifier
from internimage.model.config import NUM_STAGES, InternImageConfig

_ONE_EACH = (1,) * NUM_STAGES


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call, one sample a round.

    Args:
        samples_ms: in the order of the rounds.
    """

    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The middle sample: one slow round does not move it.

        >>> Latency((2.0, 90.0, 3.0)).median_ms
        3.0
        """
        return median(self.samples_ms)


def parameter_count(config: InternImageConfig) -> int:
    """Parameters of the classifier.

    They are linear in each stage's depth, so that one network of four blocks says it for every depth.

    >>> parameter_count(InternImageConfig.from_variant("t"))
    29918424
    """
    # An extra normalisation has a factor and a shift for each channel of stage 3.
    norms = 2 * config.stage_channels[2] * len(config.level2_post_norm_blocks)
    fixed, per_block = parameters_by_depth(config)
    return norms + fixed + sum(depth * each for depth, each in zip(config.depths, per_block, strict=True))


def multiply_adds(config: InternImageConfig, size: int) -> int:
    """Multiply-adds of the classifier for one image, which the paper and the model tables call FLOPs.

    Counted by PyTorch's own counter on the meta device: products of matrices, convolutions and DCNv3; not the
    normalisations, activations and sums.

    Args:
        config: of any depths; as parameters, multiply-adds are linear in them.
        size: side of the square image in pixels.

    Raises:
        ValueError: a size below 1.

    >>> round(multiply_adds(InternImageConfig.from_variant("t"), 224) / 1e9, 2)
    4.89
    """
    _check(size)
    fixed, per_block = _multiply_adds_by_depth(_bare(config), size)
    return fixed + sum(depth * each for depth, each in zip(config.depths, per_block, strict=True))


def activation_bytes(config: InternImageConfig, size: int, batch: int = 1, device: str = "cpu") -> int:
    """Bytes that a training step in float32 keeps from the forward pass for the backward pass.

    Every storage that autograd saves is counted once; parameters, running statistics and the optimiser's state are
    not. On ``"cpu"`` the network runs, on the ways of our own that keep less than plain PyTorch (`model.lean`); on
    ``"meta"`` nothing is computed, and PyTorch's plain operators are counted: an upper bound for other devices.
    The head's batch normalisation is in evaluation mode, so that a single small image will do, and gradient
    checkpointing is off.

    Args:
        config: the classifier.
        size: side of the square images in pixels.
        batch: number of images.
        device: ``"cpu"`` or ``"meta"``.

    Raises:
        ValueError: a size or a batch below 1, or another device.

    >>> femto = InternImageConfig.from_variant("femto")
    >>> activation_bytes(femto, 32) < activation_bytes(femto, 32, device="meta") < activation_bytes(femto, 64)
    True
    """
    _check(size, batch)
    if device not in ("cpu", "meta"):
        raise ValueError(f"activations are counted on cpu or meta, got {device}")
    network = _on_meta(replace(config, gradient_checkpointing=False)).train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    if device == "cpu":
        # Numbers don't matter, but drawing random ones takes longer than all else, and would shift the caller's.
        network.to_empty(device=device)
        for each in (*network.parameters(), *network.buffers()):
            nn.init.zeros_(each)
    return kept_bytes(network, torch.zeros(batch, config.in_chans, size, size, device=device))


def kept_bytes(network: nn.Module, x: Tensor) -> int:
    """Bytes of the storages that ``network(x)`` keeps for its backward pass, without those of its own tensors.

    >>> kept_bytes(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), torch.ones(2, 4))  # the input, and the result
    96
    """
    own = {_storage(each) for each in (*network.parameters(), *network.buffers())}
    # Held, so that no later storage gets the number of one that is gone.
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (key := _storage(tensor)) not in own:
            held.setdefault(key, tensor)
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        # Bound to a name, so that the graph lives until everything is counted.
        result = network(x)
        total = sum(each.untyped_storage().nbytes() for each in held.values())
    del result
    return total


def measure_latency(
    networks: Mapping[str, nn.Module],
    image_NCHW: Tensor,
    *,
    repeats: int = 5,
    warmup: int = 1,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time networks side by side, without gradients: each once a round, so that a slow spell hits all alike.

    Every second round goes backwards, so that nobody always follows the same neighbour.

    Args:
        networks: by name, in evaluation mode, on the image's device.
        image_NCHW: what all of them are given.
        repeats: rounds, one sample each.
        warmup: calls of each before the first round.
        threads: of PyTorch while it measures; as they are by default.
        clock: seconds, monotonic.

    Raises:
        ValueError: no network, or fewer than one round, warm-up call or thread.
    """
    if not networks or min(repeats, warmup, 1 if threads is None else threads) < 1:
        raise ValueError(
            "latency needs a network and at least one round, warm-up call and thread; "
            f"got {len(networks)} networks, {repeats} rounds, warmup {warmup}, threads {threads}"
        )
    samples: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode(), _threads(threads):
        for network in networks.values():
            for _ in range(warmup):
                network(image_NCHW)
        for number in range(repeats):
            for name in list(networks)[:: -1 if number % 2 else 1]:
                _wait(image_NCHW)
                started = clock()
                networks[name](image_NCHW)
                _wait(image_NCHW)
                samples[name].append(1000 * (clock() - started))
    return {name: Latency(tuple(values)) for name, values in samples.items()}


def parameters_by_depth(config: InternImageConfig) -> tuple[int, tuple[int, ...]]:
    """Parameters outside of blocks (without extra normalisations), and those of one block of each stage."""
    return _parameters_by_depth(_bare(config))


@lru_cache(maxsize=512)
def _parameters_by_depth(config: InternImageConfig) -> tuple[int, tuple[int, ...]]:
    network = _on_meta(config)
    per_block = tuple(sum(each.numel() for each in stage.parameters()) for stage in _blocks(network))
    return sum(each.numel() for each in network.parameters()) - sum(per_block), per_block


@lru_cache(maxsize=512)
def _multiply_adds_by_depth(config: InternImageConfig, size: int) -> tuple[int, tuple[int, ...]]:
    network = _on_meta(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, config.in_chans, size, size, device="meta"))
    counts = counter.get_flop_counts()
    name = f"{type(network).__name__}.backbone.stages"
    # It counts a multiplication and an addition as two.
    per_block = tuple(sum(counts[f"{name}.{stage}.blocks.0"].values()) // 2 for stage in range(NUM_STAGES))
    return counter.get_total_flops() // 2 - sum(per_block), per_block


def _blocks(network: InternImageClassifier) -> list[nn.Module]:
    """The only block of each stage."""
    return [cast(Stage, stage).blocks[0] for stage in network.backbone.stages]


def _bare(config: InternImageConfig) -> InternImageConfig:
    """One block a stage and no extra normalisations; what changes no count is as by default, so that the cache hits."""
    return replace(
        config,
        depths=_ONE_EACH,
        level2_post_norm_blocks=(),
        drop_rate=0.0,
        drop_path_rate=0.0,
        gradient_checkpointing=False,
    )


def _on_meta(config: InternImageConfig) -> InternImageClassifier:
    with torch.device("meta"):
        return InternImageClassifier(config)


def _check(size: int, batch: int = 1) -> None:
    if size < 1 or batch < 1:
        raise ValueError(f"images have at least one pixel and there is at least one of them, got {size} and {batch}")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]  # no public number


def _wait(tensor: Tensor) -> None:
    # A GPU runs behind the program's back, a CPU does not.
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


@contextmanager
def _threads(count: int | None) -> Generator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
