"""The operator alone: each backend, torchvision's deformable convolution, the official plain-PyTorch code.

All do the same work on the same numbers: softmax over the logits, then the aggregation. Each gets its inputs in its
own memory layout, made before the clock starts.
Shape legend: N batch, H W map, C channels, G groups, D = C/G, K sampling points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.comparison import Agreement, Comparison, Contender, Result, Settings, full_float32, relative_rms
from benchmarks.official import OFFICIAL_NAME, official_operator
from benchmarks.timing import Workload
from internimage import InternImageConfig
from internimage.ops.dcnv3 import DCNv3Geometry, dcnv3, dcnv3_reference
from internimage.ops.dcnv3.backends import BACKENDS

Inputs = tuple[Tensor, Tensor, Tensor]

DEFAULT_NAME = "internimage (dispatched)"
TORCHVISION_NAME = "torchvision deform_conv2d"
_POINTS = 9
_GROWTH = "DCNv3 forward on growing maps, 4 groups of 16, float32"
_SMALL, _LARGE = "small map", "T's stage 1 at 512"


@dataclass(frozen=True)
class Implementation:
    """One implementation of the 3x3 DCNv3 with softmax.

    Args:
        run: its own three inputs to its own output; this is timed.
        from_ours: (value NHWGD, offset NHWGK2, logits NHWGK) to its inputs.
        to_ours: its output to (N, H, W, G, D), given that shape.
    """

    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    from_ours: Callable[[Tensor, Tensor, Tensor], Inputs] = lambda value, offset, logits: (value, offset, logits)
    to_ours: Callable[[Tensor, torch.Size], Tensor] = lambda output, shape: output.reshape(shape)


# Called only where the implementation runs: a maker may import a library.
Maker = Callable[[], Implementation]


@dataclass(frozen=True)
class Case:
    """One size of the operator; can be pickled."""

    name: str
    batch: int
    height: int
    width: int
    groups: int
    depth: int
    dtype: torch.dtype
    device: torch.device

    def title(self, backward: bool) -> str:
        """What is done at which size, for people."""
        passes = "forward and backward" if backward else "forward"
        size = f"{self.batch} x {self.height} x {self.width}, {self.groups} groups of {self.depth}"
        return f"DCNv3 {passes}, {self.name} ({size}), {str(self.dtype).removeprefix('torch.')}"

    def inputs(self) -> Inputs:
        """Seeded (value, offset, logits) of order one; offsets of about a pixel, most points inside the map."""
        generator = torch.Generator().manual_seed(0)
        value, offset, logits = (
            torch.randn(self.batch, self.height, self.width, self.groups, *rest, generator=generator)
            for rest in ((self.depth,), (_POINTS, 2), (_POINTS,))
        )
        # The gradient jumps where a point crosses a pixel's middle: a point that close would measure rounding alone.
        offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
        value, offset, logits = (tensor.to(self.device, self.dtype) for tensor in (value, offset, logits))
        return value, offset, logits

    def limits(self) -> tuple[float, float]:
        """Largest relative RMS of the output and of each gradient against the reference in float64.

        A coordinate in [-1, 1], as ``grid_sample`` takes it, is exact to a map's side times eps in pixels, and so is
        the output on noise.
        """
        eps = torch.finfo(self.dtype).eps
        if self.dtype == torch.float32:
            return max(1e-5, eps * max(self.height, self.width)), 1e-4
        return 2 * eps, 4 * eps


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Forward, then forward and backward, at every size and dtype; then ours alone on growing maps."""
    for case in cases(settings):
        yield from compare(case, settings.official)
    yield growth(settings)


def growth(settings: Settings) -> Comparison:
    """The first stage's operator on maps from 56 x 56 to 448 x 448: is the cost of a pixel the same?"""
    sides = (5, 10) if settings.quick else (56, 112, 224, 448)
    contenders: list[Contender] = []
    for side in sides:
        case = Case(f"{side} x {side}", 1, side, side, 4, 16, torch.float32, settings.device)
        contenders.append(Contender(case.name, workload(_ours(None), case.inputs(), backward=False)))
    return Comparison(_GROWTH, tuple(contenders))


