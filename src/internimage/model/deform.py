"""The DCNv3 layer: projections around the operator, and the separable branch that says where to look.

Shape legend: N batch, H W map, Ho Wo output map, C channels, G groups, D = C/G, K sampling points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.model.config import Activation
from internimage.model.fused import depthwise, linear
from internimage.model.layers import build_activation, layer_norm
from internimage.ops.dcnv3 import DCNv3Geometry, Normalize
from internimage.ops.dcnv3.geometry import as_pair
from internimage.ops.dcnv3.op import apply
from internimage.ops.dcnv3.reference import at_least_float32, normalize_mask, sampling_positions_xy
from internimage.ops.dispatch import autocast_dtype


class DCNv3(nn.Module):
    """Deformable convolution v3: (N, H, W, C) to (N, Ho, Wo, C), channels-last.

    A depth-wise convolution, normalisation and activation read the input at every output position; two linear layers
    turn that into sampling offsets and modulation logits; the operator gathers the projected input there.

    Source: section 3.1 and Eq. (2), arXiv:2211.05778; ``center_feature_scale`` is the released code's (H and G).

    Args:
        channels: C, divisible by ``groups``.
        kernel_size, stride, dilation: an integer or a (height, width) pair, as for a convolution.
        dw_kernel_size: kernel of the depth-wise convolution; None means ``kernel_size``.
        padding: None keeps the map's size at stride 1 (for odd kernels).
        groups: G, each with its own offsets and modulations.
        offset_scale: factor on the kernel grid and the offsets.
        center_feature_scale: blend the result with the projected input through one sigmoid gate per group.
        remove_center: sample without the middle point (odd kernels).
        normalize: modulation by ``"softmax"`` (DCNv3), ``"sigmoid"`` (DCNv2) or ``"none"`` (DCNv4).
        shared_weights: one projection for all sampling points. False gives each point a matrix w_k of its own, as
            DCNv2's Eq. (1): K times the parameters of ``output_proj``, and K maps kept where one was.
        output_bias: whether ``output_proj`` has a bias.
        activation: of the depth-wise branch.

    Raises:
        ValueError: settings that do not fit, in one sentence.

    >>> import torch
    >>> DCNv3(32, groups=4, stride=2)(torch.zeros(1, 9, 7, 32)).shape
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
        center_feature_scale: bool = False,
        remove_center: bool = False,
        normalize: Normalize = "softmax",
        shared_weights: bool = True,
        output_bias: bool = True,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        check_settings(channels, groups, normalize)
        geometry = window(kernel_size, stride, padding, dilation, offset_scale, remove_center)
        self.channels, self.groups, self.geometry = channels, groups, geometry
        self.normalize: Normalize = normalize
        points = groups * geometry.num_points
        dw_kernel = geometry.kernel_size if dw_kernel_size is None else dw_kernel_size
        self.dw_conv, self.pads_query = depthwise_over(geometry, channels, dw_kernel)
        self.dw_norm = layer_norm(channels)
        self.act = build_activation(activation)
        self.offset = nn.Linear(channels, 2 * points)
        self.mask = nn.Linear(channels, points)
        self.input_proj = nn.Linear(channels, channels)
        self.shared_weights = shared_weights
        if not shared_weights:
            self._check_points_alone()
        self.output_proj = nn.Linear(channels * (1 if shared_weights else geometry.num_points), channels, output_bias)
        self.center_scale = nn.Linear(channels, groups) if center_feature_scale else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a plain average over the regular grid: zero offsets, equal modulations, Xavier projections.

        With ``normalize="sigmoid"`` the K modulations start at 1/2 each, as DCNv2's.
        """
        for layer in (self.offset, self.mask, self.center_scale):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.normalize == "none":
            # Modulations of zero would let nothing through and give the projections no gradient.
            nn.init.constant_(self.mask.bias, 1 / self.geometry.num_points)
        # The bound of Xavier's uniform start for a matrix of C x C, which every point's own one is as well. Written
        # on whole parameters: transformers guards those that it has loaded, and not their parts.
        bound = (3 / self.channels) ** 0.5
        for layer in (self.input_proj, self.output_proj):
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # Linear(bias=False)
                nn.init.zeros_(layer.bias)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """(N, H, W, C) to (N, Ho, Wo, C); ``ValueError`` for another shape or a map smaller than the window."""
        check_input(x_NHWC, self.channels, self.geometry)
        x_NHWC = rounded_once(x_NHWC)
        query_NHWC = self._query(x_NHWC)
        value_NHWGD = linear(x_NHWC, self.input_proj).view(*x_NHWC.shape[:3], self.groups, self.channels // self.groups)
        offset_NHWGK2, mask_NHWGK = self._looks(query_NHWC)
        gate_NHWG1 = None if self.center_scale is None else self.center_scale(query_NHWC).sigmoid().unsqueeze(-1)
        if self.shared_weights:
            out_NHWGD = apply(value_NHWGD, offset_NHWGK2, mask_NHWGK, self.geometry, self.normalize)
            if gate_NHWG1 is not None:
                out_NHWGD = out_NHWGD * (1 - gate_NHWG1) + at_centers(value_NHWGD, self.geometry) * gate_NHWG1
            return linear(out_NHWGD.flatten(-2), self.output_proj)
        points = self._points(value_NHWGD, offset_NHWGK2, mask_NHWGK)
        if gate_NHWG1 is not None:
            center_NHWGD = at_centers(value_NHWGD, self.geometry) * (gate_NHWG1 / self.geometry.num_points)
            points = [out_NHWGD * (1 - gate_NHWG1) + center_NHWGD for out_NHWGD in points]
        return linear(torch.cat([out_NHWGD.flatten(-2) for out_NHWGD in points], dim=-1), self.output_proj)

    def sampling(self, x_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Where `forward` looks for this input, and how much each point counts.

        Returns:
            The points' positions (x, y) in pixels of the input, (N, Ho, Wo, G, K, 2), and their modulations after
            normalisation, (N, Ho, Wo, G, K); both in float32 at least.

        Raises:
            ValueError: as `forward`.

        >>> import torch
        >>> positions_xy, modulations = DCNv3(8, groups=2).sampling(torch.zeros(1, 5, 5, 8))
        >>> positions_xy[0, 2, 2, 0, :4].tolist(), round(modulations[0, 2, 2, 0, 0].item(), 3)
        ([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [2.0, 1.0]], 0.111)
        """
        check_input(x_NHWC, self.channels, self.geometry)
        return positions_and_modulations(*self._looks(self._query(x_NHWC)), self.geometry, self.normalize)

    def _looks(self, query_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling offsets (N, Ho, Wo, G, K, 2) and modulation logits (N, Ho, Wo, G, K)."""
        points, positions = self.geometry.num_points, query_NHWC.shape[:3]
        offset_NHWGK2 = linear(query_NHWC, self.offset).view(*positions, self.groups, points, 2)
        return offset_NHWGK2, linear(query_NHWC, self.mask).view(*positions, self.groups, points)

    def _points(self, value_NHWGD: Tensor, offset_NHWGK2: Tensor, mask_NHWGK: Tensor) -> Iterator[Tensor]:
        """Every sampling point's own modulated samples, K times (N, Ho, Wo, G, D): the operator with a 1x1 kernel."""
        g = self.geometry
        center_y, center_x = g.center
        alone = DCNv3Geometry.make(1, g.stride, [g.padding[axis] - g.center[axis] for axis in (0, 1)])
        weight_NHWGK = normalize_mask(at_least_float32(mask_NHWGK), self.normalize).to(mask_NHWGK.dtype)
        for k, (iy, ix) in enumerate(g.points_yx):
            grid_xy = offset_NHWGK2.new_tensor([g.dilation[1] * ix - center_x, g.dilation[0] * iy - center_y])
            offset_NHWG12 = g.offset_scale * (offset_NHWGK2[..., k : k + 1, :] + grid_xy)
            yield apply(value_NHWGD, offset_NHWG12, weight_NHWGK[..., k : k + 1], alone, "none")

    def _check_points_alone(self) -> None:
        g = self.geometry
        if has_odd_reach(g) or any(g.padding[axis] < g.center[axis] for axis in (0, 1)):
            raise ValueError(
                "shared_weights=False needs windows with a middle and padding of at least their reach, "
                f"{g.center}; got {g}"
            )

    def _query(self, x_NHWC: Tensor) -> Tensor:
        """Features at the middle of every window, (N, Ho, Wo, C): what offsets and modulations are read from."""
        if self.pads_query:
            x_NHWC = padded_around_centers(x_NHWC, self.geometry, self.dw_conv.kernel_size)
        return depthwise(x_NHWC, self.dw_conv, self.dw_norm, self.act)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        own = "" if self.shared_weights else "shared_weights=False, "
        return f"{self.channels}, groups={self.groups}, normalize={self.normalize!r}, {own}{self.geometry}"


# What this layer and DCNv4 (`deform_v4.py`) share.


def check_settings(channels: int, groups: int, normalize: str) -> None:
    """Raise ``ValueError`` for groups that do not divide the channels, and for an unknown form of modulation."""
    if channels < 1 or groups < 1 or channels % groups:
        raise ValueError(f"groups must divide channels, got {groups} groups and {channels} channels")
    if normalize not in get_args(Normalize):
        raise ValueError(f"normalize must be one of {', '.join(get_args(Normalize))}, got {normalize!r}")


def window(
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int] | None,
    dilation: int | Sequence[int],
    offset_scale: float,
    remove_center: bool,
) -> DCNv3Geometry:
    """The geometry of a layer; without ``padding`` the one that keeps the map's size at stride 1."""
    geometry = DCNv3Geometry.make(kernel_size, stride, 0, dilation, offset_scale, remove_center)
    same = geometry.center if padding is None else padding
    return DCNv3Geometry.make(kernel_size, stride, same, dilation, offset_scale, remove_center)


