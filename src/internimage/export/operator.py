"""DCNv3 as a graph of ordinary operators: Eq. (2), arXiv:2211.05778, as `ops.dcnv3.reference` has it.

Written once against the few operators it needs, `Operators`; ONNX and OpenVINO each have them. Sizes are read from the
tensors at run time, so that batch, height and width stay open.
Shape legend: N batch, H W map, Ho Wo output map, G groups, D channels per group, K sampling points, P = Ho*Wo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from internimage.ops.dcnv3 import DCNv3Geometry


class Operators(Protocol):
    """What a format must have. Values are its own; ``shape`` and ``axes`` arguments are values or numbers as said."""

    def sizes(self, x: Any, count: int) -> list[Any]:
        """The first sizes of ``x``, one-element vectors of integers."""
        ...

    def integers(self, *numbers: int) -> Any:
        """A constant vector."""
        ...

    def floats(self, *numbers: float) -> Any:
        """A constant float32 vector."""
        ...

    def count(self, extent: Any) -> Any:
        """0, 1, ... in float32, as many as the one-element vector ``extent`` says."""
        ...

    def to_float(self, x: Any) -> Any:
        """Integers in float32."""
        ...

    def concat(self, parts: Sequence[Any], axis: int) -> Any:
        """One after the other along an axis."""
        ...

    def reshape(self, x: Any, shape: Any) -> Any:
        """``shape`` is a vector of integers."""
        ...

    def expand(self, x: Any, shape: Any) -> Any:
        """Repeated where it has one element and the vector ``shape`` has more."""
        ...

    def unsqueeze(self, x: Any, *axes: int) -> Any:
        """New axes of one element."""
        ...

    def transpose(self, x: Any, *order: int) -> Any:
        """Axes in another order."""
        ...

    def add(self, a: Any, b: Any) -> Any:
        """With broadcasting, as the next three."""
        ...

    def subtract(self, a: Any, b: Any) -> Any:
        """See `add`."""
        ...

    def multiply(self, a: Any, b: Any) -> Any:
        """See `add`."""
        ...

    def divide(self, a: Any, b: Any) -> Any:
        """See `add`."""
        ...

    def softmax(self, x: Any) -> Any:
        """Over the last axis."""
        ...

    def sigmoid(self, x: Any) -> Any:
        """Of each element."""
        ...

    def grid_sample(self, x: Any, grid: Any) -> Any:
        """``torch.nn.functional.grid_sample``: bilinear, zeros outside, corners not aligned."""
        ...

    def sum(self, x: Any, axis: int) -> Any:
        """Without that axis."""
        ...


def build_dcnv3(ops: Operators, value: Any, offset: Any, mask: Any, geometry: DCNv3Geometry, normalize: str) -> Any:
    """value (N, H, W, G, D), offset (N, Ho, Wo, G, K, 2) and mask (N, Ho, Wo, G, K), float32, to (N, Ho, Wo, G, D)."""
    batch, height, width, groups, depth = ops.sizes(value, 5)
    _, out_height, out_width = ops.sizes(offset, 3)
    maps, positions = ops.multiply(batch, groups), ops.multiply(out_height, out_width)
    points, one = ops.integers(geometry.num_points), ops.integers(1)

    def shaped(x: Any, *sizes: Any) -> Any:
        return ops.reshape(x, ops.concat(sizes, 0))

    # (N*G, D, H, W), (N*G, K, P, 2), (N*G, 1, K, P): points before positions, as sums over K then run along memory.
    folded = shaped(ops.transpose(value, 0, 3, 4, 1, 2), maps, depth, height, width)
    unit = _unit_positions(ops, offset, (height, width), (out_height, out_width), geometry)
    grid = shaped(ops.transpose(unit, 0, 3, 4, 1, 2, 5), maps, points, positions, ops.integers(2))
    scalars = ops.softmax(mask) if normalize == "softmax" else ops.sigmoid(mask) if normalize == "sigmoid" else mask
    weights = shaped(ops.transpose(scalars, 0, 3, 4, 1, 2), maps, one, points, positions)
    summed = ops.sum(ops.multiply(ops.grid_sample(folded, grid), weights), 2)
    return ops.transpose(shaped(summed, batch, groups, depth, out_height, out_width), 0, 3, 4, 1, 2)


def _unit_positions(
    ops: Operators, offset: Any, size: tuple[Any, Any], out_size: tuple[Any, Any], geometry: DCNv3Geometry
) -> Any:
    """Where the points lie, (N, Ho, Wo, G, K, 2) as (x, y), -1 to 1 across the map."""
    (height, width), scale = size, geometry.offset_scale
    rows, columns = (_window_points(ops, extent, axis, geometry) for axis, extent in enumerate(out_size))
    # (Wo, K) and (Ho, K) to (Ho, Wo, 1, K, 2).
    both = ops.concat((*out_size, ops.integers(1), ops.integers(geometry.num_points)), 0)
    base = ops.concat(
        [
            ops.unsqueeze(ops.expand(each, both), -1)
            for each in (ops.unsqueeze(columns, 0, 2), ops.unsqueeze(rows, 1, 2))
        ],
        -1,
    )
    position = ops.add(base, offset if scale == 1.0 else ops.multiply(offset, ops.floats(scale)))
    # (2*position + 1)/size - 1
    doubled = ops.add(ops.multiply(position, ops.floats(2.0)), ops.floats(1.0))
    return ops.subtract(ops.divide(doubled, ops.to_float(ops.concat((width, height), 0))), ops.floats(1.0))


def _window_points(ops: Operators, extent: Any, axis: int, geometry: DCNv3Geometry) -> Any:
    """Along one axis, every output's K points before any offset, (extent, K)."""
    scale, dilation, center = geometry.offset_scale, geometry.dilation[axis], geometry.center[axis]
    points = (scale * (dilation * point[axis] - center) for point in geometry.points_yx)
    window = ops.floats(*(point + center - geometry.padding[axis] for point in points))
    starts = ops.multiply(ops.count(extent), ops.floats(geometry.stride[axis]))
    return ops.add(ops.unsqueeze(starts, 1), window)
