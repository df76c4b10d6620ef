"""ONNX's operators, opset 20, for `operator.build_dcnv3`; PyTorch's exporter calls `dcnv3_to_onnx`."""

# What onnxscript's operators take and give has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset20

from internimage.export.operator import build_dcnv3
from internimage.ops.dcnv3 import DCNv3Geometry

_op: Any = opset20
_FLOAT = ir.DataType.FLOAT.value


def dcnv3_to_onnx(value: Any, offset: Any, mask: Any, *settings: Any) -> Any:
    """``internimage::dcnv3`` in float32, whatever the dtype: a runtime need not know how to sample in 16 bits."""
    dtype = value.dtype
    if dtype != ir.DataType.FLOAT:
        value, offset, mask = (_op.Cast(each, to=_FLOAT) for each in (value, offset, mask))
    out = build_dcnv3(OnnxOperators(), value, offset, mask, DCNv3Geometry.make(*settings[:-1]), settings[-1])
    return out if dtype == ir.DataType.FLOAT else _op.Cast(out, to=dtype.value)


class OnnxOperators:
    """See `operator.Operators`."""

    def sizes(self, x: Any, count: int) -> list[Any]:
        shape = _op.Shape(x)
        return [_op.Slice(shape, self.integers(axis), self.integers(axis + 1)) for axis in range(count)]

    def integers(self, *numbers: int) -> Any:
        return _op.Constant(value=ir.tensor(np.array(numbers, np.int64)))

    def floats(self, *numbers: float) -> Any:
        return _op.Constant(value=ir.tensor(np.array(numbers, np.float32)))

    def count(self, extent: Any) -> Any:
        zero, one = (_op.Constant(value=ir.tensor(np.array(number, np.int64))) for number in (0, 1))
        return self.to_float(_op.Range(zero, _op.Squeeze(extent), one))

    def to_float(self, x: Any) -> Any:
        return _op.Cast(x, to=_FLOAT)

    def concat(self, parts: Sequence[Any], axis: int) -> Any:
        return _op.Concat(*parts, axis=axis)

    def reshape(self, x: Any, shape: Any) -> Any:
        return _op.Reshape(x, shape)

    def expand(self, x: Any, shape: Any) -> Any:
        return _op.Expand(x, shape)

    def unsqueeze(self, x: Any, *axes: int) -> Any:
        return _op.Unsqueeze(x, self.integers(*axes))

    def transpose(self, x: Any, *order: int) -> Any:
        return _op.Transpose(x, perm=list(order))

    def add(self, a: Any, b: Any) -> Any:
        return _op.Add(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return _op.Sub(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return _op.Mul(a, b)

    def divide(self, a: Any, b: Any) -> Any:
        return _op.Div(a, b)

    def softmax(self, x: Any) -> Any:
        return _op.Softmax(x, axis=-1)

    def sigmoid(self, x: Any) -> Any:
        return _op.Sigmoid(x)

    def grid_sample(self, x: Any, grid: Any) -> Any:
        return _op.GridSample(x, grid, align_corners=0, mode="linear", padding_mode="zeros")

    def sum(self, x: Any, axis: int) -> Any:
        return _op.ReduceSum(x, self.integers(axis), keepdims=0)
