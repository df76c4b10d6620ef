"""``python -m benchmarks.composite_memory``: what training a composite backbone takes in memory.

Computed on any machine (`internimage.model.composite.memory`). With a GPU the same step runs there, in an allocator
that is given no more than ``--gpu_gb``, and its peak stands beside. ``--detector`` is the record detector: DINO on top.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.report import keep, one_table
from internimage import InternImageConfig
from internimage.model.composite import CompositeInternImage
from internimage.model.composite.memory import (
    WIDTHS,
    Precision,
    TrainingMemory,
    block_inputs,
    kept_between_blocks,
    map_sizes,
    training_memory,
)
from internimage.model.design.cost import kept_bytes

RESULTS = Path(__file__).resolve().parent / "results"
_GB = 1e9
# The picture of the released evaluation, at most 1000 x 2000 pixels, padded to multiples of 32.
_HEIGHT, _WIDTH = 1024, 2016
# The first step has no moments yet; the second is like all later ones.
_STEPS, _BOXES = 2, 20
# Of what is counted on real tensors against the sum.
TOLERANCE = 0.01
_TERMS = ("weights", "gradients", "moments", "inputs", "between", "block", "passing", "total")
_HEAD = (
    "precision",
    "weights, GB",
    "gradients",
    "moments",
    "blocks' inputs",
    "between blocks",
    "one block",
    "gradients in it",
    "sum",
)


def row(memory: TrainingMemory) -> list[str]:
    """The terms in GB."""
    return [f"{getattr(memory, term) / _GB:.1f}" for term in _TERMS]


def counted(variant: str, size: tuple[int, int]) -> tuple[int, int]:
    """What a small variant keeps between its blocks on the CPU in float32: by the sum, and counted on real tensors."""
    config = _config(variant)
    network = CompositeInternImage(config).train()
    widths = WIDTHS["32-true"]
    by_sum = block_inputs(config, map_sizes(config, size, 1), widths) + kept_between_blocks(config, size, 1, widths)
    return by_sum, kept_bytes(network, torch.zeros(1, config.in_chans, *size))


def backbone(config: InternImageConfig) -> nn.Module:
    """The backbone alone, on which both networks' last three maps are taught, as the released detector does it."""
    return CompositeInternImage(config)


def backbone_loss(network: nn.Module, image_NCHW: Tensor) -> Tensor:
    """A number that depends on all maps that a detector reads."""
    both = cast(CompositeInternImage, network).forward_both(image_NCHW)
    return torch.stack([each.float().square().mean() for maps in both for each in maps[1:]]).sum()


def detector(config: InternImageConfig) -> nn.Module:
    """DINO on the composite, its encoder and decoder computed again in the backward pass as well."""
    from internimage.model.detection.dino import DinoConfig, InternImageDino

    # The released fine-tuning has ten times the usual noisy queries.
    return InternImageDino(DinoConfig(config, composite=True, denoising_queries=1000))


def detector_loss(network: nn.Module, image_NCHW: Tensor) -> Tensor:
    """Of a picture with some objects."""
    from internimage.model.detection.targets import Objects

    height, width = image_NCHW.shape[-2:]
    device, generator = image_NCHW.device, torch.Generator().manual_seed(0)
    corners = torch.rand(_BOXES, 2, generator=generator) * 0.5
    boxes = torch.cat([corners, corners + 0.1 + 0.4 * torch.rand(_BOXES, 2, generator=generator)], dim=1)
    truth = Objects(
        (boxes * torch.tensor([width, height, width, height])).to(device), torch.zeros(_BOXES).long().to(device)
    )
    return torch.stack(list(cast(Any, network).losses(image_NCHW, [truth] * len(image_NCHW)).values())).sum()


