"""DCNv3's backward pass in Triton: gradients of value, offset and mask from the inputs alone.

The gradient of a group's output meets the four pixels around each point in four scalar products; the gradients of
offset and mask follow from them. The gradient of the value goes to the same pixels by atomic additions in float32.
Shape legend of comments: R rows (a group at an output position each) of a program, D channels of a group, K points.
"""

# Triton's language has no types.
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import triton
from triton import language as tl

from internimage.ops.dcnv3.triton_kernels.forward import aggregate
from internimage.ops.dcnv3.triton_kernels.sampling import (
    NONE,
    SIGMOID,
    SOFTMAX,
    find_corners,
    find_highest,
    find_rows,
    load_modulation,
    load_rows,
    locate_point,
    store_offset,
    sum_modulations,
)


@triton.jit
def visit_corner(grad, weight, value_ptr, grad_value_ptr, index, wanted, DEPTH, DEPTH_PADDED, SCATTER):
    """R scalar products of an output's gradient with a pixel; weight times that gradient goes to the pixel's own."""
    if SCATTER:
        channel = tl.arange(0, DEPTH_PADDED)[None, :]
        pointer = grad_value_ptr + (index[:, None] + channel)
        there = wanted[:, None] & (channel < DEPTH)
        tl.atomic_add(pointer, weight[:, None] * grad, mask=there, sem="relaxed")
    return tl.sum(grad * load_rows(value_ptr, index, wanted, DEPTH, DEPTH_PADDED), axis=1)


