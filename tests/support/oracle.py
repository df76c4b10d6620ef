"""DCNv3 as scalar loops over Python floats, written from the equation alone: it imports nothing of ours.

Layout: value[n][y][x][g][d], offset[n][oy][ox][g][k] = (dx, dy), mask[n][oy][ox][g][k].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pattern:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    scale: float
    remove_center: bool
    normalize: str


def output_length(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Count the windows that fit, one after the other."""
    count, start = 0, -padding
    while start + dilation * (kernel - 1) <= size - 1 + padding:
        count, start = count + 1, start + stride
    return count


def weights_of(logits: list[float], normalize: str) -> list[float]:
    if normalize == "none":
        return logits
    if normalize == "sigmoid":
        return [1.0 / (1.0 + math.exp(-logit)) for logit in logits]
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    return [power / sum(powers) for power in powers]


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """One channel plane (H, W) at a real position; everything outside is zero, and so is a position of no meaning."""
    height, width = plane.shape
    if not (-1 < y < height and -1 < x < width):
        return 0.0
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * float(plane[row, column])
    return total


def axis_position(
    out: int, index: int, offset: float, kernel: int, stride: int, padding: int, dilation: int, scale: float
) -> float:
    middle = (dilation * (kernel - 1)) // 2
    return stride * out - padding + middle + scale * (dilation * index - middle + offset)


def dcnv3_scalar(value: np.ndarray, offset: np.ndarray, mask: np.ndarray, p: Pattern) -> np.ndarray:
    """float64 arrays in, (N, Ho, Wo, G, D) out."""
    batch, height, width, groups, depth = value.shape
    out_h = output_length(height, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0])
    out_w = output_length(width, p.kernel[1], p.stride[1], p.padding[1], p.dilation[1])
    points = [(kx, ky) for kx in range(p.kernel[1]) for ky in range(p.kernel[0])]
    if p.remove_center:
        points.remove((p.kernel[1] // 2, p.kernel[0] // 2))
    out = np.zeros((batch, out_h, out_w, groups, depth))
    for n, oy, ox, g in np.ndindex(batch, out_h, out_w, groups):
        weights = weights_of([float(m) for m in mask[n, oy, ox, g]], p.normalize)
        for k, (kx, ky) in enumerate(points):
            dx, dy = (float(d) for d in offset[n, oy, ox, g, k])
            x = axis_position(ox, kx, dx, p.kernel[1], p.stride[1], p.padding[1], p.dilation[1], p.scale)
            y = axis_position(oy, ky, dy, p.kernel[0], p.stride[0], p.padding[0], p.dilation[0], p.scale)
            for d in range(depth):
                out[n, oy, ox, g, d] += weights[k] * bilinear(value[n, :, :, g, d], y, x)
    return out
