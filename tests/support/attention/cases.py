"""Deformable attention's named cases, its scalar loops, and its classic mistakes.

Shape legend: N batch, S pixels, G groups, D channels per group, Q queries, L levels, P points per level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.compare import Outcome, assert_close
from support.oracle import bilinear

Tensors = tuple[Tensor, Tensor, Tensor]
Shapes = tuple[tuple[int, int], ...]
Attention = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]
NAMES: dict[str, Any] = {"ids": lambda case: case.name}


@dataclass(frozen=True)
class Case:
    """``share``: of the points, which get one of ``hostile``."""

    name: str
    why: str
    batch: int = 2
    shapes: Shapes = ((5, 4), (2, 3))
    groups: int = 2
    depth: int = 3
    queries: int = 4
    points: int = 2
    hostile: tuple[float, ...] = ()
    permuted: bool = False

    @property
    def smaller(self) -> Case:
        """For finite differences, which take two calls for every number."""
        return replace(self, batch=1, queries=2, depth=1)

    @property
    def is_empty(self) -> bool:
        return self.batch * self.queries == 0

    def tensors(self, dtype: torch.dtype = torch.float64) -> Tensors:
        """Of order one. Most points are on the maps, none near a pixel's middle, where interpolation has a kink."""
        g = torch.Generator().manual_seed(len(self.name))
        levels, pixels = len(self.shapes), sum(h * w for h, w in self.shapes)
        rows = (self.batch, self.queries, self.groups, levels, self.points)
        own = torch.float64 if dtype == torch.float64 else torch.float32
        value = torch.randn(self.batch, pixels, self.groups, self.depth, generator=g, dtype=torch.float64)
        weights = torch.randn(rows, generator=g, dtype=torch.float64)
        size = torch.tensor([(w, h) for h, w in self.shapes], dtype=torch.float64)[:, None]
        pixel = torch.rand((*rows, 2), generator=g, dtype=torch.float64) * (size + 1.3) - 1.15
        points = (pixel.floor() + 0.1 + 0.8 * pixel.frac().abs() + 0.5) / size
        if self.hostile:
            some = torch.rand(points.shape, generator=g) < 0.3
            which = torch.randint(len(self.hostile), points.shape, generator=g)
            points = torch.where(some, torch.tensor(self.hostile, dtype=torch.float64)[which], points)
        value, points, weights = value.to(dtype), points.to(own), weights.to(own)
        if self.permuted:
            value, points, weights = (t.transpose(0, 2).contiguous().transpose(0, 2) for t in (value, points, weights))
        return value, points, weights


_HOSTILE = (float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e9, 2.0**31, 17.0, -9.0)
CASES = (
    Case("two_levels", "the plain case"),
    Case("as_detr", "four levels, four points, groups of 32", 1, ((6, 7), (3, 4), (2, 2), (1, 1)), 2, 32, 5, 4),
    Case("one_level", "DCNv3's shape of things", shapes=((3, 5),), points=3),
    Case("five_levels", "DINO's second setting", 1, ((4, 5), (3, 3), (2, 2), (2, 1), (1, 1)), 1, 8, 3, 4),
    Case("thin_maps", "one row, one column, one pixel", shapes=((1, 7), (6, 1), (1, 1)), depth=5, points=1),
    Case("one_group", "no group but one, one channel", groups=1, depth=1, queries=7, points=5),
    Case("many_rows", "more than a block of anything", 1, ((4, 3), (2, 2)), 3, 17, 41, 4),
    Case("batch_0", "no image", batch=0),
    Case("queries_0", "no query", queries=0),
    Case("nothing", "neither", batch=0, queries=0),
    Case("hostile_points", "NaN, infinite and far away", queries=9, hostile=_HOSTILE),
    Case("permuted_strides", "not contiguous", permuted=True),
)
SMOOTH = tuple(case for case in CASES if case.name in ("two_levels", "thin_maps", "permuted_strides"))


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def outcome(attention: Attention, case: Case, tensors: Tensors) -> Outcome:
    """Output and gradients; those of points and weights are called as DCNv3's of offset and mask.

    The gradient of the output is in eighths, which every dtype has.
    """
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = attention(leaves[0], case.shapes, leaves[1], leaves[2])
    grad = (8 * torch.randn(output.shape, generator=torch.Generator().manual_seed(1))).round() / 8
    return Outcome(output.detach(), *torch.autograd.grad(output, leaves, grad.to(output)))


