"""DCNv3 as the deformable convolution that formats know, DCNv2's: written once, for ONNX and OpenVINO.

Every group is an image of its own, whose D channels go through a kernel of ones on the diagonal; the modulation is
DCNv2's mask. So Eq. (1) of arXiv:2211.05778, with w_k the identity, is Eq. (2). For such a group runtimes have faster
code than for all channels with a depth-wise kernel: docs/decisions/0012-deformable-convolution-in-exports.md.
Shape legend: N batch, H W map, Ho Wo output map, G groups, D channels per group, K sampling points, T = Kh*Kw taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from internimage.ops.dcnv3 import DCNv3Geometry


class Operators(Protocol):
    """What a format must have. Values are its own; arrays are float32."""

    def reshape(self, x: Any, *sizes: int) -> Any:
        """0 is the size that ``x`` has at that place, -1 what is left."""
        ...

    def transpose(self, x: Any, *order: int) -> Any:
        """Axes in another order."""
        ...

    def pick(self, x: Any, channels: Sequence[int]) -> Any:
        """Of axis 1 those channels, in this order."""
        ...

    def multiply(self, x: Any, factors: np.ndarray) -> Any:
        """With broadcasting."""
        ...

    def add(self, x: Any, terms: np.ndarray) -> Any:
        """With broadcasting."""
        ...

    def softmax(self, x: Any) -> Any:
        """Over the last axis."""
        ...

    def sigmoid(self, x: Any) -> Any:
        """Of each element."""
        ...

    def deform_conv(self, x: Any, weight: np.ndarray, offset: Any, mask: Any, geometry: DCNv3Geometry) -> Any:
        """x (N, D, H, W), weight (D, D, Kh, Kw), offset (N, 2*T, Ho, Wo) as (y, x), mask (N, T, Ho, Wo); row-major.

        Bilinear, zeros around the map; stride, padding and dilation of ``geometry``.
        """
        ...


def build_dcnv3(
    ops: Operators,
    value: Any,
    offset: Any,
    mask: Any,
    sizes: tuple[int, int],
    geometry: DCNv3Geometry,
    normalize: str,
) -> Any:
    """value (N, H, W, G, D), offset (N, Ho, Wo, G, K, 2) and mask (N, Ho, Wo, G, K), float32, to (N, Ho, Wo, G, D).

    Args:
        sizes: G and D; the others stay open.
    """
    groups, depth = sizes
    height, width = geometry.kernel_size
    points = {point: place for place, point in enumerate(geometry.points_yx)}
    taps = [(iy, ix) for iy in range(height) for ix in range(width)]
    # Where the centre is left out, any point's numbers will do: its tap of the kernel is zero.
    places = [points.get(tap, 0) for tap in taps]

    def of_each_group(x: Any, channels: int) -> Any:
        return ops.reshape(ops.transpose(ops.reshape(x, 0, 0, 0, -1), 0, 3, 1, 2), -1, channels, 0, 0)

    moved = of_each_group(offset, 2 * geometry.num_points)
    moved = ops.pick(moved, [2 * place + is_y for place in places for is_y in (1, 0)])
    if (scale := geometry.offset_scale) != 1.0:
        # DCNv3 scales the window, too.
        (dilation_y, dilation_x), (center_y, center_x) = geometry.dilation, geometry.center
        window = [(dilation_y * iy - center_y, dilation_x * ix - center_x) for iy, ix in taps]
        terms = (scale - 1.0) * np.array(window, np.float32).reshape(-1, 1, 1)
        moved = ops.add(ops.multiply(moved, np.array(scale, np.float32)), terms)
    scalars = ops.softmax(mask) if normalize == "softmax" else ops.sigmoid(mask) if normalize == "sigmoid" else mask
    scalars = ops.pick(of_each_group(scalars, geometry.num_points), places)
    present = np.array([tap in points for tap in taps], np.float32).reshape(height, width)
    weight = np.eye(depth, dtype=np.float32)[:, :, None, None] * present
    out = ops.deform_conv(of_each_group(value, depth), weight, moved, scalars, geometry)
    out = ops.transpose(ops.reshape(out, -1, groups * depth, 0, 0), 0, 2, 3, 1)
    return ops.reshape(out, 0, 0, 0, groups, depth)
