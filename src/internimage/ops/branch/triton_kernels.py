"""The separable branch in Triton: depth-wise convolution, layer normalisation, activation, and their gradients.

A program takes neighbouring pixels of one row with all or a block of their channels, and goes down the map row by
row: what the windows of the next row share with this one's is still in the cache, as are the weights.
Its pixels come in parts of P, which share the weights that a thread has loaded. A part is a tile of its own: what
differs along a tile's side differs between threads too, and would pass through shared memory, a barrier a tap.
Rows are counted through all images: row = image * H + y. Weights are (taps, C), taps row-major.
Shape legend of comments: P pixels of a program, B channels of a program (padded to a power of two), C channels.
"""

from __future__ import annotations

import triton
from triton import language as tl

# Of `ACTIVATION`.
GELU, RELU, SILU = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
SQRT_HALF, SQRT_HALF_OVER_PI = tl.constexpr(0.7071067811865476), tl.constexpr(0.3989422804014327)


@triton.jit
def index_of(y, x, channel, width, CHANNELS: tl.constexpr, WIDE: tl.constexpr):
    """(P, B), of an image's elements. From one to a neighbour is a constant, which costs a load instruction nothing."""
    pixel = y * width + x
    if WIDE:
        pixel = pixel.to(tl.int64)
    return (pixel * CHANNELS)[:, None] + channel[None, :]


@triton.jit
def load_pixels(pointers, x, channel, width, CHANNELS: tl.constexpr):
    """(P, B) in float32 of a row that is on the map; zeros left and right of it."""
    wanted = ((x >= 0) & (x < width))[:, None] & (channel < CHANNELS)[None, :]
    return tl.load(pointers, mask=wanted, other=0.0).to(tl.float32)


@triton.jit
def store_pixels(pointers, tile, x, channel, width, CHANNELS: tl.constexpr):
    """The opposite of `load_pixels`."""
    wanted = (x < width)[:, None] & (channel < CHANNELS)[None, :]
    tl.store(pointers, tile.to(pointers.dtype.element_ty), mask=wanted)


@triton.jit
def load_channels(ptr, x, channel, CHANNELS: tl.constexpr):
    """(P, B) in float32, for every pixel the same: each thread loads what goes with its part of the map."""
    index = tl.broadcast_to(channel[None, :], (x.shape[0], channel.shape[0]))
    return tl.load(ptr + index, mask=index < CHANNELS, other=0.0).to(tl.float32)