def summarize(results: Sequence[Result]) -> list[str]:
    """Geometric means over T's stages in float32, and the cost of a pixel."""
    lines: list[str] = []
    for passes in ("forward", "forward and backward"):
        for stranger in (OFFICIAL_NAME, TORCHVISION_NAME):
            ratios = [
                row.ratio.median
                for result in results
                for row in result.rows
                if result.title.startswith(f"DCNv3 {passes}, T's stage")
                and "at 224" in result.title
                and row.name == stranger
                and row.ratio is not None
            ]
            if ratios:
                mean = prod(ratios) ** (1 / len(ratios))
                lines.append(
                    f"- {stranger} takes {mean:.1f} times as long as ours, {passes}: geometric mean over "
                    f"{len(ratios)} sizes, {min(ratios):.1f} to {max(ratios):.1f}."
                )
    for result in results:
        if result.title == _GROWTH:
            costs = {row.name: 1e6 * row.timing.median_ms / int(row.name.split()[0]) ** 2 for row in result.rows}
            words = ", ".join(f"{cost:.0f} ns at {name}" for name, cost in costs.items())
            lines.append(f"- A pixel of 4 groups costs {words}.")
    return lines


def cases(settings: Settings) -> list[Case]:
    """InternImage-T's four stages at 224 pixels and the first one at 512; one small map in a quick run."""
    sizes: list[tuple[str, int, int, int, int, int]] = [(_SMALL, 1, 10, 9, 2, 8)]
    if not settings.quick:
        config = InternImageConfig.from_variant("t")
        depth = config.channels // config.groups[0]
        # One image keeps a CPU busy; a GPU needs many.
        batch, large_batch = (64, 16) if settings.device.type == "cuda" else (1, 1)
        batches = (batch,) if settings.device.type == "cuda" else (1, 8)
        sizes = [
            (f"T's stage {stage} at 224", batch, side, side, groups, depth)
            for batch in batches
            for stage, side, groups in zip((1, 2, 3, 4), (56, 28, 14, 7), config.groups, strict=True)
        ]
        sizes.append((_LARGE, large_batch, 128, 128, config.groups[0], depth))
    return [
        Case(*size, dtype, settings.device)
        for size in sizes
        for dtype in (torch.float32, torch.bfloat16)
        # In 16 bit there is nobody to compare with: one batch size says it all.
        if dtype == torch.float32 or settings.device.type == "cuda" or size[1] == 1
    ]


def compare(case: Case, official: Path | None) -> Iterator[Comparison]:
    """Check everybody who takes these inputs, then line them up for one pass and for both."""
    inputs = case.inputs()
    makers, skipped = implementations(inputs[0], official)
    found = {name: make() for name, make in makers.items()}
    outputs, gradients = check(found, inputs, case.limits())
    for backward in (False, True):
        # Memory at one size is enough: each process costs seconds.
        wants_memory = backward and case.dtype == torch.float32 and case.name in (_SMALL, _LARGE)
        contenders = tuple(
            Contender(
                name,
                workload(implementation, inputs, backward),
                partial(_rebuild, case, name, official) if wants_memory else None,
            )
            for name, implementation in found.items()
        )
        agreements = (*outputs, *gradients) if backward else tuple(outputs)
        yield Comparison(case.title(backward), contenders, agreements, tuple(skipped.items()))


def check(
    implementations: Mapping[str, Implementation], inputs: Inputs, limits: tuple[float, float]
) -> tuple[list[Agreement], list[Agreement]]:
    """Each one's output and gradients against the reference in float64 on the same numbers."""
    outputs: list[Agreement] = []
    gradients: list[Agreement] = []
    with full_float32():
        expected = results(_REFERENCE, tuple(tensor.double() for tensor in inputs))
        for name, implementation in implementations.items():
            errors = {
                what: relative_rms(found, expected[what]) for what, found in results(implementation, inputs).items()
            }
            for what, error in errors.items():
                limit = limits[0] if what == "output" else limits[1]
                agreement = Agreement(name, f"{what} against the reference in float64", error, limit)
                (outputs if what == "output" else gradients).append(agreement)
    return outputs, gradients


