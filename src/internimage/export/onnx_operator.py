"""DCNv3 in ONNX's standard operators, opset 20: Eq. (2), arXiv:2211.05778, as `ops.dcnv3.reference` has it.

PyTorch's exporter calls `dcnv3_to_onnx` for each call of the operator in an exported program. Sizes are read from the
tensors at run time, so that batch, height and width stay open.
Shape legend: N batch, H W map, Ho Wo output map, G groups, D channels per group, K sampling points, P = Ho*Wo.
"""

# What onnxscript's operators take and give has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset20

from internimage.ops.dcnv3.geometry import DCNv3Geometry

_op: Any = opset20
_FLOAT = ir.DataType.FLOAT.value


def dcnv3_to_onnx(
    value: Any,
    offset: Any,
    mask: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    remove_center: bool,
    normalize: str,
) -> Any:
    """``internimage::dcnv3``: value (N, H, W, G, D), offset (N, Ho, Wo, G, K, 2), mask (N, Ho, Wo, G, K)."""
    geometry = DCNv3Geometry.make(kernel_size, stride, padding, dilation, offset_scale, remove_center)
    dtype = value.dtype
    if dtype != ir.DataType.FLOAT:
        # Coordinates, weights and sums are float32; a runtime need not know how to sample in 16 bits.
        value, offset, mask = (_op.Cast(each, to=_FLOAT) for each in (value, offset, mask))
    batch, height, width, groups, depth = _sizes(value, 5)
    _, out_height, out_width = _sizes(offset, 3)
    maps = _op.Mul(batch, groups)
    positions, points = _op.Mul(out_height, out_width), _ints(geometry.num_points)
    # (N*G, D, H, W), (N*G, K, P, 2), (N*G, 1, K, P): points before positions, as sums over K then run along memory.
    folded = _op.Reshape(_op.Transpose(value, perm=[0, 3, 4, 1, 2]), _shape(maps, depth, height, width))
    unit = _unit_positions(offset, (height, width), (out_height, out_width), geometry)
    grid = _op.Reshape(_op.Transpose(unit, perm=[0, 3, 4, 1, 2, 5]), _shape(maps, points, positions, _ints(2)))
    scalars = _op.Transpose(_normalized(mask, normalize), perm=[0, 3, 4, 1, 2])
    weights = _op.Reshape(scalars, _shape(maps, _ints(1), points, positions))
    sampled = _op.GridSample(folded, grid, align_corners=0, mode="linear", padding_mode="zeros")
    summed = _op.ReduceSum(_op.Mul(sampled, weights), _ints(2), keepdims=0)
    out = _op.Transpose(_op.Reshape(summed, _shape(batch, groups, depth, out_height, out_width)), perm=[0, 3, 4, 1, 2])
    return out if dtype == ir.DataType.FLOAT else _op.Cast(out, to=dtype.value)


def _unit_positions(offset: Any, size: tuple[Any, Any], out_size: tuple[Any, Any], geometry: DCNv3Geometry) -> Any:
    """Where the points lie, (N, Ho, Wo, G, K, 2) as (x, y), -1 to 1 across the map."""
    (height, width), scale = size, geometry.offset_scale
    rows, columns = (_window_points(extent, axis, geometry) for axis, extent in enumerate(out_size))
    # (Wo, K) and (Ho, K) to (Ho, Wo, 1, K, 2).
    both = _shape(*out_size, _ints(1), _ints(geometry.num_points))
    base = _op.Concat(
        _op.Unsqueeze(_op.Expand(_op.Unsqueeze(columns, _ints(0, 2)), both), _ints(-1)),
        _op.Unsqueeze(_op.Expand(_op.Unsqueeze(rows, _ints(1, 2)), both), _ints(-1)),
        axis=-1,
    )
    moved = offset if scale == 1.0 else _op.Mul(offset, _floats(scale))
    position = _op.Add(base, moved)
    extents = _op.Cast(_op.Concat(width, height, axis=0), to=_FLOAT)
    # (2*position + 1)/size - 1
    return _op.Sub(_op.Div(_op.Add(_op.Mul(position, _floats(2.0)), _floats(1.0)), extents), _floats(1.0))


def _window_points(extent: Any, axis: int, geometry: DCNv3Geometry) -> Any:
    """Along one axis, every output's K points before any offset, (extent, K)."""
    scale, dilation, center = geometry.offset_scale, geometry.dilation[axis], geometry.center[axis]
    points = (scale * (dilation * point[axis] - center) for point in geometry.points_yx)
    window = _floats(*(point + center - geometry.padding[axis] for point in points))
    starts = _op.Mul(_count(extent), _floats(geometry.stride[axis]))
    return _op.Add(_op.Unsqueeze(starts, _ints(1)), window)


def _normalized(mask: Any, normalize: str) -> Any:
    if normalize == "softmax":
        return _op.Softmax(mask, axis=-1)
    return _op.Sigmoid(mask) if normalize == "sigmoid" else mask


def _count(extent: Any) -> Any:
    """0, 1, ... as float32, ``extent`` of them."""
    return _op.Cast(_op.Range(_scalar(0), _op.Squeeze(extent), _scalar(1)), to=_FLOAT)


def _sizes(tensor: Any, count: int) -> list[Any]:
    shape = _op.Shape(tensor)
    return [_op.Slice(shape, _ints(axis), _ints(axis + 1)) for axis in range(count)]


def _shape(*sizes: Any) -> Any:
    return _op.Concat(*sizes, axis=0)


def _ints(*numbers: int) -> Any:
    return _op.Constant(value=ir.tensor(np.array(numbers, np.int64)))


def _scalar(number: int) -> Any:
    return _op.Constant(value=ir.tensor(np.array(number, np.int64)))


def _floats(*numbers: float) -> Any:
    return _op.Constant(value=ir.tensor(np.array(numbers, np.float32)))
