"""How the branch's Triton kernels are launched: which program computes what, with how many threads; no atomics.

Importing this imports Triton. Sums over programs are made by PyTorch, in an order that the shape alone decides: the
same input gives the same gradients, on every device.
"""

# Triton has no types.
# pyright: basic, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from internimage.ops.branch import triton_kernels as kernels
from internimage.ops.dispatch import is_traced

KERNELS = (kernels.forward_kernel, kernels.backward_norm_kernel, kernels.backward_conv_kernel)
ACTIVATIONS = {"gelu": kernels.GELU.value, "relu": kernels.RELU.value, "silu": kernels.SILU.value}


class Tile(NamedTuple):
    """A program's share: ``pixels`` neighbours in a row, ``channels`` of them (padded), by so many warps.

    Of such parts it has ``parts``, one after the other along the row.
    """

    pixels: int
    channels: int
    warps: int
    parts: int = 1


class Spread(NamedTuple):
    """Columns are cut into strips, the rows of all images into blocks of ``rows``; ``programs`` is their product."""

    strips: int
    rows: int
    programs: int


def forward_tile(channels: int, width: int, itemsize: int) -> Tile:
    """All channels; a thread loads 16 bytes of the map at once, in each of two parts.

    >>> forward_tile(64, 56, 2), forward_tile(4096, 20, 2)
    (Tile(pixels=16, channels=64, warps=4, parts=2), Tile(pixels=1, channels=4096, warps=16, parts=1))
    """
    padded, vector = triton.next_power_of_2(channels), 16 // itemsize
    parts = 2 if padded <= 256 * vector else 1
    pixels = _narrow(min(max(1, 128 * vector // padded), 32), width, parts)
    return Tile(pixels, padded, min(16, max(1, pixels * padded // (32 * vector))), parts)


def norm_tile(channels: int, width: int) -> Tile:
    """All channels; 8 numbers a thread, each with three running sums.

    >>> norm_tile(64, 56), norm_tile(1024, 80)
    (Tile(pixels=32, channels=64, warps=8, parts=1), Tile(pixels=1, channels=1024, warps=4, parts=1))
    """
    padded = triton.next_power_of_2(channels)
    # Four warps that have a pixel to themselves need fewer registers than eight with two.
    pixels = _narrow(min(2048 // padded, 32), width) if padded <= 512 else 1
    return Tile(pixels, padded, min(16, max(1, pixels * padded // (32 * 8))))


def conv_tile(channels: int, width: int, taps: int) -> Tile:
    """A block of channels; as many numbers a thread as leave room for a running sum per number and tap.

    >>> conv_tile(256, 14, 9), conv_tile(320, 40, 25)
    (Tile(pixels=16, channels=64, warps=4, parts=1), Tile(pixels=8, channels=64, warps=4, parts=1))
    """
    share = min(8, _power_below(max(1, 100 // taps)))
    block = min(64, triton.next_power_of_2(channels))
    pixels = _narrow(max(1, 128 * share // block), width)
    return Tile(pixels, block, max(1, pixels * block // (32 * share)))


def spread(x_NHWC: Tensor, pixels: int, programs: int, most_rows: int | None = None) -> Spread:
    """About so many programs, each going down ``most_rows`` rows at most."""
    batch, height, width, _ = x_NHWC.shape
    strips = triton.cdiv(width, pixels)
    rows: Any = triton.cdiv(batch * height * strips, programs)
    # Not min, which asks which is less, and every answer is a graph of its own.
    rows = rows if most_rows is None else torch.sym_min(rows, most_rows)
    return Spread(strips, rows, strips * triton.cdiv(batch * height, rows))


def forward(
    x_NHWC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    """`branch_reference` for tensors on a GPU of 16 or 32 bits."""
    x_NHWC = x_NHWC.contiguous()
    out_NHWC = torch.empty_like(x_NHWC, dtype=out_dtype or x_NHWC.dtype)
    if x_NHWC.numel() == 0:
        return out_NHWC
    (batch, height, width, _), channels = x_NHWC.shape, weight.shape[0]
    tile = forward_tile(channels, width, x_NHWC.element_size())
    share = spread(x_NHWC, tile.pixels * tile.parts, 4096, 16)
    parameters = _parameters(weight, bias, norm_weight, norm_bias)
    with _device_of(x_NHWC):
        _wrap(kernels.forward_kernel, x_NHWC)[(share.programs,)](
            x_NHWC, *parameters, out_NHWC, height, width, batch * height, share.rows, share.strips, eps,
            **_constants(x_NHWC, weight), ACTIVATION=ACTIVATIONS[activation], HAS_BIAS=bias is not None,
            PIXELS=tile.pixels, PARTS=tile.parts, CHANNELS_PADDED=tile.channels, num_warps=tile.warps,
        )  # fmt: skip
    return out_NHWC


def backward(
    grad_NHWC: Tensor,
    x_NHWC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """`branch_reference_backward` for tensors on a GPU of 16 or 32 bits.

    The gradient between convolution and normalisation is rounded to the dtype of x.
    """
    for_x, for_weight, for_rest = output_mask
    x_NHWC, grad_NHWC = x_NHWC.contiguous(), grad_NHWC.contiguous()
    (batch, height, width, _), channels = x_NHWC.shape, weight.shape[0]
    taps = weight.shape[2] * weight.shape[3]
    grad_x_NHWC = x_NHWC.new_empty(x_NHWC.shape if for_x else (0,))
    if x_NHWC.numel() == 0:
        sums_3C = x_NHWC.new_zeros((3, channels) if for_rest else (0,), dtype=torch.float32)
        return grad_x_NHWC, weight.new_zeros(weight.shape if for_weight else (0,)), sums_3C
    parameters, constants = _parameters(weight, bias, norm_weight, norm_bias), _constants(x_NHWC, weight)
    tile = norm_tile(channels, width)
    share = spread(x_NHWC, tile.pixels, 1024)
    sums = x_NHWC.new_empty((share.programs, 3, channels) if for_rest else (0,), dtype=torch.float32)
    grad_conv_NHWC = torch.empty_like(x_NHWC)
    with _device_of(x_NHWC):
        _wrap(kernels.backward_norm_kernel, x_NHWC)[(share.programs,)](
            grad_NHWC, x_NHWC, *parameters, grad_conv_NHWC, sums,
            height, width, batch * height, share.rows, share.strips, eps,
            **constants, ACTIVATION=ACTIVATIONS[activation], HAS_BIAS=bias is not None, SUMS=for_rest,
            PIXELS=tile.pixels, CHANNELS_PADDED=tile.channels, num_warps=tile.warps,
        )  # fmt: skip
    sums_3C = sums.sum(0) if for_rest else sums
    if not for_x and not for_weight:
        return grad_x_NHWC, weight.new_empty(0), sums_3C
    tile = conv_tile(channels, width, taps)
    blocks = triton.cdiv(channels, tile.channels)
    share = spread(x_NHWC, tile.pixels, triton.cdiv(1024, blocks))
    sums = x_NHWC.new_empty((share.programs, channels, taps) if for_weight else (0,), dtype=torch.float32)
    with _device_of(x_NHWC):
        _wrap(kernels.backward_conv_kernel, x_NHWC)[(share.programs, blocks)](
            grad_conv_NHWC, x_NHWC, parameters[0], grad_x_NHWC, sums,
            height, width, batch * height, share.rows, share.strips,
            **constants, GRAD_X=for_x, SUMS=for_weight,
            PIXELS=tile.pixels, CHANNEL_BLOCK=tile.channels, num_warps=tile.warps,
        )  # fmt: skip
    grad_weight = sums.sum(0).view(weight.shape).to(weight.dtype) if for_weight else weight.new_empty(0)
    return grad_x_NHWC, grad_weight, sums_3C


def _narrow(pixels: int, width: int, parts: int = 1) -> int:
    """Not twice as wide as the map; by comparisons alone, with which a width that a compiler doesn't know stays so."""
    while pixels > 1 and pixels * parts >= 2 * width:
        pixels //= 2
    return pixels


def _power_below(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def _parameters(weight: Tensor, bias: Tensor | None, norm_weight: Tensor, norm_bias: Tensor) -> tuple[Tensor, ...]:
    """Weights as (taps, C), which lets neighbouring threads read neighbours; a bias that is not there is not read."""
    weight_KC = weight.reshape(weight.shape[0], -1).t().contiguous()
    norm_weight, norm_bias = norm_weight.contiguous(), norm_bias.contiguous()
    return weight_KC, norm_bias if bias is None else bias.contiguous(), norm_weight, norm_bias


def _constants(x_NHWC: Tensor, weight: Tensor) -> dict[str, Any]:
    _, height, width, _ = x_NHWC.shape
    channels = weight.shape[0]
    return {
        "KERNEL_H": weight.shape[2],
        "KERNEL_W": weight.shape[3],
        "CHANNELS": channels,
        # Indices within an image count in 32 bits where that is enough.
        "WIDE": height * width * channels >= 2**31,
    }


def _wrap(kernel: Any, tensor: Tensor) -> Any:
    """The kernel to launch, or to be written down where a compiler traces."""
    return torch.library.wrap_triton(kernel) if is_traced(tensor) else kernel


def _device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's device the one that kernels are launched on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda and not is_traced(tensor) else nullcontext()
