"""DCNv3's forward pass in Triton: one kernel, softmax or sigmoid fused; Eq. (2), arXiv:2211.05778.

Shape legend of comments: R rows (a group at an output position each) of a program, D channels of a group, K points.
"""

# Triton's language has no types.
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import triton
from triton import language as tl

from internimage.ops.dcnv3.triton_kernels.sampling import (
    SOFTMAX,
    find_corners,
    find_highest,
    find_rows,
    load_modulation,
    load_rows,
    locate_point,
)


@triton.jit
def add_point(
    sums,
    total,
    k,
    pointers,
    window,
    value,
    highest,
    wanted,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DEPTH: tl.constexpr,
    DEPTH_PADDED: tl.constexpr,
):
    """Add m_k * x(p0 + p_k + dp_k) to R sums, and m_k to their totals."""
    value_ptr, offset_ptr, mask_ptr = pointers
    modulation = load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
    x, y = locate_point(k, offset_ptr, window, wanted, KERNEL_H, CENTER)
    index, down, right, has_ul, has_ur, has_ll, has_lr = find_corners(x, y, wanted, value)
    pixel, below = value[2], index + value[1] * value[2]
    lower, upper = modulation * down, modulation * (1.0 - down)
    sums += (upper * (1.0 - right))[:, None] * load_rows(value_ptr, index, has_ul, DEPTH, DEPTH_PADDED)
    sums += (upper * right)[:, None] * load_rows(value_ptr, index + pixel, has_ur, DEPTH, DEPTH_PADDED)
    sums += (lower * (1.0 - right))[:, None] * load_rows(value_ptr, below, has_ll, DEPTH, DEPTH_PADDED)
    sums += (lower * right)[:, None] * load_rows(value_ptr, below + pixel, has_lr, DEPTH, DEPTH_PADDED)
    return sums, total + modulation


@triton.jit
def aggregate(
    pointers,
    window,
    value,
    wanted,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    POINTS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DEPTH: tl.constexpr,
    DEPTH_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """The result of R outputs, (R, D) in float32; pointers are to value, and to each row's offsets and mask."""
    sums = tl.zeros((ROWS, DEPTH_PADDED), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    highest = total
    if NORMALIZE == SOFTMAX:
        highest = find_highest(pointers[2], wanted, POINTS, UNROLL)
    if UNROLL:
        for k in tl.static_range(POINTS):
            sums, total = add_point(
                sums, total, k, pointers, window, value, highest, wanted, KERNEL_H, CENTER, NORMALIZE, DEPTH,
                DEPTH_PADDED,
            )  # fmt: skip
    else:
        for k in range(POINTS):
            sums, total = add_point(
                sums, total, k, pointers, window, value, highest, wanted, KERNEL_H, CENTER, NORMALIZE, DEPTH,
                DEPTH_PADDED,
            )  # fmt: skip
    if NORMALIZE == SOFTMAX:
        sums = sums * (1.0 / total)[:, None]
    return sums


@triton.jit
def forward_kernel(
    value_ptr,
    offset_ptr,
    mask_ptr,
    out_ptr,
    height,
    width,
    out_height,
    out_width,
    groups,
    offset_stride,
    mask_stride,
    stride_y,
    stride_x,
    start_y,
    start_x,
    step_y,
    step_x,
    scale,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    POINTS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DEPTH: tl.constexpr,
    DEPTH_PADDED: tl.constexpr,
    WIDE: tl.constexpr,
    UNROLL: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Grid: blocks of a strip, strips, images. Strides of offset and mask are from one position to the next."""
    out_x, out_y, group, wanted = find_rows(out_height, out_width, groups, WIDE, ROWS, STRIP)
    image = tl.program_id(2).to(tl.int64)
    value_ptr += image * height * width * groups * DEPTH
    offset_ptr += image * out_height * out_width * offset_stride
    mask_ptr += image * out_height * out_width * mask_stride
    out_ptr += image * out_height * out_width * groups * DEPTH
    position = out_y * out_width + out_x
    row_offset_ptr = offset_ptr + (position * offset_stride + group * (2 * POINTS))
    row_mask_ptr = mask_ptr + (position * mask_stride + group * POINTS)
    window = (out_x * stride_x + start_x, out_y * stride_y + start_y, step_x, step_y, scale)
    value = (height, width, groups * DEPTH, group * DEPTH)
    sums = aggregate(
        (value_ptr, row_offset_ptr, row_mask_ptr), window, value, wanted, KERNEL_H, CENTER, POINTS, NORMALIZE, DEPTH,
        DEPTH_PADDED, ROWS, UNROLL,
    )  # fmt: skip
    channel = tl.arange(0, DEPTH_PADDED)[None, :]
    out_ptr += (position * groups + group)[:, None] * DEPTH + channel
    tl.store(out_ptr, sums.to(out_ptr.dtype.element_ty), mask=wanted[:, None] & (channel < DEPTH))
