"""OpenVINO's operators for `operator.build_dcnv3`; its reader of PyTorch programs calls `dcnv3_to_openvino`."""

# OpenVINO's operators have no types that help.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from openvino import opset15

from internimage.export.operator import build_dcnv3
from internimage.ops.dcnv3 import DCNv3Geometry

_op: Any = opset15
_GRID_SAMPLE = {"align_corners": False, "mode": "bilinear", "padding_mode": "zeros"}


def dcnv3_to_openvino(context: Any) -> list[Any]:
    """``internimage::dcnv3``, whose settings are constant inputs after the three tensors."""
    value, offset, mask = (context.get_input(place) for place in range(3))
    *pairs, scale, remove_center, normalize = (context.get_input(place).get_node().data for place in range(3, 10))
    geometry = DCNv3Geometry.make(
        *([int(number) for number in pair] for pair in pairs),
        offset_scale=float(scale),
        remove_center=bool(remove_center),
    )
    # A string is a constant of its bytes.
    return build_dcnv3(OpenVinoOperators(), value, offset, mask, geometry, bytes(normalize).decode()).outputs()


class OpenVinoOperators:
    """See `operator.Operators`."""

    def sizes(self, x: Any, count: int) -> list[Any]:
        shape, step = _op.shape_of(x), self.integers(1)
        return [_op.slice(shape, self.integers(axis), self.integers(axis + 1), step) for axis in range(count)]

    def integers(self, *numbers: int) -> Any:
        return _op.constant(np.array(numbers, np.int64))

    def floats(self, *numbers: float) -> Any:
        return _op.constant(np.array(numbers, np.float32))

    def count(self, extent: Any) -> Any:
        zero, one = (_op.constant(np.int64(number)) for number in (0, 1))
        return self.to_float(_op.range(zero, _op.squeeze(extent, self.integers(0)), one, "i64"))

    def to_float(self, x: Any) -> Any:
        return _op.convert(x, "f32")

    def concat(self, parts: Sequence[Any], axis: int) -> Any:
        return _op.concat(list(parts), axis)

    def reshape(self, x: Any, shape: Any) -> Any:
        return _op.reshape(x, shape, False)

    def expand(self, x: Any, shape: Any) -> Any:
        return _op.broadcast(x, shape)

    def unsqueeze(self, x: Any, *axes: int) -> Any:
        return _op.unsqueeze(x, self.integers(*axes))

    def transpose(self, x: Any, *order: int) -> Any:
        return _op.transpose(x, self.integers(*order))

    def add(self, a: Any, b: Any) -> Any:
        return _op.add(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return _op.subtract(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return _op.multiply(a, b)

    def divide(self, a: Any, b: Any) -> Any:
        return _op.divide(a, b)

    def softmax(self, x: Any) -> Any:
        return _op.softmax(x, -1)

    def sigmoid(self, x: Any) -> Any:
        return _op.sigmoid(x)

    def grid_sample(self, x: Any, grid: Any) -> Any:
        return _op.grid_sample(x, grid, _GRID_SAMPLE)

    def sum(self, x: Any, axis: int) -> Any:
        return _op.reduce_sum(x, self.integers(axis), False)
