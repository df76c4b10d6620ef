"""DCNv3's forward pass in Triton: one kernel, softmax or sigmoid fused; Eq. (2), arXiv:2211.05778.

Shape legend of comments: R rows (a group at an output position each) of a program, D channels of a group, K points.
"""

from __future__ import annotations

import triton
from triton import language as tl

from internimage.ops.dcnv3.triton_kernels.sampling import (
    SIZES,
    SOFTMAX,
    add_samples,
    as_pairs,
    find_highest,
    find_rows,
    load_modulation,
    locate_point,
    place_windows,
    split_pair,
    store_rows,
)


@triton.jit
def add_point(
    sums,
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
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add m_k * x(p0 + p_k + dp_k) to R sums; returns them and m_k."""
    value_ptr, offset_ptr, mask_ptr = pointers
    modulation = load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
    pair = tl.load(as_pairs(offset_ptr) + k, mask=wanted, other=0)
    dx, dy = split_pair(pair, offset_ptr.dtype.element_ty)
    x, y = locate_point(k, dx, dy, window, KERNEL_H, CENTER)
    added = add_samples(sums, x, y, modulation, value_ptr, value, wanted, DEPTH, PARTS, WIDTH)
    return added, modulation


@triton.jit
def aggregate(
    pointers,
    window,
    value,
    wanted,
    points,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    POINTS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DEPTH: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Sums of R outputs, PARTS of (R, WIDTH) in float32, and the factors (R) that they still need.

    pointers are to value, and to each row's offsets and mask. points is POINTS again, hidden from compilers:
    they unroll a loop whose end they know.
    """
    total = tl.zeros((ROWS,), tl.float32)
    highest = total
    if NORMALIZE == SOFTMAX:
        highest = find_highest(pointers[2], wanted, POINTS)
    sums = (tl.zeros((ROWS, WIDTH), tl.float32),) * PARTS
    if CHUNK == POINTS:
        for k in tl.static_range(POINTS):
            sums, modulation = add_point(
                sums, k, pointers, window, value, highest, wanted, KERNEL_H, CENTER, NORMALIZE, DEPTH, PARTS, WIDTH
            )
            total += modulation
    else:
        for first in range(0, points, CHUNK):
            for step in tl.static_range(CHUNK):
                k = first + step
                there = wanted & (k < POINTS)
                sums, modulation = add_point(
                    sums, k, pointers, window, value, highest, there, KERNEL_H, CENTER, NORMALIZE, DEPTH, PARTS, WIDTH
                )
                total += tl.where(k < POINTS, modulation, 0.0)
    factor = tl.full((ROWS,), 1.0, tl.float32)
    if NORMALIZE == SOFTMAX:
        factor = 1.0 / total
    return sums, factor


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    value_ptr,
    offset_ptr,
    mask_ptr,
    out_ptr,
    height,
    width,
    out_height,
    out_width,
    offset_stride,
    mask_stride,
    points,
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
    GROUPS: tl.constexpr,
    DEPTH: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Grid: blocks of all strips, images. Strides of offset and mask are from one position to the next."""
    out_x, out_y, group, wanted = find_rows(out_height, out_width, GROUPS, WIDE, ROWS, STRIP)
    image = tl.program_id(1).to(tl.int64)
    value_ptr += image * height * width * GROUPS * DEPTH
    offset_ptr += image * out_height * out_width * offset_stride
    mask_ptr += image * out_height * out_width * mask_stride
    out_ptr += image * out_height * out_width * GROUPS * DEPTH
    position = out_y * out_width + out_x
    row_offset_ptr = offset_ptr + (position * offset_stride + group * (2 * POINTS))
    row_mask_ptr = mask_ptr + (position * mask_stride + group * POINTS)
    window = place_windows(out_x, out_y, stride_x, stride_y, start_x, start_y, step_x, step_y, scale)
    value = (height, width, GROUPS * DEPTH, group * DEPTH)
    sums, factor = aggregate(
        (value_ptr, row_offset_ptr, row_mask_ptr), window, value, wanted, points, KERNEL_H, CENTER, POINTS, NORMALIZE,
        DEPTH, PARTS, WIDTH, ROWS, CHUNK,
    )  # fmt: skip
    row = position * GROUPS + group
    for part in tl.static_range(PARTS):
        store_rows(out_ptr + row * DEPTH, sums[part] * factor[:, None], wanted, part, DEPTH, WIDTH)