@triton.jit
def convolve(
    middle,
    weight_ptr,
    bias_ptr,
    y,
    x,
    channel,
    height,
    width,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    CHANNELS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The depth-wise convolution at parts of P pixels of a row, (P, B) each: those at x, those P further on, ...

    middle points at the first part's pixels.
    """
    start = tl.zeros((x.shape[0], channel.shape[0]), tl.float32)
    if HAS_BIAS:
        start = load_channels(bias_ptr, x, channel, CHANNELS)
    totals = ()
    for _ in tl.static_range(PARTS):
        totals = totals + (start,)
    # Rows of the kernel that are on the map. A loop whose bounds compilers don't know is not unrolled: with all taps'
    # addresses at hand, registers would run out.
    tap_y, last = tl.maximum(KERNEL_H // 2 - y, 0), tl.minimum(height + KERNEL_H // 2 - y, KERNEL_H)
    while tap_y < last:
        pointers = middle + (tap_y - KERNEL_H // 2) * (width * CHANNELS)
        weights = weight_ptr + tap_y * (KERNEL_W * CHANNELS)
        for tap_x in tl.static_range(KERNEL_W):
            weight = load_channels(weights + tap_x * CHANNELS, x, channel, CHANNELS)
            new_totals = ()
            for part in tl.static_range(PARTS):
                shift = part * x.shape[0] + tap_x - KERNEL_W // 2
                value = load_pixels(pointers + shift * CHANNELS, x + shift, channel, width, CHANNELS)
                new_totals = new_totals + (totals[part] + value * weight,)
            totals = new_totals
        tap_y += 1
    return totals


@triton.jit
def normalize(total, channel, eps, CHANNELS: tl.constexpr):
    """(P, B) of mean zero over the C channels, zeros in the padding; (P,) reciprocal deviations."""
    mean = tl.sum(total, 1) * (1.0 / CHANNELS)
    centered = tl.where((channel < CHANNELS)[None, :], total - mean[:, None], 0.0)
    variance = tl.sum(centered * centered, 1) * (1.0 / CHANNELS)
    return centered, tl.rsqrt(variance + tl.cast(eps, tl.float32))


@triton.jit
def activate(u, ACTIVATION: tl.constexpr):
    """GELU in its exact form, ReLU or SiLU."""
    if ACTIVATION == GELU:
        u = 0.5 * u * (1.0 + tl.erf(u * SQRT_HALF))
    elif ACTIVATION == RELU:
        # Not maximum, which makes zero of NaN.
        u = tl.where(u < 0.0, 0.0, u)
    else:
        u = u * tl.sigmoid(u)
    return u


@triton.jit
def activation_slope(u, ACTIVATION: tl.constexpr):
    """The derivative of `activate`."""
    if ACTIVATION == GELU:
        slope = 0.5 * (1.0 + tl.erf(u * SQRT_HALF)) + u * SQRT_HALF_OVER_PI * tl.exp(-0.5 * u * u)
    elif ACTIVATION == RELU:
        slope = tl.where(u > 0.0, 1.0, 0.0)
    else:
        gate = tl.sigmoid(u)
        slope = gate * (1.0 + u * (1.0 - gate))
    return slope


@triton.jit(do_not_specialize=["height", "width", "total_rows", "rows", "strips"])
def forward_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    out_ptr,
    height,
    width,
    total_rows,
    rows,
    strips,
    eps,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    CHANNELS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
):
    """Grid: strips of columns, fastest, times blocks of rows."""
    strip, block = tl.program_id(0) % strips, tl.program_id(0) // strips
    x, channel = strip * (PIXELS * PARTS) + tl.arange(0, PIXELS), tl.arange(0, CHANNELS_PADDED)
    row, last = block * rows, tl.minimum(block * rows + rows, total_rows)
    while row < last:
        y = row % height
        image = (row // height).to(tl.int64) * height * width * CHANNELS
        index = index_of(y, x, channel, width, CHANNELS, WIDE)
        totals = convolve(
            x_ptr + image + index, weight_ptr, bias_ptr, y, x, channel, height, width,
            KERNEL_H, KERNEL_W, CHANNELS, HAS_BIAS, PARTS,
        )  # fmt: skip
        gain = load_channels(norm_weight_ptr, x, channel, CHANNELS)
        shift = load_channels(norm_bias_ptr, x, channel, CHANNELS)
        for part in tl.static_range(PARTS):
            at = x + part * PIXELS
            centered, scale = normalize(totals[part], channel, eps, CHANNELS)
            result = activate(centered * (scale[:, None] * gain) + shift, ACTIVATION)
            store_pixels(out_ptr + image + index + part * PIXELS * CHANNELS, result, at, channel, width, CHANNELS)
        row += 1


@triton.jit(do_not_specialize=["height", "width", "total_rows", "rows", "strips"])
def backward_norm_kernel(
    grad_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    grad_conv_ptr,
    sums_ptr,
    height,
    width,
    total_rows,
    rows,
    strips,
    eps,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    CHANNELS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
    SUMS: tl.constexpr,
):
    """Through activation and normalisation to the convolution's result, which is computed again.

    sums is (programs, 3, C), per program the gradients of the convolution's bias and the normalisation's weight and
    bias; not there without SUMS. Grid as `forward_kernel`.
    """
    strip, block = tl.program_id(0) % strips, tl.program_id(0) // strips
    x, channel = strip * PIXELS + tl.arange(0, PIXELS), tl.arange(0, CHANNELS_PADDED)
    if SUMS:
        bias_sum = tl.zeros((PIXELS, CHANNELS_PADDED), tl.float32)
        gain_sum, shift_sum = bias_sum, bias_sum
    row, last = block * rows, tl.minimum(block * rows + rows, total_rows)
    while row < last:
        y = row % height
        image = (row // height).to(tl.int64) * height * width * CHANNELS
        index = index_of(y, x, channel, width, CHANNELS, WIDE)
        totals = convolve(
            x_ptr + image + index, weight_ptr, bias_ptr, y, x, channel, height, width,
            KERNEL_H, KERNEL_W, CHANNELS, HAS_BIAS, 1,
        )  # fmt: skip
        centered, scale = normalize(totals[0], channel, eps, CHANNELS)
        # Off the map the variance may be zero, and so may eps: the sums over pixels would take up NaN.
        scale = tl.where(x < width, scale, 0.0)
        normed = centered * scale[:, None]
        gain = load_channels(norm_weight_ptr, x, channel, CHANNELS)
        shift = load_channels(norm_bias_ptr, x, channel, CHANNELS)
        # Zero off the map, and with it all that follows.
        grad = load_pixels(grad_ptr + image + index, x, channel, width, CHANNELS)
        grad *= activation_slope(normed * gain + shift, ACTIVATION)
        if SUMS:
            shift_sum += grad
            gain_sum += grad * normed
        grad *= gain
        mean = tl.sum(grad, 1) * (1.0 / CHANNELS)
        along = tl.sum(grad * normed, 1) * (1.0 / CHANNELS)
        grad = (grad - mean[:, None] - normed * along[:, None]) * scale[:, None]
        if SUMS:
            bias_sum += grad
        store_pixels(grad_conv_ptr + image + index, grad, x, channel, width, CHANNELS)
        row += 1
    if SUMS:
        sums_ptr += tl.program_id(0).to(tl.int64) * (3 * CHANNELS) + channel
        tl.store(sums_ptr, tl.sum(bias_sum, 0), mask=channel < CHANNELS)
        tl.store(sums_ptr + CHANNELS, tl.sum(gain_sum, 0), mask=channel < CHANNELS)
        tl.store(sums_ptr + 2 * CHANNELS, tl.sum(shift_sum, 0), mask=channel < CHANNELS)


@triton.jit(do_not_specialize=["height", "width", "total_rows", "rows", "strips"])
def backward_conv_kernel(
    grad_conv_ptr,
    x_ptr,
    weight_ptr,
    grad_x_ptr,
    sums_ptr,
    height,
    width,
    total_rows,
    rows,
    strips,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
    GRAD_X: tl.constexpr,
    SUMS: tl.constexpr,
):
    """Gradients of the convolution's input and weight; every gradient that is read serves both.

    sums is (programs of axis 0, C, taps). Without GRAD_X or SUMS, that tensor is not there.
    Grid: as `forward_kernel`, times blocks of channels on axis 1.
    """
    strip, block = tl.program_id(0) % strips, tl.program_id(0) // strips
    x = strip * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    sums = ()
    for _ in tl.static_range(KERNEL_H * KERNEL_W if SUMS else 0):
        sums = sums + (tl.zeros((PIXELS, CHANNEL_BLOCK), tl.float32),)
    row, last = block * rows, tl.minimum(block * rows + rows, total_rows)
    while row < last:
        y = row % height
        image = (row // height).to(tl.int64) * height * width * CHANNELS
        index = index_of(y, x, channel, width, CHANNELS, WIDE)
        if SUMS:
            value = load_pixels(x_ptr + image + index, x, channel, width, CHANNELS)
        grad_x = tl.zeros((PIXELS, CHANNEL_BLOCK), tl.float32)
        new_sums = ()
        for tap_y in tl.static_range(KERNEL_H):
            # The outputs whose windows have these pixels at the taps.
            near_y = y + (KERNEL_H // 2 - tap_y)
            on_map = (near_y >= 0) & (near_y < height)
            for tap_x in tl.static_range(KERNEL_W):
                near_x = tl.where(on_map, x + (KERNEL_W // 2 - tap_x), -1)
                # Not from pointers for the row, which would stay in registers.
                near = index_of(near_y, near_x, channel, width, CHANNELS, WIDE)
                grad = load_pixels(grad_conv_ptr + image + near, near_x, channel, width, CHANNELS)
                if GRAD_X:
                    weights = weight_ptr + (tap_y * KERNEL_W + tap_x) * CHANNELS
                    grad_x += grad * load_channels(weights, x, channel, CHANNELS)
                if SUMS:
                    new_sums = new_sums + (sums[tap_y * KERNEL_W + tap_x] + grad * value,)
        sums = new_sums
        if GRAD_X:
            store_pixels(grad_x_ptr + image + index, grad_x, x, channel, width, CHANNELS)
        row += 1
    sums_ptr += (tl.program_id(0).to(tl.int64) * CHANNELS + channel) * (KERNEL_H * KERNEL_W)
    for tap in tl.static_range(KERNEL_H * KERNEL_W if SUMS else 0):
        tl.store(sums_ptr + tap, tl.sum(sums[tap], 0), mask=channel < CHANNELS)
