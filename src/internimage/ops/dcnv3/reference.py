"""Eq. (2) in plain PyTorch: any device, any floating dtype, and the form that exports.

Shape legend: N batch, H W map, Ho Wo output map, G groups, D channels per group, K sampling points, P = Ho*Wo,
B = N*G. Inside, points come before positions (B, K, P): sums over K then run along contiguous memory.
Sizes stay symbolic (``arange`` and plain numbers), so ``torch.export`` and ONNX keep height and width dynamic.
"""

# The table of decompositions is typed in part only.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.nn import functional as F

from internimage.ops.dcnv3.geometry import DCNv3Geometry

Normalize = Literal["softmax", "sigmoid", "none"]

# grid_sample's coordinate of a point that must contribute nothing: well outside [-1, 1] on maps of any size.
OUTSIDE = -4.0


def dcnv3_reference(
    value_NHWGD: Tensor, offset_NHWGK2: Tensor, mask_NHWGK: Tensor, geometry: DCNv3Geometry, normalize: Normalize
) -> Tensor:
    """Aggregate ``value`` at the sampling points: shape (N, Ho, Wo, G, D), dtype of ``value``.

    Differentiable by autograd. Coordinates, weights and sums are float32 at least. A point that lies a pixel or more
    outside the map, or whose position is not finite, contributes nothing and receives no gradient.

    Source: Eq. (2), arXiv:2211.05778.
    """
    value, offset, mask = (at_least_float32(tensor) for tensor in (value_NHWGD, offset_NHWGK2, mask_NHWGK))
    grid, _ = sampling_grid(offset, value.shape[1], value.shape[2], geometry)
    sampled_BDKP = sample_bilinear(_fold_groups(value), grid)
    weights_B1KP = _fold_points(normalize_mask(mask, normalize)).unsqueeze(1)
    return _unfold_groups((sampled_BDKP * weights_B1KP).sum(2), offset).to(value_NHWGD.dtype)


