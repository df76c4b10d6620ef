"""Eq. (3) of Deformable DETR in plain PyTorch: any device, any floating dtype.

Shape legend: N batch, S pixels of all levels, G groups (heads), D channels per group, Q queries, L levels, P points per
level, H W one level's map, B = N*G.
"""

# PyTorch's operators without a public name have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from internimage.ops.dcnv3.reference import OUTSIDE, at_least_float32, sample_bilinear

Shapes = Sequence[tuple[int, int]]


def deformable_attention_reference(
    value_NSGD: Tensor, shapes: Shapes, points_NQGLP2: Tensor, weights_NQGLP: Tensor
) -> Tensor:
    """``sum_lp weights * value_l(points)``: shape (N, Q, G, D), dtype of ``value_NSGD``.

    Differentiable by autograd. Coordinates and sums are float32 at least. A point that lies a pixel or more from the
    middle of the map's nearest one, or whose position is not finite, contributes nothing and receives no gradient.

    Source: Eq. (3), arXiv:2010.04159.
    """
    value, points, weights = (at_least_float32(tensor) for tensor in (value_NSGD, points_NQGLP2, weights_NQGLP))
    batch, queries, groups = weights.shape[:3]
    total_BDQ = value.new_zeros((batch * groups, value.shape[3], queries))
    for level, map_BDHW in enumerate(_maps(value, shapes)):
        grid_BQP2, _ = _grid(points, shapes, level)
        weights_B1QP = _fold(weights[:, :, :, level]).unsqueeze(1)
        total_BDQ = total_BDQ + (sample_bilinear(map_BDHW, grid_BQP2) * weights_B1QP).sum(-1)
    out_NQGD = total_BDQ.unflatten(0, (batch, groups)).permute(0, 3, 1, 2)
    return out_NQGD.to(value_NSGD.dtype).contiguous()


def deformable_attention_reference_backward(
    grad_NQGD: Tensor, value_NSGD: Tensor, shapes: Shapes, points_NQGLP2: Tensor, weights_NQGLP: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, points and weights: their dtypes, contiguous; only the inputs are kept."""
    value, points, weights = (at_least_float32(tensor) for tensor in (value_NSGD, points_NQGLP2, weights_NQGLP))
    grad_BDQ1 = _fold(grad_NQGD.to(value.dtype)).transpose(1, 2).unsqueeze(-1)
    to_points, to_weights = points.new_empty(points.shape), weights.new_empty(weights.shape)
    to_value: list[Tensor] = []
    for level, map_BDHW in enumerate(_maps(value, shapes)):
        grid_BQP2, inside = _grid(points, shapes, level)
        grad_weights_BQP = (grad_BDQ1 * sample_bilinear(map_BDHW, grid_BQP2)).sum(1)
        to_weights[:, :, :, level] = _unfold(grad_weights_BQP, weights)
        grad_map_BDHW, grad_grid_BQP2 = cast(
            tuple[Tensor, Tensor],
            torch.ops.aten.grid_sampler_2d_backward(
                grad_BDQ1 * _fold(weights[:, :, :, level]).unsqueeze(1), map_BDHW, grid_BQP2, 0, 0, False, [True, True]
            ),
        )
        # grid = 2*point - 1.
        to_points[:, :, :, level] = torch.where(inside, 2 * _unfold(grad_grid_BQP2, weights), 0.0)
        grad_map_NGDS = cast(Tensor, grad_map_BDHW.unflatten(0, (value.shape[0], value.shape[2]))).flatten(3)
        to_value.append(grad_map_NGDS.permute(0, 3, 1, 2))
    return (
        torch.cat(to_value, 1).to(value_NSGD.dtype).contiguous(),
        to_points.to(points_NQGLP2.dtype),
        to_weights.to(weights_NQGLP.dtype),
    )


def scatter(grad_NQGD: Tensor, pixels: int, shapes: Shapes, points_NQGLP2: Tensor, weights_NQGLP: Tensor) -> Tensor:
    """The value's gradient (N, S, G, D), in the gradient's dtype, by sorted sums: equal bits every time.

    That is, on a GPU, under ``torch.use_deterministic_algorithms(True)``, which has PyTorch sort them.
    """
    batch, _, groups, depth = grad_NQGD.shape
    device, first = grad_NQGD.device, 0
    total = grad_NQGD.new_zeros((batch * pixels * groups, depth))
    image_N111 = torch.arange(batch, device=device).view(-1, 1, 1, 1)
    group_G1 = torch.arange(groups, device=device).view(-1, 1)
    for level, (height, width) in enumerate(shapes):
        (x, y), inside = _pixel(points_NQGLP2[:, :, :, level], height, width)
        x, y = torch.where(inside, x, 0.0), torch.where(inside, y, 0.0)
        for below, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = y.floor().long() + below, x.floor().long() + right
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = weights_NQGLP[:, :, :, level] * (1 - (y - row).abs()) * (1 - (x - column).abs())
            added = torch.where(there[..., None], share[..., None] * grad_NQGD.unsqueeze(3), 0.0)
            index = ((image_N111 * pixels + first + row * width + column) * groups + group_G1) * there
            total.index_put_((index,), added, accumulate=True)
        first += height * width
    return total.view(batch, pixels, groups, depth)


def _maps(value_NSGD: Tensor, shapes: Shapes) -> Iterator[Tensor]:
    """Each level as (B, D, H, W)."""
    maps = cast(tuple[Tensor, ...], value_NSGD.split([h * w for h, w in shapes], dim=1))
    for map_NSGD, size in zip(maps, shapes, strict=True):
        yield map_NSGD.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, size)


def _grid(points_NQGLP2: Tensor, shapes: Shapes, level: int) -> tuple[Tensor, Tensor]:
    """A level's points as ``grid_sample`` wants them, (B, Q, P, 2), and which are inside, (N, Q, G, P, 1)."""
    points_NQGP2 = points_NQGLP2[:, :, :, level]
    inside = _pixel(points_NQGP2, *shapes[level])[1].unsqueeze(-1)
    return _fold(torch.where(inside, 2 * points_NQGP2 - 1, OUTSIDE)), inside


def _pixel(points_NQGP2: Tensor, height: int, width: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Where points lie, (x, y) in pixels, and whether that is on the map or less than a pixel off it."""
    x, y = points_NQGP2[..., 0] * width - 0.5, points_NQGP2[..., 1] * height - 0.5
    # Written so that NaN is outside: every comparison with it is false.
    return (x, y), (x > -1) & (x < width) & (y > -1) & (y < height)


def _fold(tensor: Tensor) -> Tensor:
    """(N, Q, G, ...) to (B, Q, ...)."""
    return tensor.transpose(1, 2).flatten(0, 1)


def _unfold(tensor: Tensor, like: Tensor) -> Tensor:
    """The opposite of `_fold`, with N and G of ``like``."""
    return tensor.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)
