"""Deformable attention in Triton, forward and backward: DCNv3's device functions, with a map per level.

A *row* is a group at a query; a program takes neighbouring rows, of which groups run fastest.
Shape legend of comments: R rows of a program, D channels of a group, L levels, P points per level.
"""

from __future__ import annotations

import triton
from triton import language as tl

from internimage.ops.dcnv3.triton_kernels.sampling import (
    add_samples,
    as_pairs,
    join_pair,
    load_rows,
    split_pair,
    store_rows,
    visit_samples,
)

# Height and width of every level: as many as there are arguments for.
SIDES = tuple(f"{side}_{level}" for level in range(8) for side in ("height", "width"))
# Arguments whose value is no reason to compile again: a detector's images change with every batch.
SIZES = ("rows", "image_rows", "pixels", "levels", "points", *SIDES)


@triton.jit
def find_rows(rows, image_rows, pixels, GROUPS, DEPTH, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """This program's R rows, in 64 bits if WIDE, where their channels begin in the value, and which of them exist."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    row = program * ROWS + tl.arange(0, ROWS)
    return row, (row // image_rows * pixels * GROUPS + row % GROUPS) * DEPTH, row < rows


@triton.jit
def find_sides(level, sides, LEVELS: tl.constexpr):
    """Height and width of a level: kernels have no index into their arguments."""
    height, width = sides[0], sides[1]
    for other in tl.static_range(1, LEVELS):
        height = tl.where(level == other, sides[2 * other], height)
        width = tl.where(level == other, sides[2 * other + 1], width)
    return height, width


@triton.jit
def find_point(pair, height, width):
    """(x, y) in pixels of R points that were loaded as pairs."""
    x, y = split_pair(pair, tl.float32)
    return x * width - 0.5, y * height - 0.5


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    value_ptr,
    points_ptr,
    weights_ptr,
    out_ptr,
    rows,
    image_rows,
    pixels,
    levels,
    points,
    height_0,
    width_0,
    height_1,
    width_1,
    height_2,
    width_2,
    height_3,
    width_3,
    height_4,
    width_4,
    height_5,
    width_5,
    height_6,
    width_6,
    height_7,
    width_7,
    GROUPS: tl.constexpr,
    DEPTH: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Eq. (3), arXiv:2010.04159. All tensors are contiguous; levels and points are LEVELS and POINTS once more.

    Compilers unroll a loop whose end they know. Sides of levels that are not there are 0.
    """
    sides = (height_0, width_0, height_1, width_1, height_2, width_2, height_3, width_3,
             height_4, width_4, height_5, width_5, height_6, width_6, height_7, width_7)  # fmt: skip
    row, channel, wanted = find_rows(rows, image_rows, pixels, GROUPS, DEPTH, WIDE, ROWS)
    pairs_ptr, row_weights_ptr = as_pairs(points_ptr) + row * (LEVELS * POINTS), weights_ptr + row * (LEVELS * POINTS)
    sums = (tl.zeros((ROWS, WIDTH), tl.float32),) * PARTS
    for level in range(levels):
        height, width = find_sides(level, sides, LEVELS)
        value = (height, width, GROUPS * DEPTH, channel)
        for first in range(0, points, CHUNK):
            for step in tl.static_range(CHUNK):
                k = level * POINTS + first + step
                there = wanted & (first + step < POINTS)
                x, y = find_point(tl.load(pairs_ptr + k, mask=there, other=0), height, width)
                weight = tl.load(row_weights_ptr + k, mask=there, other=0.0)
                sums = add_samples(sums, x, y, weight, value_ptr, value, there, DEPTH, PARTS, WIDTH)
        channel += height.to(channel.dtype) * width * (GROUPS * DEPTH)
    for part in tl.static_range(PARTS):
        store_rows(out_ptr + row * DEPTH, sums[part], wanted, part, DEPTH, WIDTH)


@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    grad_ptr,
    value_ptr,
    points_ptr,
    weights_ptr,
    grad_value_ptr,
    grad_points_ptr,
    grad_weights_ptr,
    rows,
    image_rows,
    pixels,
    levels,
    points,
    height_0,
    width_0,
    height_1,
    width_1,
    height_2,
    width_2,
    height_3,
    width_3,
    height_4,
    width_4,
    height_5,
    width_5,
    height_6,
    width_6,
    height_7,
    width_7,
    GROUPS: tl.constexpr,
    DEPTH: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """As the forward kernel; grad_value is float32 and starts at zero.

    Without SCATTER the value gets no gradient here.
    """
    sides = (height_0, width_0, height_1, width_1, height_2, width_2, height_3, width_3,
             height_4, width_4, height_5, width_5, height_6, width_6, height_7, width_7)  # fmt: skip
    row, channel, wanted = find_rows(rows, image_rows, pixels, GROUPS, DEPTH, WIDE, ROWS)
    first_point = row * (LEVELS * POINTS)
    pairs_ptr, row_weights_ptr = as_pairs(points_ptr) + first_point, weights_ptr + first_point
    grad_pairs_ptr, grad_row_weights_ptr = as_pairs(grad_points_ptr) + first_point, grad_weights_ptr + first_point
    grads = ()
    for part in tl.static_range(PARTS):
        grads = grads + (load_rows(grad_ptr + row * DEPTH, wanted, part, DEPTH, WIDTH),)
    for level in range(levels):
        height, width = find_sides(level, sides, LEVELS)
        value = (height, width, GROUPS * DEPTH, channel)
        for first in range(0, points, CHUNK):
            for step in tl.static_range(CHUNK):
                k = level * POINTS + first + step
                there = wanted & (first + step < POINTS)
                x, y = find_point(tl.load(pairs_ptr + k, mask=there, other=0), height, width)
                weight = tl.load(row_weights_ptr + k, mask=there, other=0.0)
                product, along_x, along_y = visit_samples(
                    grads, x, y, weight, value_ptr, grad_value_ptr, value, there, DEPTH, PARTS, WIDTH, SCATTER
                )
                pair = join_pair(weight * along_x * width, weight * along_y * height, tl.float32)
                tl.store(grad_pairs_ptr + k, pair, mask=there)
                tl.store(grad_row_weights_ptr + k, product, mask=there)
        channel += height.to(channel.dtype) * width * (GROUPS * DEPTH)
