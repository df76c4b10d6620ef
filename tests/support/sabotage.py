"""Wrong DCNv3s: each makes one classic mistake. The suite must reject all of them, or it proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from internimage.ops.dcnv3 import DCNv3Geometry, dcnv3_reference, sampling_positions_xy
from support.cases import Case

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Sabotage:
    name: str
    wrong: Callable[[Case, Tensors], torch.Tensor]
    applies: Callable[[Case], bool] = lambda case: case.shape[0] > 0


def right(case: Case, tensors: Tensors, geometry: DCNv3Geometry | None = None) -> torch.Tensor:
    return dcnv3_reference(*tensors, geometry or case.geometry, case.pattern.normalize)


def _zeros(case: Case, tensors: Tensors) -> torch.Tensor:
    return torch.zeros_like(right(case, tensors))


def _times_two(case: Case, tensors: Tensors) -> torch.Tensor:
    return 2 * right(case, tensors)


def _swapped_xy(case: Case, tensors: Tensors) -> torch.Tensor:
    return right(case, (tensors[0], tensors[1].flip(-1), tensors[2]))


def _off_by_one_pixel(case: Case, tensors: Tensors) -> torch.Tensor:
    shift = torch.tensor([1.0, 0.0], dtype=tensors[1].dtype) / case.pattern.scale
    return right(case, (tensors[0], tensors[1] + shift, tensors[2]))


def _clamped_border(case: Case, tensors: Tensors) -> torch.Tensor:
    position = sampling_positions_xy(tensors[1], case.geometry)
    limit = torch.tensor([case.shape[2] - 1, case.shape[1] - 1], dtype=position.dtype)
    clamped = position.clamp(torch.zeros_like(limit), limit)
    # Offsets of the clamped points, from the positions of the points without offsets.
    base = sampling_positions_xy(torch.zeros_like(tensors[1]), case.geometry)
    return right(case, (tensors[0], (clamped - base) / case.pattern.scale, tensors[2]))


def _ignored_mask(case: Case, tensors: Tensors) -> torch.Tensor:
    return right(case, (tensors[0], tensors[1], torch.ones_like(tensors[2])))


def _permuted_groups(case: Case, tensors: Tensors) -> torch.Tensor:
    return right(case, (tensors[0], tensors[1].roll(1, dims=3), tensors[2]))


def _row_major_points(case: Case, tensors: Tensors) -> torch.Tensor:
    kernel_h, kernel_w = case.pattern.kernel
    order = torch.arange(kernel_h * kernel_w).view(kernel_w, kernel_h).t().flatten()
    return right(case, (tensors[0], tensors[1][..., order, :], tensors[2][..., order]))


def _kept_center(case: Case, tensors: Tensors) -> torch.Tensor:
    """Eight weights on the first eight of nine points instead of on the eight around the middle."""
    full = DCNv3Geometry(**{**case.geometry.__dict__, "remove_center": False})
    pad_offset = torch.nn.functional.pad(tensors[1], (0, 0, 0, 1))
    pad_mask = torch.nn.functional.pad(tensors[2], (0, 1), value=float("-inf"))
    return right(case, (tensors[0], pad_offset, pad_mask), full)


SABOTAGES = (
    Sabotage("zeros", _zeros),
    Sabotage("times_two", _times_two),
    Sabotage("swapped_xy", _swapped_xy),
    Sabotage("off_by_one_pixel", _off_by_one_pixel),
    Sabotage("clamped_border", _clamped_border),
    Sabotage("ignored_mask", _ignored_mask),
    Sabotage("permuted_groups", _permuted_groups, lambda case: case.shape[0] > 0 and case.shape[3] > 1),
    Sabotage(
        "row_major_points",
        _row_major_points,
        lambda case: case.shape[0] > 0 and min(case.pattern.kernel) > 1 and not case.pattern.remove_center,
    ),
    Sabotage("kept_center", _kept_center, lambda case: case.pattern.remove_center),
)
