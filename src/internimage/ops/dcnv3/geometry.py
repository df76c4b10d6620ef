"""Where DCNv3 looks before any offset is added: kernel, stride, padding, dilation, and the sizes that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DCNv3Geometry:
    """The fixed part of a DCNv3 layer's sampling pattern.

    Pairs are (height, width). Along one axis, in pixels of the unpadded map, the sampling point of kernel index i
    and output index o lies at ``stride*o - padding + c + offset_scale*(dilation*i - c + offset)``,
    with ``c = (dilation*(kernel - 1)) // 2``.

    Source: Eq. (2), arXiv:2211.05778; the factor ``offset_scale`` on the whole displacement is the released code's.

    Args:
        kernel_size: sampling points per axis, at least 1 each.
        stride: pixels between neighbouring outputs, at least 1 each.
        padding: zeros around the map that count as inside for the output size, at least 0 each.
        dilation: pixels between neighbouring sampling points, at least 1 each.
        offset_scale: factor on grid and offsets; finite.
        remove_center: leave out the middle sampling point; needs odd kernel sizes and more than one point.

    Raises:
        ValueError: a value is outside its range.

    >>> DCNv3Geometry((3, 3), (1, 1), (1, 1), (1, 1)).num_points
    9
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    offset_scale: float = 1.0
    remove_center: bool = False

    def __post_init__(self) -> None:
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            values: tuple[int, int] = getattr(self, name)
            if min(values) < least:
                raise ValueError(f"{name} must be at least {least} in both directions, got {values}")
        # A comparison, unlike math.isfinite, can be traced by torch.compile; it is false for NaN as well.
        if not abs(self.offset_scale) < float("inf"):
            raise ValueError(f"offset_scale must be finite, got {self.offset_scale}")
        if self.remove_center:
            if self.kernel_size[0] % 2 == 0 or self.kernel_size[1] % 2 == 0:
                raise ValueError(f"remove_center needs odd kernel sizes, which have a middle; got {self.kernel_size}")
            if self.kernel_size == (1, 1):
                raise ValueError("remove_center with kernel_size 1 leaves no sampling point; use a larger kernel")

    @classmethod
    def make(
        cls,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        offset_scale: float = 1.0,
        remove_center: bool = False,
    ) -> DCNv3Geometry:
        """Build from numbers or (height, width) pairs, as ``torch.nn.Conv2d`` takes them."""
        return cls(
            kernel_size=as_pair("kernel_size", kernel_size),
            stride=as_pair("stride", stride),
            padding=as_pair("padding", padding),
            dilation=as_pair("dilation", dilation),
            offset_scale=float(offset_scale),
            remove_center=bool(remove_center),
        )

    @property
    def arguments(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], float, bool]:
        """What the registered operators take, in their order."""
        return self.kernel_size, self.stride, self.padding, self.dilation, self.offset_scale, self.remove_center

    @property
    def center(self) -> tuple[int, int]:
        """``c`` of both axes: from a window's first pixel to its middle, in pixels."""
        (kernel_h, kernel_w), (dilation_h, dilation_w) = self.kernel_size, self.dilation
        return (dilation_h * (kernel_h - 1)) // 2, (dilation_w * (kernel_w - 1)) // 2

    @property
    def points_yx(self) -> tuple[tuple[int, int], ...]:
        """Kernel indices (iy, ix) of the K sampling points in memory order: x-major, ``remove_center`` applied.

        >>> DCNv3Geometry.make(kernel_size=(1, 2)).points_yx
        ((0, 0), (0, 1))
        >>> DCNv3Geometry.make(kernel_size=(2, 1)).points_yx
        ((0, 0), (1, 0))
        """
        kernel_h, kernel_w = self.kernel_size
        middle = (kernel_h // 2, kernel_w // 2) if self.remove_center else None
        points = [(iy, ix) for ix in range(kernel_w) for iy in range(kernel_h)]
        return tuple(point for point in points if point != middle)

    @property
    def num_points(self) -> int:
        """K, the number of sampling points per group."""
        return self.kernel_size[0] * self.kernel_size[1] - int(self.remove_center)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output map, as a convolution's.

        >>> DCNv3Geometry.make(stride=2).output_size(56, 57)
        (28, 29)
        """
        return self._output_length(height, 0), self._output_length(width, 1)

    def _output_length(self, size: int, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        return (size + 2 * self.padding[axis] - reach - 1) // self.stride[axis] + 1


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """A number or a pair as a (height, width) pair of integers; ``ValueError`` for anything else."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    # A boolean is an int in Python, but kernel_size=True is always a mistake. NumPy's integers have no other name.
    if len(values) != 2 or any(isinstance(item, bool) or not hasattr(item, "__index__") for item in values):
        raise ValueError(f"{name} must be an integer or a (height, width) pair of integers, got {value!r}")
    return int(values[0]), int(values[1])
