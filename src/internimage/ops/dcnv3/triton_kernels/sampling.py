"""What DCNv3's Triton kernels share: which outputs a program computes, where their points lie, what lies there.

A *row* is a group at an output position. Rows of a program are neighbours: positions run through a strip of ``STRIP``
columns from top to bottom, so that their windows overlap, and groups run fastest, so that offsets are read in order.
Shape legend of comments: R rows of a program, D channels of a group, K sampling points. The channels come in PARTS of
WIDTH, a power of two, so that a thread may hold more than one vector of a row, and no two threads find the same point.
"""

from __future__ import annotations

import triton
from triton import language as tl

# Arguments whose value is no reason to compile again: the maps of a detector's training change with every batch.
SIZES = ("height", "width", "out_height", "out_width", "offset_stride", "mask_stride", "points")
# Of `NORMALIZE`.
SOFTMAX, SIGMOID, NONE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
# Up to so many points one number per point may stay in registers, and loops over logits are unrolled.
FEW_POINTS = tl.constexpr(16)


@triton.jit
def find_rows(out_height, out_width, groups, WIDE: tl.constexpr, ROWS: tl.constexpr, STRIP: tl.constexpr):
    """Column, row and group of this program's R outputs, in 64 bits if WIDE, and which of them exist.

    Programs run through the blocks of R rows of one strip after the other.
    """
    program = tl.program_id(0)
    if WIDE:
        program, out_height = program.to(tl.int64), out_height.to(tl.int64)
    blocks = tl.cdiv(out_height * (STRIP * groups), ROWS)
    strip = program // blocks
    row = (program - strip * blocks) * ROWS + tl.arange(0, ROWS)
    position = row // groups
    out_y = position // STRIP
    out_x = strip * STRIP + position - out_y * STRIP
    return out_x, out_y, row - position * groups, (out_y < out_height) & (out_x < out_width)


@triton.jit
def as_pairs(offset_ptr):
    """A pointer to (x, y), which are neighbours in memory: one load or store for both."""
    if offset_ptr.dtype.element_ty == tl.float32:
        pairs_ptr = offset_ptr.to(tl.pointer_type(tl.int64))
    else:
        pairs_ptr = offset_ptr.to(tl.pointer_type(tl.int32))
    return pairs_ptr


