"""Eq. (2) in plain PyTorch: any device, any floating dtype, and the form that exports.

Shape legend: N batch, H W map, Ho Wo output map, G groups, D channels per group, K sampling points, P = Ho*Wo.
Sizes stay symbolic (``arange`` and plain numbers), so ``torch.export`` and ONNX keep height and width dynamic.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.dcnv3.geometry import DCNv3Geometry

Normalize = Literal["softmax", "sigmoid", "none"]

# grid_sample's coordinate of a point that must contribute nothing: well outside [-1, 1] on maps of any size.
_OUTSIDE = -4.0


def dcnv3_reference(
    value_NHWGD: Tensor, offset_NHWGK2: Tensor, mask_NHWGK: Tensor, geometry: DCNv3Geometry, normalize: Normalize
) -> Tensor:
    """Aggregate ``value`` at the sampling points: shape (N, Ho, Wo, G, D), dtype of ``value``.

    Differentiable by autograd. Coordinates, weights and sums are float32 at least. A point that lies a pixel or more
    outside the map, or whose position is not finite, contributes nothing and receives no gradient.

    Source: Eq. (2), arXiv:2211.05778.
    """
    value, offset, mask = (_at_least_float32(tensor) for tensor in (value_NHWGD, offset_NHWGK2, mask_NHWGK))
    grid, _ = sampling_grid(offset, value.shape[1], value.shape[2], geometry)
    sampled_BDPK = _sample(_fold_groups(value), grid)
    weights_B1PK = _fold_points(normalize_mask(mask, normalize)).unsqueeze(1)
    return _unfold_groups((sampled_BDPK * weights_B1PK).sum(-1), offset).to(value_NHWGD.dtype)


def dcnv3_reference_backward(
    grad_NHWGD: Tensor,
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `dcnv3_reference` for value, offset and mask, in their dtypes; nothing but the inputs is kept."""
    value, offset, mask = (_at_least_float32(tensor) for tensor in (value_NHWGD, offset_NHWGK2, mask_NHWGK))
    height, width = value.shape[1], value.shape[2]
    grid, inside = sampling_grid(offset, height, width, geometry)
    value_BDHW = _fold_groups(value)
    weights_NHWGK = normalize_mask(mask, normalize)
    grad_BDP1 = _fold_groups(grad_NHWGD.to(value.dtype)).flatten(2).unsqueeze(-1)

    grad_weights_BPK = (grad_BDP1 * _sample(value_BDHW, grid)).sum(1)
    grad_mask = _normalize_backward(_unfold_points(grad_weights_BPK, mask), weights_NHWGK, normalize)

    grad_sampled = grad_BDP1 * _fold_points(weights_NHWGK).unsqueeze(1)
    grad_value_BDHW, grad_grid_BPK2 = cast(
        tuple[Tensor, Tensor],
        torch.ops.aten.grid_sampler_2d_backward(grad_sampled, value_BDHW, grid, 0, 0, False, [True, True]),
    )
    # grid = (2*position + 1)/size - 1, and position = ... + offset_scale*offset.
    grad_x = grad_grid_BPK2[..., 0] * (2.0 * geometry.offset_scale / width)
    grad_y = grad_grid_BPK2[..., 1] * (2.0 * geometry.offset_scale / height)
    grad_offset = torch.stack((_unfold_points(grad_x, mask), _unfold_points(grad_y, mask)), dim=-1)
    return (
        _unfold_groups(grad_value_BDHW.flatten(2), value).to(value_NHWGD.dtype),
        torch.where(inside, grad_offset, 0.0).to(offset_NHWGK2.dtype),
        grad_mask.to(mask_NHWGK.dtype),
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
    points_K2 = [
        (scale * (geometry.dilation[1] * ix - center_w), scale * (geometry.dilation[0] * iy - center_h))
        for iy, ix in geometry.points_yx
    ]
    grid_K2 = torch.tensor(points_K2, dtype=offset_NHWGK2.dtype, device=offset_NHWGK2.device)
    rows_H11 = _window_centers(offset_NHWGK2, 1, geometry, 0).view(-1, 1, 1, 1)
    columns_W11 = _window_centers(offset_NHWGK2, 2, geometry, 1).view(-1, 1, 1)
    x = columns_W11 + (grid_K2[:, 0] + scale * offset_NHWGK2[..., 0])
    y = rows_H11 + (grid_K2[:, 1] + scale * offset_NHWGK2[..., 1])
    return torch.stack((x, y), dim=-1)


def sampling_grid(offset_NHWGK2: Tensor, height: int, width: int, geometry: DCNv3Geometry) -> tuple[Tensor, Tensor]:
    """The positions as ``grid_sample`` wants them, (N*G, P, K, 2), and which are inside, (N, Ho, Wo, G, K, 1)."""
    position = sampling_positions_xy(offset_NHWGK2, geometry)
    x, y = position[..., 0], position[..., 1]
    # Written so that NaN is outside: every comparison with it is false.
    inside = ((x > -1) & (x < width) & (y > -1) & (y < height)).unsqueeze(-1)
    unit = torch.stack(((2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0), dim=-1)
    grid_NHWGK2 = torch.where(inside, unit, _OUTSIDE)
    batch, out_h, out_w, groups, points, _ = offset_NHWGK2.shape
    grid_BPK2 = grid_NHWGK2.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, out_h * out_w, points, 2)
    return grid_BPK2, inside


def _window_centers(offset_NHWGK2: Tensor, dim: int, geometry: DCNv3Geometry, axis: int) -> Tensor:
    steps = torch.arange(offset_NHWGK2.shape[dim], dtype=offset_NHWGK2.dtype, device=offset_NHWGK2.device)
    return steps * geometry.stride[axis] + float(geometry.center[axis] - geometry.padding[axis])


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _sample(value_BDHW: Tensor, grid_BPK2: Tensor) -> Tensor:
    return F.grid_sample(value_BDHW, grid_BPK2, mode="bilinear", padding_mode="zeros", align_corners=False)


def _fold_groups(value_NHWGD: Tensor) -> Tensor:
    """(N, H, W, G, D) to (N*G, D, H, W)."""
    batch, height, width, groups, depth = value_NHWGD.shape
    return value_NHWGD.permute(0, 3, 4, 1, 2).reshape(batch * groups, depth, height, width)


def _unfold_groups(value_BDP: Tensor, like: Tensor) -> Tensor:
    """(N*G, D, P) to (N, H, W, G, D), with N, H, W and G of ``like``."""
    batch, height, width, groups = like.shape[:4]
    return value_BDP.reshape(batch, groups, value_BDP.shape[1], height, width).permute(0, 3, 4, 1, 2).contiguous()


def _fold_points(mask_NHWGK: Tensor) -> Tensor:
    """(N, Ho, Wo, G, K) to (N*G, P, K)."""
    batch, out_h, out_w, groups, points = mask_NHWGK.shape
    return mask_NHWGK.permute(0, 3, 1, 2, 4).reshape(batch * groups, out_h * out_w, points)


def _unfold_points(mask_BPK: Tensor, like: Tensor) -> Tensor:
    batch, out_h, out_w, groups, points = like.shape
    return mask_BPK.reshape(batch, groups, out_h, out_w, points).permute(0, 2, 3, 1, 4)


def _normalize_backward(grad_NHWGK: Tensor, weights_NHWGK: Tensor, normalize: Normalize) -> Tensor:
    if normalize == "softmax":
        weighted = grad_NHWGK * weights_NHWGK
        return weighted - weights_NHWGK * weighted.sum(-1, keepdim=True)
    return grad_NHWGK * weights_NHWGK * (1 - weights_NHWGK) if normalize == "sigmoid" else grad_NHWGK.contiguous()