def depthwise_over(g: DCNv3Geometry, channels: int, kernel_size: int | Sequence[int]) -> tuple[nn.Conv2d, bool]:
    """A depth-wise convolution whose windows have their middles where those of ``g`` have them.

    Returns:
        The convolution, and whether its input needs `padded_around_centers` first.

    Raises:
        ValueError: a kernel without pixels.
    """
    kernel = as_pair("dw_kernel_size", kernel_size)
    if min(kernel) < 1:
        raise ValueError(f"dw_kernel_size must be at least 1 in both directions, got {kernel}")
    # A window's middle is a convolution's with the same zeros on both sides, but for even or far smaller kernels.
    before = [_pad_before(g, axis, kernel[axis]) for axis in (0, 1)]
    pads = min(before) < 0 or any(size % 2 == 0 for size in kernel) or has_odd_reach(g)
    padding = (0, 0) if pads else (before[0], before[1])
    return nn.Conv2d(channels, channels, kernel, g.stride, padding, groups=channels), pads


def has_odd_reach(g: DCNv3Geometry) -> bool:
    """A window of even reach has a middle pixel; one of odd reach shrinks the map by one more pixel than it pads."""
    return any(g.dilation[axis] * (g.kernel_size[axis] - 1) % 2 for axis in (0, 1))