def check(found: Outcome, expected: Outcome, name: str) -> None:
    """Points and weights of a 16-bit value are float32, and so is the tolerance of their gradients."""
    assert_close(found, expected, name)
    if name in ("bf16", "fp16"):
        nothing = torch.zeros(())
        exact = [each._replace(output=nothing, grad_value=nothing) for each in (found, expected)]
        assert_close(*exact, "fp32")


def scalar_loops(case: Case, tensors: Tensors) -> Tensor:
    """From the equation alone: it calls nothing of ours."""
    value, points, weights = (tensor.numpy() for tensor in tensors)
    batch, queries, groups, levels, per_level = weights.shape
    out = np.zeros((batch, queries, groups, value.shape[3]))
    starts = np.cumsum([0, *(h * w for h, w in case.shapes)])
    for n, q, g, level, p in np.ndindex(batch, queries, groups, levels, per_level):
        height, width = case.shapes[level]
        x, y = points[n, q, g, level, p]
        for d in range(value.shape[3]):
            plane = value[n, starts[level] : starts[level + 1], g, d].reshape(height, width)
            found = bilinear(plane, float(y) * height - 0.5, float(x) * width - 0.5)
            out[n, q, g, d] += weights[n, q, g, level, p] * found
    return torch.from_numpy(out)


@dataclass(frozen=True)
class Sabotage:
    """A mistake: what it makes of an implementation, and where it shows."""

    name: str
    wrong: Callable[[Attention, Case, Tensors], Tensor]
    applies: Callable[[Case], bool] = lambda case: True


def _half_a_pixel_off(attention: Attention, case: Case, tensors: Tensors) -> Tensor:
    value, points, weights = tensors
    size = torch.tensor([(w, h) for h, w in case.shapes], dtype=points.dtype)[:, None]
    return attention(value, case.shapes, points + 0.5 / size, weights)


def _clamped(attention: Attention, case: Case, tensors: Tensors) -> Tensor:
    value, points, weights = tensors
    half = torch.tensor([(0.5 / w, 0.5 / h) for h, w in case.shapes], dtype=points.dtype)[:, None]
    return attention(value, case.shapes, torch.maximum(torch.minimum(points, 1 - half), half), weights)


SABOTAGES = (
    Sabotage("zeros", lambda f, c, t: 0 * f(t[0], c.shapes, t[1], t[2])),
    Sabotage("times_two", lambda f, c, t: 2 * f(t[0], c.shapes, t[1], t[2])),
    Sabotage("swapped_xy", lambda f, c, t: f(t[0], c.shapes, t[1].flip(-1), t[2])),
    Sabotage("half_a_pixel_off", _half_a_pixel_off),
    Sabotage("clamped_border", _clamped),
    Sabotage("ignored_weights", lambda f, c, t: f(t[0], c.shapes, t[1], torch.ones_like(t[2]))),
    Sabotage(
        "permuted_levels",
        lambda f, c, t: f(t[0], c.shapes, t[1].roll(1, 3), t[2].roll(1, 3)),
        lambda case: len(case.shapes) > 1,
    ),
    Sabotage(
        "permuted_groups",
        lambda f, c, t: f(t[0].roll(1, 2), c.shapes, t[1], t[2]),
        lambda case: case.groups > 1,
    ),
    Sabotage(
        "swapped_sides",
        lambda f, c, t: f(t[0], tuple((w, h) for h, w in c.shapes), t[1], t[2]),
        lambda case: any(h != w for h, w in case.shapes),
    ),
)