def implementations(value: Tensor, official: Path | None) -> tuple[dict[str, Maker], dict[str, str]]:
    """Makers of everybody who takes tensors like ``value``, ours first; and why the others do not."""
    found: dict[str, Maker] = {DEFAULT_NAME: partial(_ours, None)}
    skipped: dict[str, str] = {}
    runs = [backend.name for backend in BACKENDS if backend.why_not(value) is None]
    for backend in BACKENDS:
        name = f"internimage, backend {backend.name}"
        if reason := backend.why_not(value):
            skipped[name] = reason
        elif backend.name == runs[0] and len(runs) > 1:
            skipped[name] = "it is what the dispatcher takes"
        else:
            found[name] = partial(_ours, backend.name)
    strangers: dict[str, Maker] = {}
    if find_spec("torchvision"):
        strangers[TORCHVISION_NAME] = _torchvision
    else:
        skipped[TORCHVISION_NAME] = "torchvision is not installed"
    if official is not None:
        strangers[OFFICIAL_NAME] = partial(_official, official)
    else:
        skipped[OFFICIAL_NAME] = "no checkout given (--official PATH)"
    if value.dtype == torch.float32:
        return found | strangers, skipped
    reason = "values and positions must share a dtype there; compared in float32 alone"
    return found, skipped | dict.fromkeys(strangers, reason)


def workload(implementation: Implementation, inputs: Inputs, backward: bool) -> Workload:
    """What is timed: the forward pass without gradients, or both passes."""
    own = tuple(tensor.detach().contiguous() for tensor in implementation.from_ours(*inputs))
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return implementation.run(*own)

        return forward
    leaves = tuple(tensor.requires_grad_() for tensor in own)
    grad = torch.ones_like(implementation.run(*leaves))

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(implementation.run(*leaves), leaves, grad)

    return both


def results(implementation: Implementation, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Output and the three gradients, all in our layout, for any implementation."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = implementation.to_ours(implementation.run(*implementation.from_ours(*leaves)), leaves[0].shape)
    generator = torch.Generator().manual_seed(2)
    grad = torch.randn(output.shape, generator=generator).to(inputs[0].dtype).to(output)
    names = ("gradient of value", "gradient of offset", "gradient of mask")
    return {"output": output.detach()} | dict(zip(names, torch.autograd.grad(output, leaves, grad), strict=True))


def _rebuild(case: Case, name: str, official: Path | None) -> Workload:
    inputs = case.inputs()
    makers, _ = implementations(inputs[0], official)
    return workload(makers[name](), inputs, backward=True)


def _ours(backend: str | None) -> Implementation:
    return Implementation(partial(dcnv3, normalize="softmax", backend=backend))


def _reference(value: Tensor, offset: Tensor, logits: Tensor) -> Tensor:
    return dcnv3_reference(value, offset, logits, DCNv3Geometry.make(), "softmax")


_REFERENCE = Implementation(_reference)


def _torchvision() -> Implementation:
    """Channels first, points row by row, (y, x); a depth-wise convolution with weights of one adds the points up."""
    from torchvision.ops import deform_conv2d

    # Our points run column by column.
    row_major = [3 * x + y for y in range(3) for x in range(3)]

    def from_ours(value: Tensor, offset: Tensor, logits: Tensor) -> Inputs:
        yx_NGK2HW = offset[..., row_major, :].flip(-1).permute(0, 3, 4, 5, 1, 2)
        logits_NGKHW = logits[..., row_major].permute(0, 3, 4, 1, 2)
        return value.flatten(3).permute(0, 3, 1, 2), yx_NGK2HW.flatten(1, 3), logits_NGKHW

    def run(value_NCHW: Tensor, offset_NCHW: Tensor, logits_NGKHW: Tensor) -> Tensor:
        weight = value_NCHW.new_ones(value_NCHW.shape[1], 1, 3, 3)
        mask = logits_NGKHW.softmax(2).flatten(1, 2)
        return deform_conv2d(value_NCHW, offset_NCHW, weight, padding=(1, 1), mask=mask)

    return Implementation(run, from_ours, lambda output, shape: output.permute(0, 2, 3, 1).reshape(shape))


def _official(checkout: Path) -> Implementation:
    """Channels last, groups and points in one dimension; its layer takes the softmax just before the operator."""
    operator = official_operator(checkout)

    def from_ours(value: Tensor, offset: Tensor, logits: Tensor) -> Inputs:
        return value.flatten(3), offset.flatten(3), logits

    def run(value_NHWC: Tensor, offset: Tensor, logits_NHWGK: Tensor) -> Tensor:
        groups = logits_NHWGK.shape[3]
        depth = value_NHWC.shape[3] // groups
        mask = logits_NHWGK.softmax(-1).flatten(3)
        # Kernel, stride, padding and dilation in both directions; offset_scale 1, and no point left out.
        return operator(value_NHWC, offset, mask, 3, 3, 1, 1, 1, 1, 1, 1, groups, depth, 1.0, 0)

    return Implementation(run, from_ours)