def check_input(x_NHWC: Tensor, channels: int, g: DCNv3Geometry) -> None:
    """Raise ``ValueError`` for another shape than (N, H, W, C), or a map smaller than the window."""
    if x_NHWC.dim() != 4 or x_NHWC.shape[-1] != channels:
        raise ValueError(
            f"the input must be channels-last, (N, H, W, {channels}), got {tuple(x_NHWC.shape)}; "
            "an NCHW map becomes one by x.permute(0, 2, 3, 1)"
        )
    if min(g.output_size(x_NHWC.shape[1], x_NHWC.shape[2])) < 1:
        raise ValueError(f"a map of {x_NHWC.shape[1]} x {x_NHWC.shape[2]} gives no output for {g}")


def rounded_once(x_NHWC: Tensor) -> Tensor:
    """On a GPU, in autocast's dtype: a normalisation leaves float32, and each layer would round a copy of its own."""
    dtype = autocast_dtype(x_NHWC)
    return x_NHWC.to(dtype) if x_NHWC.is_cuda and dtype is not None else x_NHWC


def positions_and_modulations(
    offset_NHWGK2: Tensor, mask_NHWGK: Tensor, g: DCNv3Geometry, normalize: Normalize
) -> tuple[Tensor, Tensor]:
    """Where a layer with these offsets looks, (x, y) in pixels, and what each point counts; float32 at least."""
    positions_xy = sampling_positions_xy(at_least_float32(offset_NHWGK2), g)
    return positions_xy, normalize_mask(at_least_float32(mask_NHWGK), normalize)


def at_centers(x: Tensor, g: DCNv3Geometry) -> Tensor:
    """(N, H, W, ...) at the middle of every window, (N, Ho, Wo, ...); zero where that is in the padding."""
    if g.stride == (1, 1) and g.padding == g.center and not has_odd_reach(g):
        return x
    return padded_around_centers(x, g, (1, 1))[:, :: g.stride[0], :: g.stride[1]]


def padded_around_centers(x: Tensor, g: DCNv3Geometry, kernel_size: tuple[int, ...]) -> Tensor:
    """(N, H, W, ...) with zeros, or cropped, so that windows of this size have their middles where ``g`` has them."""
    pads = (*_pads(g, x.shape[2], 1, kernel_size[1]), *_pads(g, x.shape[1], 0, kernel_size[0]))
    return F.pad(x, (*(0, 0) * (x.dim() - 3), *pads))


def _pads(g: DCNv3Geometry, size: int, axis: int, kernel: int) -> tuple[int, int]:
    """Zeros before and after one axis so that a window of ``kernel`` pixels sits in the middle of each of ours.

    Negative values crop.
    """
    out = g.output_size(size, size)[axis]
    before = _pad_before(g, axis, kernel)
    return before, g.stride[axis] * (out - 1) + kernel - size - before


def _pad_before(g: DCNv3Geometry, axis: int, kernel: int) -> int:
    return g.padding[axis] - g.center[axis] + (kernel - 1) // 2