class Above(nn.Module):
    """DINO's transformer with checkpointing, on maps of an image's size that no backbone made."""

    def __init__(self) -> None:
        super().__init__()
        from internimage.model.detection.dino import DinoConfig, InternImageDino

        # What it keeps does not depend on the backbone below.
        whole = InternImageDino(DinoConfig(_config("femto")))
        self.transformer, self.config = whole.transformer, whole.config
        self.transformer.checkpointing = True

    def forward(self, image_NCHW: Tensor) -> object:
        """All answers."""
        from internimage.model.detection.dino.detector import level_strides
        from internimage.model.detection.dino.positions import lay_out
        from internimage.structures import Placement

        size = (image_NCHW.shape[-2], image_NCHW.shape[-1])
        shape = (len(image_NCHW), self.config.channels)
        tokens = [
            torch.zeros(*shape, *(-(-side // stride) for side in size)).requires_grad_()
            for stride in level_strides(self.config)
        ]
        return self.transformer(tokens, lay_out(tokens, size, [Placement(size, size)] * len(image_NCHW)))


def train(
    network: nn.Module, loss_of: Callable[[nn.Module, Tensor], Tensor], image_NCHW: Tensor, precision: Precision
) -> float:
    """Some steps of AdamW; seconds of the last one.

    Raises:
        ArithmeticError: the loss is no number: this is no training.
    """
    device, started = image_NCHW.device.type, 0.0
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    for _ in range(_STEPS):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
            loss = loss_of(network, image_NCHW)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # Reading the number waits for a GPU.
        if not math.isfinite(loss.item()):
            raise ArithmeticError(f"the loss is {loss.item()}")
    return time.perf_counter() - started


def prepared(
    build: Callable[[], nn.Module], shape: Sequence[int], precision: Precision, device: str
) -> tuple[nn.Module, Tensor]:
    """A network in training mode and a batch, both of this precision and on the device."""
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    with torch.device(device):
        return build().to(dtype).train(), torch.rand(*shape, dtype=dtype)


def measured(
    build: Callable[[], nn.Module],
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    shape: Sequence[int],
    precision: Precision,
    gpu_gb: float,
) -> dict[str, float | str]:
    """`train` on the GPU: the allocator's peak in GB and seconds of a step, or why it failed."""
    gc.collect()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gpu_gb * _GB / whole))
    try:
        network, image_NCHW = prepared(build, shape, precision, "cuda")
        torch.cuda.reset_peak_memory_stats()
        seconds = train(network, loss_of, image_NCHW, precision)
    except (torch.cuda.OutOfMemoryError, ArithmeticError) as error:
        return {"failed": str(error).splitlines()[0]}
    return {
        "seconds": seconds,
        "allocated": torch.cuda.max_memory_allocated() / _GB,
        "reserved": torch.cuda.max_memory_reserved() / _GB,
    }


def main(arguments: Sequence[str]) -> int:
    """Compute, measure where there is a GPU, print and write the tables; 1 where something does not fit or agree."""
    options = _parser().parse_args(list(arguments))
    size, config = (options.height, options.width), _config(options.variant)
    build, loss_of = (detector, detector_loss) if options.detector else (backbone, backbone_loss)
    more = _more_parameters(config) if options.detector else 0
    memories = {
        each: training_memory(config, size, images=options.images, precision=each, more_parameters=more)
        for each in get_args(Precision)
    }
    by_sum, on_tensors = counted("femto", (96, 160))
    agrees = abs(on_tensors / by_sum - 1) <= TOLERANCE
    peaks: dict[str, Any] = {}
    if torch.cuda.is_available() and not options.computed:
        # Timing launch configurations takes memory and time of its own.
        os.environ.setdefault("INTERNIMAGE_TUNE", "0")
        shape = (options.images, config.in_chans, *size)
        for precision in options.precision:
            peaks[precision] = measured(partial(build, config), loss_of, shape, precision, options.gpu_gb)
    device = torch.device("cuda" if peaks else "cpu")
    facts = describe(Settings(threads=torch.get_num_threads(), device=device), "composite_memory")
    facts["command"] = " ".join(("python -m benchmarks.composite_memory", *arguments))
    what = f"CB-InternImage-{options.variant.upper()}{' with DINO' if options.detector else ''}"
    count = next(iter(memories.values())).parameters
    facts["network"] = f"{what}, {count:,} parameters, gradient checkpointing"
    facts["input"] = f"{options.images} x {config.in_chans} x {size[0]} x {size[1]}"
    facts["sum against real tensors"] = f"{by_sum} and {on_tensors} bytes between the blocks of femto in float32"
    above = 0
    if options.detector:
        # Once for each network's maps, in float32.
        above = 2 * kept_bytes(Above().train(), torch.zeros(options.images, config.in_chans, *size))
        facts["DINO's own maps"] = f"{above} bytes, counted on real tensors in float32; no part of the sum in the table"
    page = one_table("composite memory", facts, _HEAD, [[name, *row(each)] for name, each in memories.items()])
    page += _verdicts(memories, above, peaks, options.gpu_gb)
    print(page)
    found = {name: {term: getattr(each, term) for term in _TERMS} for name, each in memories.items()}
    numbers = json.dumps({"facts": facts, "computed": found, "measured": peaks}, indent=1) + "\n"
    stem = f"{facts['date'][:10]}_composite_memory_{'gpu' if peaks else 'cpu'}"
    for file in keep(Path(options.output), stem, numbers, page):
        print(f"wrote {file}")
    return 0 if agrees and not any("failed" in each for each in peaks.values()) else 1


def _verdicts(memories: dict[Precision, TrainingMemory], above: int, peaks: dict[str, Any], gpu_gb: float) -> str:
    lines = [""]
    for name, memory in memories.items():
        total = memory.total + above
        fits = "fits into" if total <= gpu_gb * _GB else "does not fit into"
        line = f"- {name}: {total / _GB:.1f} GB {fits} {gpu_gb:g} GB"
        if found := peaks.get(name):
            line += (
                f"; measured: {found['failed']}"
                if "failed" in found
                else f"; measured: {found['allocated']:.1f} GB allocated, {found['reserved']:.1f} GB reserved, "
                f"{found['seconds']:.1f} s a step"
            )
        lines.append(line)
    return "\n".join(lines) + "\n"


def _config(variant: str) -> InternImageConfig:
    return replace(InternImageConfig.from_variant(variant), num_classes=0, gradient_checkpointing=True)


def _more_parameters(config: InternImageConfig) -> int:
    """What stands on the backbone."""
    with torch.device("meta"):
        whole, below = detector(config), backbone(config)
    return sum(each.numel() for each in whole.parameters()) - sum(each.numel() for each in below.parameters())


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks.composite_memory", description=__doc__)
    found.add_argument("--variant", default="h", help="a name from `internimage models`")
    found.add_argument("--height", type=int, default=_HEIGHT, help="of the padded images, in pixels")
    found.add_argument("--width", type=int, default=_WIDTH)
    found.add_argument("--images", type=int, default=1, help="of a batch")
    found.add_argument("--gpu_gb", type=float, default=80.0, help="what a GPU has, in 10^9 bytes")
    found.add_argument("--detector", action="store_true", help="DINO on the backbone, not the backbone alone")
    found.add_argument(
        "--precision",
        nargs="+",
        default=["bf16-mixed", "bf16-true"],
        choices=get_args(Precision),
        help="measured on a GPU",
    )
    found.add_argument("--computed", action="store_true", help="measure nothing, also where there is a GPU")
    found.add_argument("--output", default=str(RESULTS), help="folder for the result files")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