@triton.jit
def split_pair(pair, dtype: tl.constexpr):
    """(x, y) in float32."""
    if dtype == tl.float32:
        x = pair.to(tl.int32).to(tl.float32, bitcast=True)
        y = (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    elif dtype == tl.bfloat16:
        # A bfloat16 is the upper half of a float32.
        x = (pair << 16).to(tl.float32, bitcast=True)
        y = (pair & -65536).to(tl.float32, bitcast=True)
    else:
        x = pair.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        y = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return x, y


@triton.jit
def join_pair(x, y, dtype: tl.constexpr):
    """The opposite of `split_pair`."""
    if dtype == tl.float32:
        low = x.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        pair = (y.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low
    else:
        low = x.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
        pair = (y.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) << 16) | low
    return pair


@triton.jit
def place_windows(out_x, out_y, stride_x, stride_y, start_x, start_y, step_x, step_y, scale):
    """Where the windows of R outputs begin, and what else `locate_point` needs, in float32.

    torch.compile hands a kernel its numbers in float64, which every sum behind them would become.
    """
    start_x, start_y = tl.cast(start_x, tl.float32), tl.cast(start_y, tl.float32)
    step_x, step_y, scale = tl.cast(step_x, tl.float32), tl.cast(step_y, tl.float32), tl.cast(scale, tl.float32)
    return out_x * stride_x + start_x, out_y * stride_y + start_y, step_x, step_y, scale


@triton.jit
def locate_point(k, dx, dy, window, KERNEL_H, CENTER):
    """(x, y) of point k of R outputs with offsets (dx, dy), in pixels of the unpadded map.

    window is where each window's first point lies without offset, (x, y), how far the next one is, (x, y), and the
    factor on offsets; points from CENTER on are one further in the kernel.
    """
    x_start, y_start, step_x, step_y, scale = window
    point = k + (k >= CENTER)
    ix = point // KERNEL_H
    iy = point - ix * KERNEL_H
    return (x_start + ix * step_x) + scale * dx, (y_start + iy * step_y) + scale * dy


@triton.jit
def find_corners(x, y, wanted, value):
    """The four pixels around R positions.

    value is height and width of the map, elements from one pixel to the next, and where each row's channels begin in
    a pixel. Returns where the upper left pixel's channels begin, the way down and right from there in [0, 1), and which
    corners lie on the map: upper left and right, lower left and right; none of a position that counts for nothing.
    """
    height, width, pixel, channel = value
    # Less than a pixel off the map at most; false for NaN, as every comparison with it.
    inside = (x > -1) & (x < width) & (y > -1) & (y < height) & wanted
    # Any small number will do where no corner is wanted: NaN, infinity and 1e30 have no integer.
    x, y = tl.where(inside, x, 0.0), tl.where(inside, y, 0.0)
    x_floor, y_floor = tl.floor(x), tl.floor(y)
    column, row = x_floor.to(tl.int32), y_floor.to(tl.int32)
    # `channel` has the width of an index: 64 bits only where an image needs them.
    index = (row.to(channel.dtype) * width + column) * pixel + channel
    left, right = inside & (column >= 0), inside & (column < width - 1)
    upper, lower = row >= 0, row < height - 1
    return index, y - y_floor, x - x_floor, upper & left, upper & right, lower & left, lower & right


@triton.jit
def load_rows(pointers, wanted, part: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """(R, WIDTH) in float32: a part of the D channels that begin at each pointer; zeros where not wanted."""
    channel = part * WIDTH + tl.arange(0, WIDTH)[None, :]
    there = wanted[:, None]
    if (part + 1) * WIDTH > DEPTH:
        there = there & (channel < DEPTH)
    return tl.load(pointers[:, None] + channel, mask=there, other=0.0).to(tl.float32)


@triton.jit
def store_rows(pointers, rows, wanted, part: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """The opposite of `load_rows`."""
    channel = part * WIDTH + tl.arange(0, WIDTH)[None, :]
    there = wanted[:, None]
    if (part + 1) * WIDTH > DEPTH:
        there = there & (channel < DEPTH)
    tl.store(pointers[:, None] + channel, rows.to(pointers.dtype.element_ty), mask=there)


@triton.jit
def add_rows(pointers, rows, wanted, part: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """As `store_rows`, on top of what is there, whoever else adds to it."""
    channel = part * WIDTH + tl.arange(0, WIDTH)[None, :]
    there = wanted[:, None]
    if (part + 1) * WIDTH > DEPTH:
        there = there & (channel < DEPTH)
    tl.atomic_add(pointers[:, None] + channel, rows, mask=there, sem="relaxed")


@triton.jit
def weigh_corners(down, right, modulation):
    """The weights of four corners, which sum to the modulation: upper left, upper right, lower left, lower right."""
    lower = modulation * down
    upper = modulation - lower
    lower_right, upper_right = lower * right, upper * right
    return upper - upper_right, upper_right, lower - lower_right, lower_right


@triton.jit
def find_highest(mask_ptr, wanted, POINTS: tl.constexpr):
    """The highest of each output's K logits."""
    highest = tl.load(mask_ptr, mask=wanted, other=0.0).to(tl.float32)
    if POINTS <= FEW_POINTS:
        for k in tl.static_range(1, POINTS):
            highest = tl.maximum(highest, tl.load(mask_ptr + k, mask=wanted, other=0.0).to(tl.float32))
    else:
        for k in range(1, POINTS):
            highest = tl.maximum(highest, tl.load(mask_ptr + k, mask=wanted, other=0.0).to(tl.float32))
    return highest


@triton.jit
def load_modulation(mask_ptr, k, highest, wanted, NORMALIZE: tl.constexpr):
    """The modulation scalar of point k of R outputs; for a softmax its numerator."""
    modulation = tl.load(mask_ptr + k, mask=wanted, other=0.0).to(tl.float32)
    if NORMALIZE == SOFTMAX:
        modulation = tl.exp(modulation - highest)
    elif NORMALIZE == SIGMOID:
        modulation = tl.sigmoid(modulation)
    return modulation


@triton.jit
def sum_modulations(mask_ptr, highest, wanted, POINTS: tl.constexpr, NORMALIZE: tl.constexpr):
    """The sum of each output's K modulation scalars; for a softmax its denominator."""
    total = load_modulation(mask_ptr, 0, highest, wanted, NORMALIZE)
    if POINTS <= FEW_POINTS:
        for k in tl.static_range(1, POINTS):
            total += load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
    else:
        for k in range(1, POINTS):
            total += load_modulation(mask_ptr, k, highest, wanted, NORMALIZE)
    return total


@triton.jit
def add_samples(
    sums, x, y, modulation, value_ptr, value, wanted, DEPTH: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr
):
    """Add what lies at R positions, times the modulation, to R sums; value is as in `find_corners`."""
    index, down, right, has_ul, has_ur, has_ll, has_lr = find_corners(x, y, wanted, value)
    w_ul, w_ur, w_ll, w_lr = weigh_corners(down, right, modulation)
    # Pointers, not indices: what the right pixels lie further on is then part of the instruction.
    _, width, pixel, _ = value
    ul = value_ptr + index
    ll = ul + width.to(index.dtype) * pixel
    added = ()
    for part in tl.static_range(PARTS):
        part_sum = sums[part]
        part_sum += w_ul[:, None] * load_rows(ul, has_ul, part, DEPTH, WIDTH)
        part_sum += w_ur[:, None] * load_rows(ul + pixel, has_ur, part, DEPTH, WIDTH)
        part_sum += w_ll[:, None] * load_rows(ll, has_ll, part, DEPTH, WIDTH)
        part_sum += w_lr[:, None] * load_rows(ll + pixel, has_lr, part, DEPTH, WIDTH)
        added = added + (part_sum,)
    return added


@triton.jit
def visit_corner(
    grads,
    weight,
    pointers,
    grad_pointers,
    wanted,
    DEPTH: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """R scalar products of an output's gradient with a pixel; weight times that gradient goes to the pixel's own."""
    products = tl.zeros(grads[0].shape, tl.float32)
    for part in tl.static_range(PARTS):
        products += grads[part] * load_rows(pointers, wanted, part, DEPTH, WIDTH)
        if SCATTER:
            add_rows(grad_pointers, weight[:, None] * grads[part], wanted, part, DEPTH, WIDTH)
    # Zero where there is no pixel, even for a gradient that is infinite.
    return tl.where(wanted, tl.sum(products, axis=1), 0.0)


@triton.jit
def visit_samples(
    grads,
    x,
    y,
    modulation,
    value_ptr,
    grad_value_ptr,
    value,
    wanted,
    DEPTH: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """The opposite of `add_samples`: adds R gradients, PARTS of (R, WIDTH), to those of the pixels around R positions.

    Returns their scalar products with what lies there, and how fast these change along x and along y.
    """
    index, down, right, has_ul, has_ur, has_ll, has_lr = find_corners(x, y, wanted, value)
    w_ul, w_ur, w_ll, w_lr = weigh_corners(down, right, modulation)
    _, width, pixel, _ = value
    upper, grad_upper = value_ptr + index, grad_value_ptr + index
    below = width.to(index.dtype) * pixel
    lower, grad_lower = upper + below, grad_upper + below
    ul = visit_corner(grads, w_ul, upper, grad_upper, has_ul, DEPTH, PARTS, WIDTH, SCATTER)
    ur = visit_corner(grads, w_ur, upper + pixel, grad_upper + pixel, has_ur, DEPTH, PARTS, WIDTH, SCATTER)
    ll = visit_corner(grads, w_ll, lower, grad_lower, has_ll, DEPTH, PARTS, WIDTH, SCATTER)
    lr = visit_corner(grads, w_lr, lower + pixel, grad_lower + pixel, has_lr, DEPTH, PARTS, WIDTH, SCATTER)
    # Along the upper and the lower edge, and from one to the other.
    along_upper, along_lower = ur - ul, lr - ll
    at_upper, at_lower = ul + right * along_upper, ll + right * along_lower
    along_x, along_y = along_upper + down * (along_lower - along_upper), at_lower - at_upper
    return at_upper + down * along_y, along_x, along_y
