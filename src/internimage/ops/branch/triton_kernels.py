"""The separable branch in Triton: depth-wise convolution, layer normalisation, activation, and their gradients.

A program takes P neighbouring pixels of one row with all or a block of their channels, and goes down the map row by
row: what the windows of the next row share with this one's is still in the cache, as are the weights.
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
def load_pixels(map_ptr, y, x, channel, width, CHANNELS: tl.constexpr, WIDE: tl.constexpr):
    """(P, B) in float32 of a row that is on the map; zeros left and right of it."""
    pixel = y * width + x
    if WIDE:
        pixel = pixel.to(tl.int64)
    index = (pixel * CHANNELS)[:, None] + channel[None, :]
    wanted = ((x >= 0) & (x < width))[:, None] & (channel < CHANNELS)[None, :]
    return tl.load(map_ptr + index, mask=wanted, other=0.0).to(tl.float32)


@triton.jit
def store_pixels(map_ptr, tile, y, x, channel, width, CHANNELS: tl.constexpr, WIDE: tl.constexpr):
    """The opposite of `load_pixels`."""
    pixel = y * width + x
    if WIDE:
        pixel = pixel.to(tl.int64)
    index = (pixel * CHANNELS)[:, None] + channel[None, :]
    wanted = (x < width)[:, None] & (channel < CHANNELS)[None, :]
    tl.store(map_ptr + index, tile.to(map_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def load_channels(ptr, channel, CHANNELS: tl.constexpr):
    """(B,) in float32."""
    return tl.load(ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)


@triton.jit
def convolve(
    x_ptr,
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
    WIDE: tl.constexpr,
):
    """The depth-wise convolution at P pixels of a row, (P, B)."""
    total = tl.zeros((x.shape[0], channel.shape[0]), tl.float32)
    if HAS_BIAS:
        total += load_channels(bias_ptr, channel, CHANNELS)[None, :]
    # Rows of the kernel that are on the map. A loop whose bounds compilers don't know is not unrolled: with all taps'
    # addresses at hand, registers would run out.
    tap_y, last = tl.maximum(KERNEL_H // 2 - y, 0), tl.minimum(height + KERNEL_H // 2 - y, KERNEL_H)
    while tap_y < last:
        near_y = y + (tap_y - KERNEL_H // 2)
        for tap_x in tl.static_range(KERNEL_W):
            near_x = x + (tap_x - KERNEL_W // 2)
            weight = load_channels(weight_ptr + (tap_y * KERNEL_W + tap_x) * CHANNELS, channel, CHANNELS)
            total += load_pixels(x_ptr, near_y, near_x, channel, width, CHANNELS, WIDE) * weight[None, :]
        tap_y += 1
    return total


@triton.jit
def normalize(total, channel, eps, CHANNELS: tl.constexpr):
    """(P, B) of mean zero and variance one over the C channels, zeros in the padding; (P,) reciprocal deviations."""
    mean = tl.sum(total, 1) * (1.0 / CHANNELS)
    centered = tl.where((channel < CHANNELS)[None, :], total - mean[:, None], 0.0)
    variance = tl.sum(centered * centered, 1) * (1.0 / CHANNELS)
    scale = tl.rsqrt(variance + eps)
    return centered * scale[:, None], scale


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
    CHANNELS_PADDED: tl.constexpr,
):
    """Grid: strips of P columns, fastest, times blocks of rows."""
    strip, block = tl.program_id(0) % strips, tl.program_id(0) // strips
    x, channel = strip * PIXELS + tl.arange(0, PIXELS), tl.arange(0, CHANNELS_PADDED)
    row, last = block * rows, tl.minimum(block * rows + rows, total_rows)
    while row < last:
        y = row % height
        image = (row // height).to(tl.int64) * height * width * CHANNELS
        total = convolve(
            x_ptr + image, weight_ptr, bias_ptr, y, x, channel, height, width,
            KERNEL_H, KERNEL_W, CHANNELS, HAS_BIAS, WIDE,
        )  # fmt: skip
        normed, _ = normalize(total, channel, eps, CHANNELS)
        gain = load_channels(norm_weight_ptr, channel, CHANNELS)[None, :]
        shift = load_channels(norm_bias_ptr, channel, CHANNELS)[None, :]
        result = activate(normed * gain + shift, ACTIVATION)
        store_pixels(out_ptr + image, result, y, x, channel, width, CHANNELS, WIDE)
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
):
    """Through activation and normalisation to the convolution's result, which is computed again.

    sums is (programs, 3, C), per program the gradients of the convolution's bias and the normalisation's weight and
    bias. Grid as `forward_kernel`.
    """
    strip, block = tl.program_id(0) % strips, tl.program_id(0) // strips
    x, channel = strip * PIXELS + tl.arange(0, PIXELS), tl.arange(0, CHANNELS_PADDED)
    bias_sum = tl.zeros((PIXELS, CHANNELS_PADDED), tl.float32)
    gain_sum, shift_sum = bias_sum, bias_sum
    row, last = block * rows, tl.minimum(block * rows + rows, total_rows)
    while row < last:
        y = row % height
        image = (row // height).to(tl.int64) * height * width * CHANNELS
        total = convolve(
            x_ptr + image, weight_ptr, bias_ptr, y, x, channel, height, width,
            KERNEL_H, KERNEL_W, CHANNELS, HAS_BIAS, WIDE,
        )  # fmt: skip
        normed, scale = normalize(total, channel, eps, CHANNELS)
        gain = load_channels(norm_weight_ptr, channel, CHANNELS)[None, :]
        shift = load_channels(norm_bias_ptr, channel, CHANNELS)[None, :]
        # Zero off the map, and with it all that follows.
        grad = load_pixels(grad_ptr + image, y, x, channel, width, CHANNELS, WIDE)
        grad *= activation_slope(normed * gain + shift, ACTIVATION)
        shift_sum += grad
        gain_sum += grad * normed
        grad *= gain
        mean = tl.sum(grad, 1) * (1.0 / CHANNELS)
        along = tl.sum(grad * normed, 1) * (1.0 / CHANNELS)
        grad = (grad - mean[:, None] - normed * along[:, None]) * scale[:, None]
        bias_sum += grad
        store_pixels(grad_conv_ptr + image, grad, y, x, channel, width, CHANNELS, WIDE)
        row += 1
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
):
    """Gradients of the convolution's input and weight; every gradient that is read serves both.

    sums is (programs of axis 0, C, taps). Grid: as `forward_kernel`, times blocks of channels on axis 1.
    """
    strip, block = tl.program_id(0) % strips, tl.program_id(0) // strips
    x = strip * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    sums = ()
    for _ in tl.static_range(KERNEL_H * KERNEL_W):
        sums = sums + (tl.zeros((PIXELS, CHANNEL_BLOCK), tl.float32),)
    row, last = block * rows, tl.minimum(block * rows + rows, total_rows)
    while row < last:
        y = row % height
        image = (row // height).to(tl.int64) * height * width * CHANNELS
        value = load_pixels(x_ptr + image, y, x, channel, width, CHANNELS, WIDE)
        grad_x = tl.zeros((PIXELS, CHANNEL_BLOCK), tl.float32)
        new_sums = ()
        for tap in tl.static_range(KERNEL_H * KERNEL_W):
            # The output whose window has this pixel at the tap.
            near_y = y - (tap // KERNEL_W - KERNEL_H // 2)
            near_x = tl.where((near_y >= 0) & (near_y < height), x - (tap % KERNEL_W - KERNEL_W // 2), -1)
            grad = load_pixels(grad_conv_ptr + image, near_y, near_x, channel, width, CHANNELS, WIDE)
            grad_x += grad * load_channels(weight_ptr + tap * CHANNELS, channel, CHANNELS)[None, :]
            new_sums = new_sums + (sums[tap] + grad * value,)
        sums = new_sums
        store_pixels(grad_x_ptr + image, grad_x, y, x, channel, width, CHANNELS, WIDE)
        row += 1
    sums_ptr += (tl.program_id(0).to(tl.int64) * CHANNELS + channel) * (KERNEL_H * KERNEL_W)
    for tap in tl.static_range(KERNEL_H * KERNEL_W):
        tl.store(sums_ptr + tap, tl.sum(sums[tap], 0), mask=channel < CHANNELS)
