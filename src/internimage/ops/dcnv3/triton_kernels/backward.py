"""DCNv3's backward pass in Triton: gradients of value, offset and mask from the inputs alone.

The gradient of a group's output meets the four pixels around each point in four scalar products; the gradients of
offset and mask follow from them. The gradient of the value goes to the same pixels by atomic additions in float32.
Shape legend of comments: R rows (a group at an output position each) of a program, D channels of a group, K points.
"""

from __future__ import annotations

import triton
from triton import language as tl

from internimage.ops.dcnv3.triton_kernels.forward import aggregate
from internimage.ops.dcnv3.triton_kernels.sampling import (
    FEW_POINTS,
    SIGMOID,
    SIZES,
    SOFTMAX,
    as_pairs,
    find_highest,
    find_rows,
    join_pair,
    load_modulation,
    load_rows,
    locate_point,
    place_windows,
    split_pair,
    sum_modulations,
    visit_samples,
)


@triton.jit
def visit_point(
    grads,
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
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """Store the gradients of point k's offsets, add those of its pixels, and return those of R modulation scalars."""
    value_ptr, offset_ptr, _ = pointers
    grad_value_ptr, grad_offset_ptr, _ = grad_pointers
    # Loaded here and not in a function: torch.compile then sees that no store depends on where this pointer goes.
    pair = tl.load(as_pairs(offset_ptr) + k, mask=wanted, other=0)
    dx, dy = split_pair(pair, offset_ptr.dtype.element_ty)
    x, y = locate_point(k, dx, dy, window, KERNEL_H, CENTER)
    product, along_x, along_y = visit_samples(
        grads, x, y, modulation, value_ptr, grad_value_ptr, value, wanted, DEPTH, PARTS, WIDTH, SCATTER
    )
    factor = modulation * window[4]
    grad_x, grad_y = factor * along_x, factor * along_y
    tl.store(as_pairs(grad_offset_ptr) + k, join_pair(grad_x, grad_y, grad_offset_ptr.dtype.element_ty), mask=wanted)
    return product


@triton.jit
def store_mask_gradient(grad_mask_ptr, k, grad, modulation, total, wanted, NORMALIZE: tl.constexpr):
    """Store R gradients of point k's logits; total is the sum over k of modulation times gradient."""
    if NORMALIZE == SOFTMAX:
        grad = modulation * (grad - total)
    elif NORMALIZE == SIGMOID:
        grad = grad * modulation * (1.0 - modulation)
    tl.store(grad_mask_ptr + k, grad.to(grad_mask_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def keep(kept, new, k, step: tl.constexpr, CHUNK: tl.constexpr, POINTS: tl.constexpr):
    """The tuple with ``new`` at place k, which is ``step`` more than a multiple of CHUNK: registers have no index."""
    result = ()
    for place in tl.static_range(POINTS):
        if place % CHUNK == step:
            result = result + (tl.where(k == place, new, kept[place]),)
        else:
            result = result + (kept[place],)
    return result


@triton.jit
def visit_points(
    grads,
    pointers,
    grad_pointers,
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
    SCATTER: tl.constexpr,
):
    """All gradients of R outputs' points from the outputs' own, PARTS of (R, WIDTH)."""
    mask_ptr, grad_mask_ptr = pointers[2], grad_pointers[2]
    total = tl.zeros((ROWS,), tl.float32)
    highest, scale = total, total + 1.0
    if NORMALIZE == SOFTMAX:
        highest = find_highest(mask_ptr, wanted, POINTS)
        scale = 1.0 / sum_modulations(mask_ptr, highest, wanted, POINTS, NORMALIZE)
    if POINTS <= FEW_POINTS:
        grads_mask = (total,) * POINTS
        for first in range(0, points, CHUNK):
            for step in tl.static_range(CHUNK):
                k = first + step
                there = wanted & (k < POINTS)
                modulation = scale * load_modulation(mask_ptr, k, highest, there, NORMALIZE)
                grad = visit_point(
                    grads, modulation, k, pointers, grad_pointers, window, value, there, KERNEL_H, CENTER, DEPTH, PARTS,
                    WIDTH, SCATTER,
                )  # fmt: skip
                grads_mask = keep(grads_mask, grad, k, step, CHUNK, POINTS)
                total += modulation * grad
        for k in tl.static_range(POINTS):
            modulation = scale * load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
            store_mask_gradient(grad_mask_ptr, k, grads_mask[k], modulation, total, wanted, NORMALIZE)
    else:
        if NORMALIZE == SOFTMAX:
            # Too many points for registers: the sum over k of modulation times gradient is <gradient, output>.
            sums, factor = aggregate(
                pointers,
                window,
                value,
                wanted,
                points,
                KERNEL_H,
                CENTER,
                POINTS,
                NORMALIZE,
                DEPTH,
                PARTS,
                WIDTH,
                ROWS,
                CHUNK,
            )
            for part in tl.static_range(PARTS):
                total += factor * tl.sum(grads[part] * sums[part], axis=1)
        for k in range(points):
            modulation = scale * load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
            grad = visit_point(
                grads, modulation, k, pointers, grad_pointers, window, value, wanted, KERNEL_H, CENTER, DEPTH, PARTS,
                WIDTH, SCATTER,
            )  # fmt: skip
            store_mask_gradient(grad_mask_ptr, k, grad, modulation, total, wanted, NORMALIZE)


@triton.jit(do_not_specialize=SIZES)
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
    SCATTER: tl.constexpr,
):
    """Grid and strides as of the forward kernel; gradients are contiguous, grad_value is float32 and starts at zero.

    Without SCATTER the value gets no gradient here.
    """
    out_x, out_y, group, wanted = find_rows(out_height, out_width, GROUPS, WIDE, ROWS, STRIP)
    image = tl.program_id(1).to(tl.int64)
    outputs = image * out_height * out_width
    value_ptr += image * height * width * GROUPS * DEPTH
    grad_value_ptr += image * height * width * GROUPS * DEPTH
    offset_ptr += outputs * offset_stride
    mask_ptr += outputs * mask_stride
    grad_ptr += outputs * GROUPS * DEPTH
    grad_offset_ptr += outputs * GROUPS * (2 * POINTS)
    grad_mask_ptr += outputs * GROUPS * POINTS
    position = out_y * out_width + out_x
    row = position * GROUPS + group
    pointers = (
        value_ptr,
        offset_ptr + (position * offset_stride + group * (2 * POINTS)),
        mask_ptr + (position * mask_stride + group * POINTS),
    )
    grad_pointers = (grad_value_ptr, grad_offset_ptr + row * (2 * POINTS), grad_mask_ptr + row * POINTS)
    window = place_windows(out_x, out_y, stride_x, stride_y, start_x, start_y, step_x, step_y, scale)
    value = (height, width, GROUPS * DEPTH, group * DEPTH)
    grads = ()
    for part in tl.static_range(PARTS):
        grads = grads + (load_rows(grad_ptr + row * DEPTH, wanted, part, DEPTH, WIDTH),)
    visit_points(
        grads, pointers, grad_pointers, window, value, wanted, points, KERNEL_H, CENTER, POINTS, NORMALIZE, DEPTH,
        PARTS, WIDTH, ROWS, CHUNK, SCATTER,
    )  # fmt: skip
