"""The named cases of DCNv3: one row each, with the reason why it is there, and the tensors that belong to it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import torch

from internimage.ops.dcnv3 import DCNv3Geometry, sampling_positions_xy
from support.oracle import Pattern

BASE = Pattern((3, 3), (1, 1), (1, 1), (1, 1), 1.0, False, "softmax")


@dataclass(frozen=True)
class Case:
    name: str
    reason: str
    shape: tuple[int, int, int, int, int] = (2, 9, 8, 2, 4)  # N, H, W, G, D
    pattern: Pattern = BASE
    offsets: str = "mixed"
    permuted: bool = False

    @property
    def geometry(self) -> DCNv3Geometry:
        p = self.pattern
        return DCNv3Geometry(p.kernel, p.stride, p.padding, p.dilation, p.scale, p.remove_center)

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `internimage.dcnv3`."""
        p = self.pattern
        return {
            "kernel_size": p.kernel,
            "stride": p.stride,
            "padding": p.padding,
            "dilation": p.dilation,
            "offset_scale": p.scale,
            "remove_center": p.remove_center,
            "normalize": p.normalize,
        }

    @property
    def smaller(self) -> Case:
        """The same case on a map just large enough, for checks whose cost grows with the square of the size."""
        return replace(self, shape=(1, 4, 3, min(self.shape[3], 2), 2))

    def smooth(self, offset: torch.Tensor, grad_offset: torch.Tensor) -> torch.Tensor:
        """The gradient without points on whole pixels: interpolation has a kink there, and either slope is right.

        offset is what the operator got: 16 bits may round a point onto a pixel.
        """
        position = sampling_positions_xy(offset.double(), self.geometry)
        return torch.where((position - position.round()).abs() < 1e-5, 0.0, grad_offset)

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """value, offset and mask, the same ones in every process."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        n, h, w, g, d = self.shape
        out_h, out_w = self.geometry.output_size(h, w)
        k = self.geometry.num_points

        def normal(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64)

        value, mask = normal(n, h, w, g, d), normal(n, out_h, out_w, g, k)
        offset = 0.5 * normal(n, out_h, out_w, g, k, 2)
        # A few points go far: across the border, to the other side of the map, or off it.
        offset[torch.rand(offset.shape[:-1], generator=generator) < 0.04] *= 12
        offset = _away_from_integers(offset, self.geometry)
        if self.offsets == "integer":
            offset = offset.round()
        elif self.offsets == "far":
            # Far enough to be outside from anywhere; a tenth of the points, so that the rest still says something.
            far = torch.rand(offset.shape[:-1], generator=generator) < 0.1
            offset[far] = offset[far].sign() * 1e30
        elif self.offsets == "nan":
            draw = torch.rand(offset.shape, generator=generator)
            for bound, bad in ((0.02, float("nan")), (0.04, float("inf")), (0.06, float("-inf"))):
                offset = torch.where((draw < bound) & (draw >= bound - 0.02), bad, offset)
        tensors = tuple(tensor.to(dtype) for tensor in (value, offset, mask))
        if self.permuted:
            tensors = tuple(_shuffled_strides(tensor) for tensor in tensors)
        return tensors[0], tensors[1], tensors[2]


def _away_from_integers(offset: torch.Tensor, geometry: DCNv3Geometry) -> torch.Tensor:
    """Move every sampling point at least 1e-3 pixels off the lines where bilinear interpolation has a kink."""
    position = sampling_positions_xy(offset, geometry)
    gap = position - position.round()
    push = torch.where(gap.abs() < 2e-3, torch.where(gap < 0, -2e-3, 2e-3), 0.0)
    return offset + push / geometry.offset_scale


def _shuffled_strides(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in another memory order."""
    order = list(reversed(range(tensor.dim())))
    return tensor.permute(order).contiguous().permute(order)


CASES = (
    Case("odd_map_5x4", "height and width differ and neither is a multiple of anything", (2, 5, 4, 2, 3)),
    Case("kernel_3x2", "height and width of the kernel swapped would show", pattern=replace(BASE, kernel=(3, 2))),
    Case(
        "kernel_5",
        "more points than the usual nine",
        (1, 12, 11, 2, 4),
        pattern=replace(BASE, kernel=(5, 5), padding=(2, 2)),
    ),
    Case("kernel_1", "a single point", pattern=replace(BASE, kernel=(1, 1), padding=(0, 0), normalize="sigmoid")),
    Case("stride_2x1", "stride per axis", (2, 11, 8, 2, 4), replace(BASE, stride=(2, 1))),
    Case("padding_0x2", "padding per axis, one without", (2, 11, 8, 2, 4), replace(BASE, padding=(0, 2))),
    Case("dilation_2", "grid wider than the kernel", (2, 9, 10, 2, 4), replace(BASE, dilation=(2, 1), padding=(2, 1))),
    Case("one_group", "G = 1", (2, 8, 9, 1, 8)),
    Case("width_not_multiple_of_block", "D = 5 and G = 3 fit no vector width", (1, 9, 7, 3, 5)),
    Case("group_width_1", "depth-wise: every channel its own group", (1, 8, 9, 6, 1)),
    Case("batch_0", "nothing to do is not an error", (0, 6, 5, 2, 4)),
    Case("permuted_strides", "inputs that are not contiguous", permuted=True),
    Case("integer_offsets", "points exactly on pixels", offsets="integer"),
    Case("far_outside", "offsets of 1e30", offsets="far"),
    Case("nan_offsets", "offsets without a position", offsets="nan"),
    Case("remove_center", "eight points", pattern=replace(BASE, remove_center=True)),
    Case("offset_scale", "the factor acts on grid and offset", (2, 8, 9, 2, 4), replace(BASE, scale=0.7)),
    Case("sigmoid", "DCNv2's modulation", pattern=replace(BASE, normalize="sigmoid")),
    Case("plain_weights", "DCNv4's weights", pattern=replace(BASE, normalize="none")),
)
SMOOTH = tuple(case for case in CASES if case.offsets == "mixed" and case.shape[0])
NAMES = {"ids": lambda case: case.name}
