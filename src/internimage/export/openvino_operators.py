"""OpenVINO's operators for `operator.build_dcnv3`; its reader of PyTorch programs calls what `converter` makes."""

# OpenVINO's operators have no types that help.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from openvino import opset15

from internimage.export.operator import build_dcnv3
from internimage.ops.dcnv3 import DCNv3Geometry

_op: Any = opset15


def converter(sizes: Iterable[tuple[int, int]]) -> Callable[[Any], list[Any]]:
    """For ``internimage::dcnv3``, given G and D of each call in order: the reader itself knows no sizes."""
    remaining = iter(sizes)

    def convert(context: Any) -> list[Any]:
        value, offset, mask = (context.get_input(place) for place in range(3))
        # The settings are constant inputs after the three tensors, a string is a constant of its bytes.
        *pairs, scale, remove_center, normalize = (context.get_input(place).get_node().data for place in range(3, 10))
        geometry = DCNv3Geometry.make(
            *([int(number) for number in pair] for pair in pairs),
            offset_scale=float(scale),
            remove_center=bool(remove_center),
        )
        rule = bytes(normalize).decode()
        return build_dcnv3(OpenVinoOperators(), value, offset, mask, next(remaining), geometry, rule).outputs()

    return convert


class OpenVinoOperators:
    """See `operator.Operators`."""

    def reshape(self, x: Any, *sizes: int) -> Any:
        return _op.reshape(x, np.array(sizes, np.int64), True)

    def transpose(self, x: Any, *order: int) -> Any:
        return _op.transpose(x, np.array(order, np.int64))

    def pick(self, x: Any, channels: Sequence[int]) -> Any:
        return _op.gather(x, np.array(channels, np.int64), np.int64(1))

    def multiply(self, x: Any, factors: np.ndarray) -> Any:
        return _op.multiply(x, factors)

    def add(self, x: Any, terms: np.ndarray) -> Any:
        return _op.add(x, terms)

    def softmax(self, x: Any) -> Any:
        return _op.softmax(x, -1)

    def sigmoid(self, x: Any) -> Any:
        return _op.sigmoid(x)

    def deform_conv(self, x: Any, weight: np.ndarray, offset: Any, mask: Any, geometry: DCNv3Geometry) -> Any:
        padding = list(geometry.padding)
        return _op.deformable_convolution(
            x,
            offset,
            _op.constant(weight),
            list(geometry.stride),
            padding,
            padding,
            list(geometry.dilation),
            mask,
            bilinear_interpolation_pad=True,
        )