def dcnv3_reference_backward(
    grad_NHWGD: Tensor,
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `dcnv3_reference` for value, offset and mask: their dtypes, contiguous; only the inputs are kept."""
    value, offset, mask = (at_least_float32(tensor) for tensor in (value_NHWGD, offset_NHWGK2, mask_NHWGK))
    height, width = value.shape[1], value.shape[2]
    grid, inside = sampling_grid(offset, height, width, geometry)
    value_BDHW = _fold_groups(value)
    weights_NHWGK = normalize_mask(mask, normalize)
    grad_BD1P = _fold_groups(grad_NHWGD.to(value.dtype)).flatten(2).unsqueeze(2)

    grad_weights_BKP = (grad_BD1P * sample_bilinear(value_BDHW, grid)).sum(1)
    grad_mask = _normalize_backward(_unfold_points(grad_weights_BKP, mask), weights_NHWGK, normalize)

    grad_sampled = grad_BD1P * _fold_points(weights_NHWGK).unsqueeze(1)
    grad_value_BDHW, grad_grid_BKP2 = cast(
        tuple[Tensor, Tensor],
        torch.ops.aten.grid_sampler_2d_backward(grad_sampled, value_BDHW, grid, 0, 0, False, [True, True]),
    )
    # grid = (2*position + 1)/size - 1, and position = ... + offset_scale*offset.
    grad_x = _unfold_points(grad_grid_BKP2[..., 0], mask) * (2.0 * geometry.offset_scale / width)
    grad_y = _unfold_points(grad_grid_BKP2[..., 1], mask) * (2.0 * geometry.offset_scale / height)
    grad_offset = torch.where(inside, torch.stack((grad_x, grad_y), dim=-1), 0.0)
    # Fake tensors promise contiguous gradients, and compiled code relies on that.
    return (
        _unfold_groups(grad_value_BDHW.flatten(2), value).to(value_NHWGD.dtype),
        grad_offset.contiguous().to(offset_NHWGK2.dtype),
        grad_mask.contiguous().to(mask_NHWGK.dtype),
    )


def normalize_mask(mask_NHWGK: Tensor, normalize: Normalize) -> Tensor:
    """The modulation scalars: softmax over the K points (DCNv3), sigmoid (DCNv2), or the mask as given (DCNv4)."""
    if normalize == "softmax":
        return mask_NHWGK.softmax(dim=-1)
    return mask_NHWGK.sigmoid() if normalize == "sigmoid" else mask_NHWGK


def sampling_positions_xy(offset_NHWGK2: Tensor, geometry: DCNv3Geometry) -> Tensor:
    """Where the points lie: (N, Ho, Wo, G, K, 2) as (x, y) in pixels of the unpadded map.

    >>> geometry = DCNv3Geometry.make(kernel_size=3, padding=1)
    >>> sampling_positions_xy(torch.zeros(1, 2, 2, 1, 9, 2), geometry)[0, 0, 0, 0, :4].tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]]
    """
    scale, (center_h, center_w) = geometry.offset_scale, geometry.center
    dtype, device = offset_NHWGK2.dtype, offset_NHWGK2.device
    dx = [scale * (geometry.dilation[1] * ix - center_w) for _, ix in geometry.points_yx]
    dy = [scale * (geometry.dilation[0] * iy - center_h) for iy, _ in geometry.points_yx]
    dx_K, dy_K = torch.tensor(dx, dtype=dtype, device=device), torch.tensor(dy, dtype=dtype, device=device)
    x_WK = _window_centers(offset_NHWGK2, 2, geometry, 1).unsqueeze(-1) + dx_K
    y_HK = _window_centers(offset_NHWGK2, 1, geometry, 0).unsqueeze(-1) + dy_K
    rows, columns = offset_NHWGK2.shape[1], offset_NHWGK2.shape[2]
    base_HWK2 = torch.stack((x_WK.expand(rows, -1, -1), y_HK.unsqueeze(1).expand(-1, columns, -1)), dim=-1)
    return base_HWK2.unsqueeze(2) + scale * offset_NHWGK2


def sampling_grid(offset_NHWGK2: Tensor, height: int, width: int, geometry: DCNv3Geometry) -> tuple[Tensor, Tensor]:
    """The positions as ``grid_sample`` wants them, (B, K, P, 2), and which are inside, (N, Ho, Wo, G, K, 1)."""
    position = sampling_positions_xy(offset_NHWGK2, geometry)
    x, y = position[..., 0], position[..., 1]
    # Written so that NaN is outside: every comparison with it is false.
    inside = ((x > -1) & (x < width) & (y > -1) & (y < height)).unsqueeze(-1)
    unit = torch.stack(((2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0), dim=-1)
    grid_NHWGK2 = torch.where(inside, unit, OUTSIDE)
    batch, out_h, out_w, groups, points, _ = offset_NHWGK2.shape
    grid_BKP2 = grid_NHWGK2.permute(0, 3, 4, 1, 2, 5).reshape(batch * groups, points, out_h * out_w, 2)
    return grid_BKP2, inside


def _window_centers(offset_NHWGK2: Tensor, dim: int, geometry: DCNv3Geometry, axis: int) -> Tensor:
    steps = torch.arange(offset_NHWGK2.shape[dim], dtype=offset_NHWGK2.dtype, device=offset_NHWGK2.device)
    return steps * geometry.stride[axis] + float(geometry.center[axis] - geometry.padding[axis])


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor, or a float32 copy of one in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def sample_bilinear(value_BDHW: Tensor, grid_BKP2: Tensor) -> Tensor:
    """``grid_sample`` with zeros around the map, (B, D, K, P), also under forward-mode autograd."""
    try:
        return F.grid_sample(value_BDHW, grid_BKP2, mode="bilinear", padding_mode="zeros", align_corners=False)
    except NotImplementedError:
        # Before PyTorch 2.15 it has no forward-mode derivative, but PyTorch's own decomposition has one.
        sampler = torch.ops.aten.grid_sampler_2d.default
        return cast(Tensor, get_decompositions([sampler])[sampler](value_BDHW, grid_BKP2, 0, 0, False))


def _fold_groups(value_NHWGD: Tensor) -> Tensor:
    """(N, H, W, G, D) to (N*G, D, H, W)."""
    batch, height, width, groups, depth = value_NHWGD.shape
    return value_NHWGD.permute(0, 3, 4, 1, 2).reshape(batch * groups, depth, height, width)


def _unfold_groups(value_BDP: Tensor, like: Tensor) -> Tensor:
    """(N*G, D, P) to (N, H, W, G, D), with N, H, W and G of ``like``."""
    batch, height, width, groups = like.shape[:4]
    return value_BDP.reshape(batch, groups, value_BDP.shape[1], height, width).permute(0, 3, 4, 1, 2).contiguous()


def _fold_points(mask_NHWGK: Tensor) -> Tensor:
    """(N, Ho, Wo, G, K) to (B, K, P)."""
    batch, out_h, out_w, groups, points = mask_NHWGK.shape
    return mask_NHWGK.permute(0, 3, 4, 1, 2).reshape(batch * groups, points, out_h * out_w)


def _unfold_points(mask_BKP: Tensor, like: Tensor) -> Tensor:
    """(B, K, P) to (N, Ho, Wo, G, K), with the sizes of ``like``."""
    batch, out_h, out_w, groups, points = like.shape
    return mask_BKP.reshape(batch, groups, points, out_h, out_w).permute(0, 3, 4, 1, 2)


def _normalize_backward(grad_NHWGK: Tensor, weights_NHWGK: Tensor, normalize: Normalize) -> Tensor:
    if normalize == "softmax":
        weighted = grad_NHWGK * weights_NHWGK
        return weighted - weights_NHWGK * weighted.sum(-1, keepdim=True)
    return grad_NHWGK * weights_NHWGK * (1 - weights_NHWGK) if normalize == "sigmoid" else grad_NHWGK
