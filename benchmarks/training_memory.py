"""``python -m benchmarks.training_memory``: what training each variant takes, computed without a GPU, checked on a CPU.

Nothing is computed with: a network of fake tensors says what PyTorch would keep for the backward pass on a GPU, in its
plain operators. Our own ways through a block keep less (docs/decisions/0009), so what is kept is an upper bound. The
same count on real tensors, and the peak of a real process, stand beside it for the smallest variants.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.memory import peak_memory
from benchmarks.report import keep, one_table
from benchmarks.timing import Workload
from benchmarks.training import workload
from internimage import create_model
from internimage.model.backbone import Block

RESULTS = Path(__file__).resolve().parent / "results"
# The side of a picture in each variant's recipe for ImageNet-1K.
SIDES = {"t": 224, "s": 224, "b": 224, "l": 384, "xl": 384, "h": 640, "g": 512}
GPUS_GB, PROCESSES, _USABLE, _GB = (16, 24, 40, 80, 141), 8, 0.9, 1e9
# Bytes per parameter: (what every process holds, what the processes share out), without a moving average.
STATES = {
    # Weights, gradients and their copies in DDP's buckets, AdamW's two moments.
    "DDP": (20.0, 0.0),
    "ZeRO-1": (8.0, 8.0),
    "FSDP2": (0.0, 16.0),
}


class Kept:
    """Counts the bytes that autograd keeps, without parameters, and which of them belong to a block."""

    def __init__(self, network: nn.Module) -> None:
        self.own = {_storage(parameter) for parameter in network.parameters()}
        self.seen: dict[int, Any] = {}
        self.total, self.inputs = 0, 0
        self.blocks: list[int] = []
        self._in_block = False
        for module in network.modules():
            if isinstance(module, Block):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def pack(self, tensor: Tensor) -> Tensor:
        """For `torch.autograd.graph.saved_tensors_hooks`."""
        key = _storage(tensor)
        if key not in self.own and key not in self.seen:
            # Held, so that no other storage gets its number.
            self.seen[key] = tensor
            size = tensor.untyped_storage().nbytes()
            self.total += size
            if self._in_block:
                self.blocks[-1] += size
        return tensor

    @property
    def recomputed(self) -> int:
        """The same with gradient checkpointing: what is outside blocks, their inputs, and the largest block alone."""
        return self.total - sum(self.blocks) + self.inputs + max(self.blocks)

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._in_block = True
        self.blocks.append(0)
        self.inputs += arguments[0].untyped_storage().nbytes()

    def _leave(self, module: nn.Module, arguments: Any, result: Any) -> None:
        self._in_block = False


def kept(name: str, side: int, images: int, *, cast: bool, fake: bool = True) -> Kept:
    """Count one forward pass with its loss; ``cast`` is bfloat16 autocast."""
    device = "cuda" if fake else "cpu"
    with torch.device("meta" if fake else "cpu"):
        network = create_model(f"internimage_{name}").train()
    with ExitStack() as stack:
        if fake:
            # Drawing weights would need numbers.
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            network.to_empty(device=device)
            stack.enter_context(torch.device(device))
        counted = Kept(network)
        picture_NCHW = torch.randn(images, 3, side, side)
        target_N = torch.zeros(images, dtype=torch.int64)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(counted.pack, lambda tensor: tensor))
        if cast:
            # Its context manager asks for a real GPU.
            torch.set_autocast_enabled(device, True)
            torch.set_autocast_dtype(device, torch.bfloat16)
            torch.set_autocast_cache_enabled(False)
            stack.callback(torch.set_autocast_enabled, device, False)
        F.cross_entropy(network(picture_NCHW), target_N)
    return counted


def row(name: str) -> dict[str, Any]:
    """One variant: parameters, the largest part that FSDP2 gathers, and what one picture and none of them takes."""
    side = SIDES[name]
    with torch.device("meta"):
        network = create_model(f"internimage_{name}")
    parts = [sum(each.numel() for each in m.parameters()) for m in network.modules() if isinstance(m, Block)]
    found: dict[str, Any] = {"variant": name, "side": side, "largest_part": max(parts)}
    found["parameters"] = sum(each.numel() for each in network.parameters())
    for precision, cast in (("fp32", False), ("bf16", True)):
        one, two = (kept(name, side, images, cast=cast) for images in (1, 2))
        for what, first, second in (
            ("kept", one.total, two.total),
            ("recomputed", one.recomputed, two.recomputed),
        ):
            # The second picture alone: the first one's share holds copies of the weights in bfloat16 as well.
            found[f"{what}_{precision}"] = second - first
            found[f"fixed_{what}_{precision}"] = 2 * first - second
    return found


def state_bytes(found: dict[str, Any], strategy: str, *, average: bool) -> float:
    """Weights, gradients, AdamW's moments and perhaps a moving average, in one of `PROCESSES` processes."""
    whole, shared = STATES[strategy]
    # DDP's processes each hold an average, FSDP2's their part of it; DeepSpeed's take none.
    own, split = {"DDP": (4.0, 0.0), "FSDP2": (0.0, 4.0)}.get(strategy, (0.0, 0.0))
    whole, shared = (whole + own, shared + split) if average else (whole, shared)
    # Two parts are gathered at a time, the next one ahead of its use, and a part's gradients stand whole.
    gathered = 12.0 * found["largest_part"] if strategy == "FSDP2" else 0.0
    return found["parameters"] * (whole + shared / PROCESSES) + gathered


