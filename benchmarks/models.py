"""Whole networks: latency of one image, throughput of batches, peak memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.comparison import Agreement, Comparison, Contender, Settings, full_float32, relative_rms
from benchmarks.networks import NetworkSpec, autocast, build_network, build_networks, line_up, random_images
from benchmarks.official import OFFICIAL_NAME
from benchmarks.timing import Workload

# Relative RMS of the logits: float32, and a network of some thirty layers under bfloat16 autocast.
LIMIT, AUTOCAST_LIMIT = 1e-5, 5e-2
_BATCHES = {"cpu": (1, 8), "cuda": (1, 8, 64)}


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Per batch size; on a GPU also under bfloat16 autocast."""
    line, batches = line_up(settings), _BATCHES[settings.device.type]
    networks = {name: network.eval() for name, network in build_networks(line.specs, settings.device).items()}
    for is_cast in (False, True) if settings.device.type == "cuda" else (False,):
        for batch in batches:
            images = random_images(batch, 3, line.size, settings.device)
            contenders = tuple(
                Contender(
                    spec.name,
                    partial(predict, networks[spec.name], images, is_cast),
                    # One image needs little beside the weights: the largest batch says more.
                    partial(_rebuild, spec, batch, line.size, settings.device, is_cast)
                    if batch == batches[-1]
                    else None,
                )
                for spec in line.specs
            )
            yield Comparison(
                f"Inference, batch {batch}, {line.size} x {line.size}, {'bfloat16 autocast' if is_cast else 'float32'}",
                contenders,
                agreements(networks, line.specs[0].name, images, is_cast),
                line.skipped,
                images_per_call=batch,
            )
    if settings.device.type == "cpu":
        yield itself(settings)


def itself(settings: Settings) -> Comparison:
    """Ours on a CPU in float32, under bfloat16 autocast, and compiled: one image."""
    line = line_up(settings)
    network = build_network(line.specs[0]).to(settings.device).eval()
    images = random_images(1, 3, line.size, settings.device)
    compiled = cast(nn.Module, torch.compile(network))
    calls = {
        f"{line.specs[0].name}, float32": partial(predict, network, images, False),
        "bfloat16 autocast": partial(predict, network, images, True),
        "torch.compile, float32": partial(predict, compiled, images, False),
    }
    first, *others = calls
    expected = calls[first]()
    checks = tuple(
        Agreement(name, "logits against eager float32", relative_rms(calls[name](), expected), limit)
        for name, limit in zip(others, (AUTOCAST_LIMIT, LIMIT), strict=True)
    )
    contenders = tuple(Contender(name, call) for name, call in calls.items())
    return Comparison(f"Ours by itself, batch 1, {line.size} x {line.size}", contenders, checks)


def agreements(networks: dict[str, nn.Module], ours: str, images: Tensor, is_cast: bool) -> tuple[Agreement, ...]:
    """Ours against the official network with the same weights; timm's are other functions."""
    if OFFICIAL_NAME not in networks:
        return ()
    with full_float32():
        actual, expected = (predict(networks[name], images, is_cast) for name in (ours, OFFICIAL_NAME))
    error = relative_rms(actual, expected)
    what = "logits against the official network with the same weights"
    return (Agreement(ours, what, error, AUTOCAST_LIMIT if is_cast else LIMIT),)


def predict(network: nn.Module, images: Tensor, is_cast: bool) -> Tensor:
    """One forward pass to the logits; this is timed."""
    with torch.inference_mode(), autocast(images.device, is_cast):
        return network(images)


def _rebuild(spec: NetworkSpec, batch: int, size: int, device: torch.device, is_cast: bool) -> Workload:
    network = build_network(spec).to(device).eval()
    return partial(predict, network, random_images(batch, 3, size, device), is_cast)
