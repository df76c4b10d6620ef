"""DCNv3 by ONNX's operators, opset 20; PyTorch's exporter calls what `translator` gives.

Shape legend: N batch, H W map, Ho Wo output map, G groups, D channels per group, K sampling points, P = Ho*Wo.
"""

# What onnxscript's operators take and give has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnxscript import opset20

from internimage.export.operator import build_dcnv3
from internimage.ops.dcnv3 import DCNv3Geometry

Sampling = Literal["grid_sample", "deform_conv"]
_op: Any = opset20
_FLOAT = ir.DataType.FLOAT.value


def translator(sampling: Sampling) -> Callable[..., Any]:
    """For ``internimage::dcnv3``; in float32, whatever the dtype: a runtime need not know how to sample in 16 bits."""
    build = {"grid_sample": _build_with_grid_sample, "deform_conv": build_dcnv3}[sampling]

    def translate(value: Any, offset: Any, mask: Any, *settings: Any) -> Any:
        dtype, sizes = value.dtype, (int(value.shape[3]), int(value.shape[4]))
        if dtype != ir.DataType.FLOAT:
            value, offset, mask = (_op.Cast(each, to=_FLOAT) for each in (value, offset, mask))
        geometry = DCNv3Geometry.make(*settings[:-1])
        out = build(OnnxOperators(), value, offset, mask, sizes, geometry, settings[-1])
        return out if dtype == ir.DataType.FLOAT else _op.Cast(out, to=dtype.value)

    return translate


class OnnxOperators:
    """See `operator.Operators`."""

    def reshape(self, x: Any, *sizes: int) -> Any:
        return _op.Reshape(x, _constant(sizes, np.int64))

    def transpose(self, x: Any, *order: int) -> Any:
        return _op.Transpose(x, perm=list(order))

    def pick(self, x: Any, channels: Sequence[int]) -> Any:
        return _op.Gather(x, _constant(channels, np.int64), axis=1)

    def multiply(self, x: Any, factors: np.ndarray) -> Any:
        return _op.Mul(x, _constant(factors))

    def add(self, x: Any, terms: np.ndarray) -> Any:
        return _op.Add(x, _constant(terms))

    def softmax(self, x: Any) -> Any:
        return _op.Softmax(x, axis=-1)

    def sigmoid(self, x: Any) -> Any:
        return _op.Sigmoid(x)

    def deform_conv(self, x: Any, weight: np.ndarray, offset: Any, mask: Any, geometry: DCNv3Geometry) -> Any:
        return _op.DeformConv(
            x,
            _constant(weight),
            offset,
            _constant(np.zeros(len(weight))),
            mask,
            kernel_shape=list(geometry.kernel_size),
            strides=list(geometry.stride),
            pads=[*geometry.padding, *geometry.padding],
            dilations=list(geometry.dilation),
        )


def _build_with_grid_sample(
    ops: OnnxOperators,
    value: Any,
    offset: Any,
    mask: Any,
    sizes: tuple[int, int],
    geometry: DCNv3Geometry,
    normalize: str,
) -> Any:
    """`operator.build_dcnv3` in an operator that more runtimes have."""
    (groups, depth), points = sizes, geometry.num_points
    scalars = ops.softmax(mask) if normalize == "softmax" else ops.sigmoid(mask) if normalize == "sigmoid" else mask
    # (N*G, D, H, W), (N*G, K, P, 2), (N*G, 1, K, P): points before positions, as sums over K then run along memory.
    maps = ops.reshape(ops.transpose(ops.reshape(value, 0, 0, 0, -1), 0, 3, 1, 2), -1, depth, 0, 0)
    grid = ops.reshape(_unit_positions(value, offset, groups, geometry), 0, -1, groups * points, 2)
    grid = ops.reshape(ops.transpose(grid, 0, 2, 1, 3), -1, points, 0, 2)
    weights = ops.transpose(ops.reshape(scalars, 0, -1, groups * points), 0, 2, 1)
    weights = _op.Unsqueeze(ops.reshape(weights, -1, points, 0), _constant([1], np.int64))
    sampled = _op.GridSample(maps, grid, align_corners=0, mode="linear", padding_mode="zeros")
    summed = _op.ReduceSum(_op.Mul(sampled, weights), _constant([2], np.int64), keepdims=0)
    out = ops.transpose(ops.reshape(summed, -1, groups * depth, 0), 0, 2, 1)
    shape = _op.Concat(_op.Shape(offset, start=0, end=3), _constant(sizes, np.int64), axis=0)
    return _op.Reshape(out, shape)


def _unit_positions(value: Any, offset: Any, groups: int, geometry: DCNv3Geometry) -> Any:
    """Where the points lie, (N, Ho, Wo, G, K, 2) as (x, y), -1 to 1 across the map: (2*position + 1)/size - 1.

    What does not depend on the offsets is added up before, on a small tensor; and x and y are repeated beforehand:
    runtimes are slow to broadcast two numbers along the innermost axis.
    """
    scale, (dilation_y, dilation_x), (center_y, center_x) = geometry.offset_scale, geometry.dilation, geometry.center
    (stride_y, stride_x), (padding_y, padding_x) = geometry.stride, geometry.padding
    window = [
        (
            scale * (dilation_x * ix - center_x) + center_x - padding_x,
            scale * (dilation_y * iy - center_y) + center_y - padding_y,
        )
        for iy, ix in geometry.points_yx
    ]
    size_xy = _op.Cast(_op.Gather(_op.Shape(value), _constant([2, 1], np.int64)), to=_FLOAT)
    # (Wo, 1, K, 2) + (Ho, 1, 1, K, 2) to (Ho, Wo, 1, K, 2).
    columns = _op.Mul(_count(offset, 2, 3), _constant([[2.0 * stride_x, 0.0]] * len(window)))
    columns = _op.Add(columns, _constant(2.0 * np.array(window) + 1.0))
    columns = _op.Sub(_op.Div(columns, size_xy), _constant(1.0))
    rows = _op.Mul(_count(offset, 1, 4), _op.Div(_constant([[0.0, 2.0 * stride_y]] * len(window)), size_xy))
    fixed = _op.Add(columns, rows)
    factor = _op.Div(_constant(np.full((groups, len(window), 2), 2.0 * scale)), size_xy)
    positions = _op.Add(fixed, _op.Mul(offset, factor))
    # From -3 to 3 is off the map as well as any; beyond the largest integer a runtime may wrap around.
    return _op.Clip(positions, _constant(-3.0), _constant(3.0))


def _count(x: Any, axis: int, trailing: int) -> Any:
    """0, 1, ... as many as ``x`` has along an axis, with axes of one element after it."""
    zero, one = _constant(0, np.int64), _constant(1, np.int64)
    numbers = _op.Range(zero, _op.Squeeze(_op.Shape(x, start=axis, end=axis + 1)), one)
    return _op.Cast(_op.Reshape(numbers, _constant([-1] + [1] * trailing, np.int64)), to=_FLOAT)


def _constant(numbers: Any, dtype: Any = np.float32) -> Any:
    return _op.Constant(value=ir.tensor(np.array(numbers, dtype)))
