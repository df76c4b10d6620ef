"""The value's gradient of DCNv3 in Triton without atomic additions, for ``torch.use_deterministic_algorithms(True)``.

Each program owns a tile of pixels and looks for the sampling points that touch it, all in the same order every time.
Slower than the atomic additions of backward.py: all offsets are read once per tile.
Shape legend of comments: T pixels of a tile, P output positions of a block, C channels of a part of a group.
"""

from __future__ import annotations

import triton
from triton import language as tl

from internimage.ops.dcnv3.triton_kernels.sampling import (
    SIZES,
    SOFTMAX,
    as_pairs,
    find_highest,
    load_modulation,
    locate_point,
    place_windows,
    split_pair,
    sum_modulations,
)


@triton.jit
def find_point(k, offset_ptr, window, wanted, height, width, KERNEL_H: tl.constexpr, CENTER: tl.constexpr):
    """(x, y) of point k of P outputs; far from every pixel if it counts for nothing."""
    pair = tl.load(as_pairs(offset_ptr) + k, mask=wanted, other=0)
    dx, dy = split_pair(pair, offset_ptr.dtype.element_ty)
    x, y = locate_point(k, dx, dy, window, KERNEL_H, CENTER)
    inside = (x > -1) & (x < width) & (y > -1) & (y < height) & wanted
    return tl.where(inside, x, -4.0), tl.where(inside, y, -4.0)


@triton.jit
def find_tile(program, width, GROUPS: tl.constexpr, TILE: tl.constexpr):
    """Group of a program, and row and column of the T pixels of its tile."""
    tile = program // GROUPS
    columns = tl.cdiv(width, TILE)
    pixel = tl.arange(0, TILE * TILE)
    rows, tile_column = tile // columns * TILE + pixel // TILE, tile % columns
    return program % GROUPS, rows, tile_column * TILE + pixel % TILE


@triton.jit
def touches_tile(
    offset_ptr,
    window,
    wanted,
    height,
    width,
    top,
    left,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    POINTS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Whether one of P outputs has a point less than a pixel from the tile."""
    found = tl.zeros(wanted.shape, tl.int32)
    for k in range(POINTS):
        x, y = find_point(k, offset_ptr, window, wanted, height, width, KERNEL_H, CENTER)
        near = (x > left - 1) & (x < left + TILE) & (y > top - 1) & (y < top + TILE)
        found = tl.maximum(found, near.to(tl.int32))
    return tl.max(found, axis=0) > 0


@triton.jit
def weigh_tile(
    offset_ptr,
    mask_ptr,
    window,
    wanted,
    height,
    width,
    rows,
    columns,
    KERNEL_H: tl.constexpr,
    CENTER: tl.constexpr,
    POINTS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """(T, P): how much of each pixel is in each output."""
    highest = tl.zeros((BLOCK,), tl.float32)
    scale = highest + 1.0
    if NORMALIZE == SOFTMAX:
        highest = find_highest(mask_ptr, wanted, POINTS)
        scale = 1.0 / sum_modulations(mask_ptr, highest, wanted, POINTS, NORMALIZE)
    weights = tl.zeros((TILE * TILE, BLOCK), tl.float32)
    for k in range(POINTS):
        x, y = find_point(k, offset_ptr, window, wanted, height, width, KERNEL_H, CENTER)
        modulation = scale * load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
        across = tl.maximum(1.0 - tl.abs(columns[:, None] - x[None, :]), 0.0)
        along = tl.maximum(1.0 - tl.abs(rows[:, None] - y[None, :]), 0.0)
        weight = across * along
        weights += tl.where(weight > 0, modulation[None, :] * weight, 0.0)
    return weights


@triton.jit(do_not_specialize=SIZES)
def gather_kernel(
    grad_ptr,
    offset_ptr,
    mask_ptr,
    grad_value_ptr,
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
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Grid: parts of CHANNELS channels of groups of tiles, images. Strides as of the forward kernel."""
    image = tl.program_id(1).to(tl.int64)
    outputs = out_height * out_width
    parts: tl.constexpr = (DEPTH + CHANNELS - 1) // CHANNELS
    group, rows, columns = find_tile(tl.program_id(0) // parts, width, GROUPS, TILE)
    channel = tl.program_id(0) % parts * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    grad_ptr += image * outputs * GROUPS * DEPTH + group * DEPTH
    offset_ptr += image * outputs * offset_stride + group * (2 * POINTS)
    mask_ptr += image * outputs * mask_stride + group * POINTS
    sums = tl.zeros((TILE * TILE, CHANNELS), tl.float32)
    top, left = tl.min(rows, axis=0), tl.min(columns, axis=0)
    for first in range(0, outputs, BLOCK):
        position = first + tl.arange(0, BLOCK)
        wanted = position < outputs
        out_y = position // out_width
        out_x = position - out_y * out_width
        window = place_windows(out_x, out_y, stride_x, stride_y, start_x, start_y, step_x, step_y, scale)
        if WIDE:
            position = position.to(tl.int64)
        offsets, masks = offset_ptr + position * offset_stride, mask_ptr + position * mask_stride
        if touches_tile(offsets, window, wanted, height, width, top, left, KERNEL_H, CENTER, POINTS, TILE):
            weights = weigh_tile(
                offsets, masks, window, wanted, height, width, rows, columns, KERNEL_H, CENTER, POINTS, NORMALIZE,
                BLOCK, TILE,
            )  # fmt: skip
            there = wanted[:, None] & (channel < DEPTH)
            grads = tl.load(grad_ptr + position[:, None] * (GROUPS * DEPTH) + channel, mask=there, other=0.0)
            sums += tl.dot(weights, grads.to(tl.float32), input_precision="ieee")
    pixel = (image * height + rows) * width + columns
    pointer = grad_value_ptr + (pixel * GROUPS + group)[:, None] * DEPTH + channel
    there = ((rows < height) & (columns < width))[:, None] & (channel < DEPTH)
    tl.store(pointer, sums.to(grad_value_ptr.dtype.element_ty), mask=there)