@triton.jit
def visit_point(
    grad,
    modulation,
    k,
    pointers,
    grad_pointers,
    window,
    value,
    wanted,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    DEPTH: tl.constexpr,
    DEPTH_PADDED: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """Store the gradients of point k's offsets, add those of its pixels, and return those of R modulation scalars."""
    value_ptr, offset_ptr, _ = pointers
    grad_value_ptr, grad_offset_ptr, _ = grad_pointers
    x, y = locate_point(k, offset_ptr, window, wanted, KERNEL_H, CENTER)
    index, down, right, has_ul, has_ur, has_ll, has_lr = find_corners(x, y, wanted, value)
    pixel, below = value[2], index + value[1] * value[2]
    up, left = 1.0 - down, 1.0 - right
    upper, lower = modulation * up, modulation * down
    ul = visit_corner(grad, upper * left, value_ptr, grad_value_ptr, index, has_ul, DEPTH, DEPTH_PADDED, SCATTER)
    ur = visit_corner(
        grad, upper * right, value_ptr, grad_value_ptr, index + pixel, has_ur, DEPTH, DEPTH_PADDED, SCATTER
    )
    ll = visit_corner(grad, lower * left, value_ptr, grad_value_ptr, below, has_ll, DEPTH, DEPTH_PADDED, SCATTER)
    lr = visit_corner(
        grad, lower * right, value_ptr, grad_value_ptr, below + pixel, has_lr, DEPTH, DEPTH_PADDED, SCATTER
    )
    factor = modulation * window[4]
    dx = factor * (up * (ur - ul) + down * (lr - ll))
    dy = factor * (left * (ll - ul) + right * (lr - ur))
    store_offset(grad_offset_ptr + 2 * k, dx, dy, wanted)
    return up * (left * ul + right * ur) + down * (left * ll + right * lr)


@triton.jit
def store_mask_gradient(grad_mask_ptr, k, grad, modulation, total, wanted, NORMALIZE: tl.constexpr):
    """Store R gradients of point k's logits; total is the sum over k of modulation times gradient."""
    if NORMALIZE == SOFTMAX:
        grad = modulation * (grad - total)
    elif NORMALIZE == SIGMOID:
        grad = grad * modulation * (1.0 - modulation)
    tl.store(grad_mask_ptr + k, grad.to(grad_mask_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def visit_points(
    grad,
    pointers,
    grad_pointers,
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
    SCATTER: tl.constexpr,
):
    """All gradients of R outputs' points from (R, D) gradients of the outputs."""
    mask_ptr, grad_mask_ptr = pointers[2], grad_pointers[2]
    highest = tl.zeros((ROWS,), tl.float32)
    scale = highest + 1.0
    if NORMALIZE == SOFTMAX:
        highest = find_highest(mask_ptr, wanted, POINTS, UNROLL)
        scale = 1.0 / sum_modulations(mask_ptr, highest, wanted, POINTS, NORMALIZE, UNROLL)
    total = tl.zeros((ROWS,), tl.float32)
    if UNROLL:
        grads = ()
        for k in tl.static_range(POINTS):
            modulation = scale * load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
            grad_k = visit_point(
                grad, modulation, k, pointers, grad_pointers, window, value, wanted, KERNEL_H, CENTER, DEPTH,
                DEPTH_PADDED, SCATTER,
            )  # fmt: skip
            grads = grads + (grad_k,)
            total += modulation * grad_k
        for k in tl.static_range(POINTS):
            modulation = scale * load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
            store_mask_gradient(grad_mask_ptr, k, grads[k], modulation, total, wanted, NORMALIZE)
    else:
        if NORMALIZE == SOFTMAX:
            # Too many points for registers: the sum over k of modulation times gradient is <gradient, output>.
            output = aggregate(
                pointers, window, value, wanted, KERNEL_H, CENTER, POINTS, NORMALIZE, DEPTH, DEPTH_PADDED, ROWS, UNROLL
            )
            total = tl.sum(grad * output, axis=1)
        for k in range(POINTS):
            modulation = scale * load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
            grad_k = visit_point(
                grad, modulation, k, pointers, grad_pointers, window, value, wanted, KERNEL_H, CENTER, DEPTH,
                DEPTH_PADDED, SCATTER,
            )  # fmt: skip
            store_mask_gradient(grad_mask_ptr, k, grad_k, modulation, total, wanted, NORMALIZE)


@triton.jit
def backward_kernel(
    grad_ptr,
    value_ptr,
    offset_ptr,
    mask_ptr,
    grad_value_ptr,
    grad_offset_ptr,
    grad_mask_ptr,
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
    SCATTER: tl.constexpr,
):
    """Grid and strides as of the forward kernel; gradients are contiguous, grad_value is float32 and starts at zero.

    Without SCATTER the value gets no gradient here.
    """
    out_x, out_y, group, wanted = find_rows(out_height, out_width, groups, WIDE, ROWS, STRIP)
    image = tl.program_id(2).to(tl.int64)
    outputs = image * out_height * out_width
    value_ptr += image * height * width * groups * DEPTH
    grad_value_ptr += image * height * width * groups * DEPTH
    offset_ptr += outputs * offset_stride
    mask_ptr += outputs * mask_stride
    grad_ptr += outputs * groups * DEPTH
    grad_offset_ptr += outputs * groups * (2 * POINTS)
    grad_mask_ptr += outputs * groups * POINTS
    position = out_y * out_width + out_x
    row = position * groups + group
    grad_pointers = (grad_value_ptr, grad_offset_ptr + row * (2 * POINTS), grad_mask_ptr + row * POINTS)
    pointers = (
        value_ptr,
        offset_ptr + (position * offset_stride + group * (2 * POINTS)),
        mask_ptr + (position * mask_stride + group * POINTS),
    )
    window = (out_x * stride_x + start_x, out_y * stride_y + start_y, step_x, step_y, scale)
    value = (height, width, groups * DEPTH, group * DEPTH)
    grad = load_rows(grad_ptr, row * DEPTH, wanted, DEPTH, DEPTH_PADDED)
    visit_points(
        grad, pointers, grad_pointers, window, value, wanted, KERNEL_H, CENTER, POINTS, NORMALIZE, DEPTH,
        DEPTH_PADDED, ROWS, UNROLL, SCATTER,
    )  # fmt: skip
