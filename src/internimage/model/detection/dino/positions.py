"""Where tokens and boxes are: padding, sine codes, reference points, first proposals.

Shape legend: N images, L levels, S tokens of all levels, Q queries, C channels, H W of a map or of the batch.

Source: the released code with mmdet 2.28 (``SinePositionalEncoding``, ``DeformableDetrTransformer``), 31c962d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from internimage.structures import Placement

_SMALL = 1e-6
# Of the sine codes: of a token's place, and of a query's box.
_TOKEN_TEMPERATURE, _BOX_TEMPERATURE = 20.0, 10000.0
# Boxes whose coordinates leave this range are no proposals; sides of the finest level's proposals.
_INSIDE = (0.01, 0.99)
_FIRST_SIDE = 0.05
_NEAR_BORDER = 1e-3


@dataclass(frozen=True)
class Layout:
    """Which tokens there are.

    Args:
        shapes: (height, width) of each level.
        valid: (N, S), whether a token lies in its picture; None where nothing is padded.
        ratios: (N, L, 2), how much of a level the picture takes, along x and y.
        codes: (N, S, C), sine codes of the tokens' places, without the level's own part.
    """

    shapes: list[tuple[int, int]]
    valid: Tensor | None
    ratios: Tensor
    codes: Tensor


def lay_out(maps: Sequence[Tensor], size: tuple[int, int], placements: Sequence[Placement]) -> Layout:
    """The tokens of some maps (N, C, H, W), made of a batch of ``size`` (height, width)."""
    first = maps[0]
    padding_NHW = torch.ones((len(first), *size), device=first.device)
    for padding_HW, place in zip(padding_NHW, placements, strict=True):
        padding_HW[: place.size[0], : place.size[1]] = 0
    shapes = [(each.shape[-2], each.shape[-1]) for each in maps]
    valid = [functional.interpolate(padding_NHW[None], size=shape)[0] == 0 for shape in shapes]
    ratios = [torch.stack((each[:, 0].float().mean(1), each[:, :, 0].float().mean(1)), -1) for each in valid]
    codes = [_place_codes(each, first.shape[1]).flatten(1, 2) for each in valid]
    is_padded = any(place.size != size for place in placements)
    valid_NS = torch.cat([each.flatten(1) for each in valid], 1) if is_padded else None
    return Layout(shapes, valid_NS, torch.stack(ratios, 1), torch.cat(codes, 1))


def _place_codes(valid_NHW: Tensor, channels: int) -> Tensor:
    """(N, H, W, C): y first, then x, each counted from 1 to the picture's last row or column."""
    rows, columns = valid_NHW.float().cumsum(1), valid_NHW.float().cumsum(2)
    y = rows / (rows[:, -1:] + _SMALL) * 2 * math.pi
    x = columns / (columns[:, :, -1:] + _SMALL) * 2 * math.pi
    half = channels // 2
    return torch.cat((_sine(y, half, _TOKEN_TEMPERATURE), _sine(x, half, _TOKEN_TEMPERATURE)), -1)


def box_codes(boxes_NQ4: Tensor, channels: int) -> Tensor:
    """(N, Q, 2 * C) of boxes (center x, center y, width, height): y, x, width, height."""
    x, y, width, height = (boxes_NQ4 * 2 * math.pi).unbind(-1)
    return torch.cat([_sine(each, channels // 2, _BOX_TEMPERATURE) for each in (y, x, width, height)], -1)


def _sine(angles: Tensor, count: int, temperature: float) -> Tensor:
    """(...) to (..., count): sines at even places, cosines at odd ones, slower and slower."""
    number = torch.arange(count, device=angles.device)
    slowed = angles[..., None] / temperature ** (2 * (number // 2).float() / count)
    return torch.where(number % 2 == 0, slowed.sin(), slowed.cos())


def reference_points(layout: Layout) -> Tensor:
    """(N, S, L, 2): each token's place as (x, y) in every level, 1 being the level's end, with its padding."""
    ratios_NL2 = layout.ratios
    points = [
        _centers(shape, ratios_NL2.device)[None] / (ratios_NL2[:, None, level] * _extent(shape, ratios_NL2))
        for level, shape in enumerate(layout.shapes)
    ]
    return torch.cat(points, 1)[:, :, None] * ratios_NL2[:, None]


def proposals(layout: Layout) -> Tensor:
    """(N, S, 4): logits of one box around each token, relative to the picture; infinite where none is proposed."""
    found: list[Tensor] = []
    for level, shape in enumerate(layout.shapes):
        # Whole rows and columns of the picture; the ratio alone would round.
        counts_N12 = (layout.ratios[:, None, level] * _extent(shape, layout.ratios)).round()
        centers_NS2 = _centers(shape, counts_N12.device)[None] / counts_N12
        found.append(torch.cat((centers_NS2, torch.full_like(centers_NS2, _FIRST_SIDE * 2**level)), -1))
    boxes_NS4 = torch.cat(found, 1)
    is_inside = ((boxes_NS4 > _INSIDE[0]) & (boxes_NS4 < _INSIDE[1])).all(-1)
    if layout.valid is not None:
        is_inside = is_inside & layout.valid
    return torch.logit(boxes_NS4).masked_fill(~is_inside[..., None], math.inf)


def _centers(shape: tuple[int, int], device: torch.device) -> Tensor:
    """(H * W, 2): (x, y) of the middle of each position, in positions."""
    height, width = shape
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
    )
    return torch.stack((x, y), -1).flatten(0, 1)


def _extent(shape: tuple[int, int], like: Tensor) -> Tensor:
    return like.new_tensor((shape[1], shape[0]))


def inverse_sigmoid(boxes: Tensor) -> Tensor:
    """Logits of boxes in [0, 1]; each of the two distances to the border counts as ``_NEAR_BORDER`` at least."""
    return (boxes.clamp(min=_NEAR_BORDER) / (1 - boxes).clamp(min=_NEAR_BORDER)).log()
