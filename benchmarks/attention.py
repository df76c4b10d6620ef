"""``python -m benchmarks.attention``: deformable attention beside transformers' plain PyTorch.

Two shapes of work in a detector on a picture of 800 x 800 pixels, four levels of its maps, 8 groups of 32 channels, 4
points a level: the encoder, where every pixel asks, and the decoder with its 900 queries.
Shape legend: N batch, S pixels, G groups, D channels per group, Q queries, L levels, P points per level.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from benchmarks.comparison import Agreement, Comparison, Contender, Settings, full_float32, measure, relative_rms
from benchmarks.machine import describe
from benchmarks.report import section, write
from benchmarks.timing import Workload
from internimage.ops.attention import deformable_attention, deformable_attention_reference

RESULTS = Path(__file__).resolve().parent / "results"
OURS, THEIRS = "internimage", "transformers, plain PyTorch"
_SHAPES, _QUICK_SHAPES = ((100, 100), (50, 50), (25, 25), (13, 13)), ((8, 8), (4, 4), (2, 2), (1, 1))
_GROUPS, _DEPTH, _POINTS = 8, 32, 4

Inputs = tuple[Tensor, Tensor, Tensor]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One size: as many queries as pixels where ``queries`` is None."""

    name: str
    batch: int
    shapes: tuple[tuple[int, int], ...]
    queries: int | None
    dtype: torch.dtype
    device: torch.device

    def title(self, backward: bool) -> str:
        """What is done at which size, for people."""
        passes = "forward and backward" if backward else "forward"
        return f"{self.name}, {passes}: {self.batch} image(s), {str(self.dtype).removeprefix('torch.')}"

    def inputs(self) -> Inputs:
        """Seeded: each query looks around its own pixel (a decoder's around a random place), some pixels wide."""
        generator = torch.Generator().manual_seed(0)
        pixels = sum(height * width for height, width in self.shapes)
        queries = pixels if self.queries is None else self.queries
        rows = (self.batch, queries, _GROUPS, len(self.shapes), _POINTS)
        size_L12 = torch.tensor([(width, height) for height, width in self.shapes])[:, None]
        around_Q2 = torch.cat([_middles(*size) for size in self.shapes])
        if self.queries is not None:
            around_Q2 = torch.rand(queries, 2, generator=generator)
        points = around_Q2[:, None, None, None] + 2 * torch.randn(*rows, 2, generator=generator) / size_L12
        # The gradient jumps where a point crosses a pixel's middle: a point that close would measure rounding alone.
        pixel = points * size_L12 - 0.5
        points = (pixel.floor() + 0.1 + 0.8 * (pixel - pixel.floor()) + 0.5) / size_L12
        weights = torch.randn(rows, generator=generator).flatten(3).softmax(-1).view(rows)
        value = torch.randn(self.batch, pixels, _GROUPS, _DEPTH, generator=generator)
        return value.to(self.device, self.dtype), points.to(self.device), weights.to(self.device)

    def ours(self, value: Tensor, points: Tensor, weights: Tensor) -> Tensor:
        """This package's operator."""
        return deformable_attention(value, self.shapes, points, weights)

    def theirs(self, value: Tensor, points: Tensor, weights: Tensor) -> Tensor:
        """``grid_sample`` level by level, all in the value's dtype, as its model would call it."""
        points, weights = points.to(value.dtype), weights.to(value.dtype)
        # Its kernels' arguments; the plain code reads the list alone.
        sizes = starts = torch.empty(0)
        out = MultiScaleDeformableAttention()(value, sizes, list(self.shapes), starts, points, weights, 64)
        return out.unflatten(2, (_GROUPS, _DEPTH))

    def agreements(self) -> Iterator[Agreement]:
        """Outputs and gradients against the reference in float64 on the same inputs.

        Positions are exact to a map's side times eps in pixels, which for transformers' in 16 bits is no agreement at
        all: only its float32 is checked.
        """
        inputs = self.inputs()
        value, points, weights = (tensor.double() for tensor in inputs)
        exact = _run(lambda v, p, w: deformable_attention_reference(v, self.shapes, p, w), (value, points, weights))
        limit = max(1e-4, 4 * torch.finfo(self.dtype).eps)
        for name, attention in ((OURS, self.ours), (THEIRS, self.theirs)):
            if name == OURS or self.dtype == torch.float32:
                what = ("output", "gradient of value", "gradient of points", "gradient of weights")
                for each, found, expected in zip(what, _run(attention, inputs), exact, strict=True):
                    yield Agreement(name, each, relative_rms(found, expected), limit)


def cases(settings: Settings) -> Iterator[Case]:
    """Encoder and decoder; on a GPU also in bfloat16, with two images."""
    on_gpu = settings.device.type == "cuda"
    shapes, few = (_QUICK_SHAPES, 9) if settings.quick else (_SHAPES, 900)
    for dtype in (torch.float32, torch.bfloat16) if on_gpu else (torch.float32,):
        for name, queries in (("encoder", None), ("decoder", few)):
            yield Case(name, 2 if on_gpu else 1, shapes, queries, dtype, settings.device)


def comparisons(case: Case) -> Iterator[Comparison]:
    """Forward, then forward and backward."""
    with full_float32():
        agreements = tuple(case.agreements())
    inputs = case.inputs()
    for backward in (False, True):
        contenders = tuple(
            Contender(name, workload(attention, inputs, backward))
            for name, attention in ((OURS, case.ours), (THEIRS, case.theirs))
        )
        yield Comparison(case.title(backward), contenders, agreements)


def workload(attention: Attention, inputs: Inputs, backward: bool) -> Workload:
    """A call that does the work once."""
    if backward:
        return lambda: _run(attention, inputs)

    def forward() -> Tensor:
        with torch.no_grad():
            return attention(*inputs)

    return forward


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, write them beside the others; 1 if a result differs."""
    parser = ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=10, help="samples of each contender")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, on a CPU")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: shows that everything runs")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    torch.set_num_threads(options.threads)
    settings = Settings(None, options.rounds, options.threads, torch.device(options.device), options.quick)
    facts = describe(settings, "attention")
    facts["command"] = facts["command"].replace("benchmarks --suite attention", "benchmarks.attention")
    results = []
    for case in cases(settings):
        for comparison in comparisons(case):
            results.append(measure(comparison, settings))
            print("\n".join([*section(results[-1]), ""]), flush=True)
    for file in write(Path(options.output), "attention", settings.device.type, facts, results):
        print(f"wrote {file}")
    return 0 if all(result.agrees for result in results) else 1


def _middles(height: int, width: int) -> Tensor:
    """(H*W, 2): the middles of a map's pixels as (x, y) in [0, 1]."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)


def _run(attention: Attention, inputs: Inputs) -> tuple[Tensor, ...]:
    """Output and gradients of ones, in the inputs' dtypes."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = attention(*leaves)
    return (output.detach(), *torch.autograd.grad(output, leaves, torch.ones_like(output)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