def pictures(found: dict[str, Any], strategy: str, gpu_gb: float, what: str) -> int:
    """How many pictures a GPU takes at once in bf16-mixed with a moving average; 0 where not one fits."""
    room = _USABLE * gpu_gb * _GB - state_bytes(found, strategy, average=True) - found[f"fixed_{what}_bf16"]
    return max(0, int(room // found[f"{what}_bf16"]))


def measured(name: str, side: int, images: int) -> dict[str, Any]:
    """The count on real tensors, where our own operators run, and the peak of a process that trains two steps."""
    real = kept(name, side, images, cast=False, fake=False)
    plain = kept(name, side, images, cast=False)
    with torch.device("meta"):
        count = sum(each.numel() for each in create_model(f"internimage_{name}").parameters())
    memory = peak_memory(partial(_step, name, side, images), torch.device("cpu"), torch.get_num_threads())
    # Ready with the weights; what comes on top are gradients, two moments and what is kept.
    expected = 12 * count + real.total
    return {
        "what": f"{name}, {images} x {side} x {side}",
        "plain": plain.total,
        "kept": real.total,
        "expected": expected,
        "added": memory.added_mib * 2**20,
    }


def main(arguments: Sequence[str]) -> int:
    """Compute, measure, print the tables, write them beside others."""
    parser = ArgumentParser(prog="python -m benchmarks.training_memory", description=__doc__)
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    parser.add_argument("--quick", action="store_true", help="two variants: shows that it runs")
    parser.add_argument("--computed", action="store_true", help="leave out what is measured")
    options = parser.parse_args(list(arguments))
    # Fake tensors leave nothing to a compiler to warn of.
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for name in ("t", "b") if options.quick else SIDES:
        rows.append(row(name))
        print(json.dumps(rows[-1]), flush=True)
    checks = [] if options.computed else [measured("femto", 224, 2 if options.quick else 16)]
    checks += [] if options.quick or options.computed else [measured("t", 224, 4)]
    facts = describe(Settings(threads=torch.get_num_threads()), "training_memory")
    facts["command"] = " ".join(("python -m benchmarks.training_memory", *arguments))
    facts["computed"] = "everything" if options.computed else "all but the last table"
    page = as_markdown(facts, rows, checks)
    print(page)
    numbers = json.dumps({"facts": facts, "rows": rows, "checks": checks}, indent=1) + "\n"
    for file in keep(Path(options.output), f"{facts['date'][:10]}_training_memory", numbers, page):
        print(f"wrote {file}")
    return 0


def as_markdown(facts: dict[str, str], rows: Sequence[dict[str, Any]], checks: Sequence[dict[str, Any]]) -> str:
    """A page: the facts, what a variant takes, what fits where, and what was measured."""
    head = ("variant", "picture", "parameters, M", "state with DDP, GB", "with ZeRO-1", "with FSDP2")
    head += ("a picture, fp32, GB", "bf16", "fp32, checkpointing", "bf16, checkpointing")
    cells: list[list[str]] = []
    for found in rows:
        states = [f"{state_bytes(found, each, average=True) / _GB:.1f}" for each in STATES]
        keys = ("kept_fp32", "kept_bf16", "recomputed_fp32", "recomputed_bf16")
        each = [f"{found[key] / _GB:.2f}" for key in keys]
        size = f"{found['parameters'] / 1e6:.0f}"
        cells.append([found["variant"].upper(), str(found["side"]), size, *states, *each])
    page = one_table("training memory", facts, head, cells)
    for strategy in STATES:
        page += f"\nPictures per GPU, {strategy} over {PROCESSES} GPUs, bf16-mixed, "
        page += (
            f"{'no' if strategy == 'ZeRO-1' else 'with a'} moving average: without / with gradient checkpointing.\n\n"
        )
        body = [
            [
                found["variant"].upper(),
                *(
                    " / ".join(str(pictures(found, strategy, gpu, what)) for what in ("kept", "recomputed"))
                    for gpu in GPUS_GB
                ),
            ]
            for found in rows
        ]
        page += _table(("variant", *(f"{gpu} GB" for gpu in GPUS_GB)), body)
    if not checks:
        return page
    page += "\nMeasured on a CPU in float32, in MiB.\n\n"
    top = (
        "training",
        "kept, computed",
        "kept, counted on real tensors",
        "gradients, moments and kept",
        "process's peak",
    )
    body = [
        [each["what"], *(f"{each[key] / 2**20:.0f}" for key in ("plain", "kept", "expected", "added"))]
        for each in checks
    ]
    return page + _table(top, body)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _step(name: str, side: int, images: int) -> Workload:
    network = create_model(f"internimage_{name}").train()
    return workload(network, torch.randn(images, 3, side, side), torch.zeros(images, dtype=torch.int64), False)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
