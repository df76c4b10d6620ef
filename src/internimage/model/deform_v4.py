"""The DCNv4 layer: one linear layer says where to look and what each look counts, and nothing normalises that.

Shape legend: N batch, H W map, Ho Wo output map, C channels, G groups, D = C/G, K sampling points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from internimage.model.deform import (
    at_centers,
    check_input,
    check_settings,
    depthwise_over,
    padded_around_centers,
    positions_and_modulations,
    rounded_once,
    window,
)
from internimage.model.fused import linear
from internimage.ops.dcnv3 import Normalize
from internimage.ops.dcnv3.op import apply


def offset_mask_width(groups: int, points: int) -> int:
    """Two offsets and a modulation for each point, rounded up to a multiple of 8: as released, so products are aligned.

    >>> offset_mask_width(4, 9)
    112
    """
    return -(-3 * groups * points // 8) * 8


class DCNv4(nn.Module):
    """Deformable convolution v4: (N, H, W, C) to (N, Ho, Wo, C), channels-last.

    Beside `DCNv3` three things are gone. Offsets and modulations come out of one linear layer on the input itself, at
    the middle of every window; there is no softmax, so that a modulation can be any number, as a convolution's weight;
    and the depth-wise branch is left out, or is a plain convolution. The aggregation is the same operator.

    Source: section 3, arXiv:2401.06197, and DCNv4_op of the released code, 4b848f7. There, the linear layer starts at
    zero: every modulation is 0, so that a fresh layer gives its bias whatever it sees, and the first step teaches the
    modulations and that bias alone. Here it starts as DCNv3 does, as an average over the regular grid (modulations of
    1/K, which are biases); ``zero_start`` gives the released start.

    Args:
        channels: C, divisible by ``groups``; of any width per group (the released kernel wants multiples of 16).
        kernel_size, stride, dilation: an integer or a (height, width) pair, as for a convolution.
        dw_kernel_size: kernel of a depth-wise convolution before the linear layer; None for none.
        padding: None keeps the map's size at stride 1 (for odd kernels).
        groups: G, each with its own offsets and modulations.
        offset_scale: factor on the kernel grid and the offsets.
        remove_center: sample without the middle point (odd kernels).
        normalize: modulation as it is, ``"none"`` (DCNv4), or by ``"softmax"`` or ``"sigmoid"``.
        output_bias: whether ``output_proj`` has a bias.
        zero_start: start from modulations of 0, as the released code.

    Raises:
        ValueError: settings that do not fit, in one sentence.

    >>> import torch
    >>> DCNv4(32, groups=4, stride=2)(torch.zeros(1, 9, 7, 32)).shape
    torch.Size([1, 5, 4, 32])
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        dw_kernel_size: int | Sequence[int] | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | None = None,
        dilation: int | Sequence[int] = 1,
        groups: int = 4,
        offset_scale: float = 1.0,
        remove_center: bool = False,
        normalize: Normalize = "none",
        output_bias: bool = True,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        check_settings(channels, groups, normalize)
        geometry = window(kernel_size, stride, padding, dilation, offset_scale, remove_center)
        self.channels, self.groups, self.geometry = channels, groups, geometry
        self.normalize: Normalize = normalize
        self.zero_start = zero_start
        self.offset_mask_dw, self.pads_query = None, False
        if dw_kernel_size is not None:
            self.offset_mask_dw, self.pads_query = depthwise_over(geometry, channels, dw_kernel_size)
        self.offset_mask = nn.Linear(channels, offset_mask_width(groups, geometry.num_points))
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels, output_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets and equal modulations, which are zero as well with ``zero_start``; Xavier projections."""
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.bias)
        if self.normalize == "none" and not self.zero_start:
            with torch.no_grad():
                self._split(self.offset_mask.bias)[1].fill_(1 / self.geometry.num_points)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # Linear(bias=False)
                nn.init.zeros_(layer.bias)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """(N, H, W, C) to (N, Ho, Wo, C); ``ValueError`` for another shape or a map smaller than the window."""
        check_input(x_NHWC, self.channels, self.geometry)
        x_NHWC = rounded_once(x_NHWC)
        offset_NHWGK2, mask_NHWGK = self._looks(x_NHWC)
        value_NHWGD = linear(x_NHWC, self.value_proj).view(*x_NHWC.shape[:3], self.groups, self.channels // self.groups)
        out_NHWGD = apply(value_NHWGD, offset_NHWGK2, mask_NHWGK, self.geometry, self.normalize)
        return linear(out_NHWGD.flatten(-2), self.output_proj)

    def sampling(self, x_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Where `forward` looks for this input, and how much each point counts; as `DCNv3.sampling`.

        Returns:
            The points' positions (x, y) in pixels of the input, (N, Ho, Wo, G, K, 2), and their modulations,
            (N, Ho, Wo, G, K), which can be negative and have no sum of their own; both in float32 at least.

        Raises:
            ValueError: as `forward`.
        """
        check_input(x_NHWC, self.channels, self.geometry)
        return positions_and_modulations(*self._looks(x_NHWC), self.geometry, self.normalize)

    def _looks(self, x_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling offsets (N, Ho, Wo, G, K, 2) and modulations (N, Ho, Wo, G, K)."""
        if self.offset_mask_dw is None:
            query_NHWC = at_centers(x_NHWC, self.geometry)
        else:
            if self.pads_query:
                x_NHWC = padded_around_centers(x_NHWC, self.geometry, self.offset_mask_dw.kernel_size)
            query_NHWC = self.offset_mask_dw(x_NHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self._split(linear(query_NHWC, self.offset_mask))

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Views of (..., R) as offsets (..., G, K, 2) and modulations (..., G, K): per group 2K and K; then padding."""
        points = self.geometry.num_points
        rows_G3K: Tensor = torch.unflatten(rows[..., : 3 * self.groups * points], -1, (self.groups, 3 * points))
        offset_GK2: Tensor = torch.unflatten(rows_G3K[..., : 2 * points], -1, (points, 2))
        return offset_GK2, rows_G3K[..., 2 * points :]

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{self.channels}, groups={self.groups}, normalize={self.normalize!r}, {self.geometry}"
