"""Deformable attention as a PyTorch operator, ``internimage::deformable_attention``, and the public function.

::

    deformable_attention(Tensor value, SymInt[] shapes, Tensor points, Tensor weights) -> Tensor
    deformable_attention_backward(Tensor grad, Tensor value, SymInt[] shapes, Tensor points, Tensor weights)
        -> (Tensor, Tensor, Tensor)

On a GPU they are Triton kernels, which ``torch.compile`` sees, on a CPU C++; elsewhere, and in float64 on a GPU, plain
PyTorch. ``shapes`` is (H, W) of each level in turn. Points and weights have the dtype of ``value`` or, with one of 16
bits, float32.
"""

# torch.library and torch.utils.flop_counter are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from internimage.ops.attention.reference import (
    Shapes,
    deformable_attention_reference,
    deformable_attention_reference_backward,
)
from internimage.ops.dcnv3 import backends, cpu, gpu
from internimage.ops.dispatch import autocast_dtype, needs_plain_operators, show_kernels

_FORWARD, _BACKWARD = "internimage::deformable_attention", "internimage::deformable_attention_backward"
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# The sampling points of a query and group that the C++ kernel has room for.
_MOST_POINTS = 4096
# The levels that the Triton kernels have arguments for.
_MOST_LEVELS = 8
_NAME = "deformable attention"


def deformable_attention(value_NSGD: Tensor, shapes: Shapes, points_NQGLP2: Tensor, weights_NQGLP: Tensor) -> Tensor:
    """Sum ``value`` at sampling points on several maps, query by query: ``sum_lp weights_glp * value_lg(points_glp)``.

    Source: Eq. (3), arXiv:2010.04159, without the projections W and the softmax.

    Args:
        value_NSGD: (N, S, G, D), the projected maps of all levels, flattened row by row and one after the other, in G
            groups (heads) of D channels; float64, float32, bfloat16 or float16. Zero outside the map.
        shapes: (H, W) of each of the L levels, in pixels; S is the sum of H * W.
        points_NQGLP2: (N, Q, G, L, P, 2), where to look, as (x, y) relative to each level's map, which is [0, 1] both
            ways: pixel x of W has its middle at (x + 0.5) / W. Any value is safe: a point off the map or without a
            finite position contributes nothing.
        weights_NQGLP: (N, Q, G, L, P), the attention weights, as they are: no softmax is applied.

    The tensors share one device. Points and weights are float64 with a float64 value, else float32, whatever the value
    has; of 16 bits, with which positions would be off by pixels, they are widened first. Under autocast the value is
    cast to its dtype, points and weights stay float32. Coordinates and sums are float32 at least.

    Returns:
        (N, Q, G, D), dtype of the value (after autocast).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, with the expected values.

    >>> value = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0]).view(1, 5, 1, 1)
    >>> points = torch.full((1, 1, 1, 2, 1, 2), 0.5)
    >>> deformable_attention(value, [(2, 2), (1, 1)], points, torch.ones(1, 1, 1, 2, 1)).item()
    12.5
    """
    _check(value_NSGD, shapes, points_NQGLP2, weights_NQGLP)
    dtype = autocast_dtype(value_NSGD)
    value = value_NSGD if dtype is None else value_NSGD.to(dtype)
    points, weights = (
        tensor.float() if tensor.dtype.itemsize == 2 else tensor for tensor in (points_NQGLP2, weights_NQGLP)
    )
    if needs_plain_operators(value, points, weights):
        return deformable_attention_reference(value, shapes, points, weights)
    op = cast(Any, torch.ops.internimage.deformable_attention.default)
    return op(value, [side for size in shapes for side in size], points, weights)


def _check(value: Tensor, shapes: Shapes, points: Tensor, weights: Tensor) -> None:
    if value.dim() != 4 or value.shape[2] < 1 or value.shape[3] < 1:
        raise ValueError(f"value must be (N, S, G, D) with groups and channels, got {tuple(value.shape)}")
    if not shapes or any(len(size) != 2 or size[0] < 1 or size[1] < 1 for size in shapes):
        raise ValueError(f"shapes must be (height, width) of every level, at least 1 each, got {list(shapes)}")
    batch, pixels, groups, _ = value.shape
    if pixels != sum(height * width for height, width in shapes):
        raise ValueError(f"value has {pixels} pixels, but levels of {list(shapes)} have another number in sum")
    if weights.dim() != 5 or weights.shape[4] < 1:
        raise ValueError(f"weights must be (N, Q, G, L, P) with at least one point, got {tuple(weights.shape)}")
    expected = (batch, weights.shape[1], groups, len(shapes), weights.shape[4])
    if weights.shape != expected:
        raise ValueError(f"weights must be (N, Q, G, L, P) = {expected} for this value, got {tuple(weights.shape)}")
    if points.shape != (*expected, 2):
        raise ValueError(f"points must be (N, Q, G, L, P, 2) = {(*expected, 2)}, got {tuple(points.shape)}")
    if not value.device == points.device == weights.device:
        raise ValueError(
            f"value, points and weights must be on one device, got {value.device}, {points.device}, {weights.device}"
        )
    own = (torch.float64,) if value.dtype == torch.float64 else _DTYPES[1:]
    if value.dtype not in _DTYPES or points.dtype not in own or weights.dtype not in own:
        raise ValueError(
            "value must be float64, float32, bfloat16 or float16, points and weights float64 with a float64 value, "
            f"else float32; got {value.dtype}, {points.dtype}, {weights.dtype}"
        )


def _pairs(shapes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(shapes[::2], shapes[1::2], strict=True))


def _forward(value: Tensor, shapes: Sequence[int], points: Tensor, weights: Tensor) -> Tensor:
    if _takes_cpp(value, weights):
        return cast(Any, torch.ops.internimage_cpu.attention.default)(value, shapes, points, weights)
    return deformable_attention_reference(value, _pairs(shapes), points, weights)


def _backward(
    grad: Tensor, value: Tensor, shapes: Sequence[int], points: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if _takes_cpp(value, weights):
        return cast(Any, torch.ops.internimage_cpu.attention_backward.default)(grad, value, shapes, points, weights)
    return deformable_attention_reference_backward(grad, value, _pairs(shapes), points, weights)


def _takes_cpp(value: Tensor, weights: Tensor) -> bool:
    if value.device.type != "cpu" or cpu.is_too_large(value) or weights.shape[3:].numel() > _MOST_POINTS:
        return False
    if reason := cpu.why_not(value):
        backends.warn_once(reason, _NAME)
    return reason is None


def _forward_gpu(value: Tensor, shapes: Sequence[int], points: Tensor, weights: Tensor) -> Tensor:
    if not _takes_triton(value, shapes):
        return deformable_attention_reference(value, _pairs(shapes), points, weights)
    from internimage.ops.attention import triton_launch

    return triton_launch.forward(triton_launch.Problem.of(value, shapes, points, weights))


def _backward_gpu(
    grad: Tensor, value: Tensor, shapes: Sequence[int], points: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if not _takes_triton(value, shapes):
        return deformable_attention_reference_backward(grad, value, _pairs(shapes), points, weights)
    from internimage.ops.attention import triton_launch

    return triton_launch.backward(triton_launch.Problem.of(value, shapes, points, weights), grad)


def _takes_triton(value: Tensor, shapes: Sequence[int]) -> bool:
    reason = _why_no_triton(value, shapes)
    if reason and value.dtype != torch.float64:
        backends.warn_once(reason, _NAME)
    return reason is None


def _why_no_triton(value: Tensor, shapes: Sequence[int]) -> str | None:
    too_many = len(shapes) > 2 * _MOST_LEVELS
    return f"the Triton kernels take {_MOST_LEVELS} levels at most" if too_many else gpu.why_not(value)


def _kernels() -> tuple[Any, ...]:
    from internimage.ops.attention import triton_launch

    return triton_launch.KERNELS


def _fake_forward(value: Tensor, shapes: Sequence[int], points: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty((value.shape[0], weights.shape[1], value.shape[2], value.shape[3]))


def _fake_backward(
    grad: Tensor, value: Tensor, shapes: Sequence[int], points: Tensor, weights: Tensor
) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (value, points, weights))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.shapes, points, weights = inputs
    ctx.save_for_backward(value, points, weights)


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, points, weights = ctx.saved_tensors
    backward = cast(Any, torch.ops.internimage.deformable_attention_backward.default)
    to_value, to_points, to_weights = backward(grad, value, ctx.shapes, points, weights)
    return to_value, None, to_points, to_weights


def _flops(value: Sequence[int], shapes: Any, points: Any, weights: Sequence[int], **kwargs: Any) -> int:
    """As DCNv3's: five multiply-adds a point and channel, and backward eight."""
    return 2 * 5 * math.prod(weights) * value[-1]


def _flops_backward(grad: Any, value: Sequence[int], shapes: Any, points: Any, weights: Any, **kwargs: Any) -> int:
    return 2 * 8 * math.prod(weights) * value[-1]


def _register() -> None:
    inputs = "Tensor value, SymInt[] shapes, Tensor points, Tensor weights"
    torch.library.define(_FORWARD, f"({inputs}) -> Tensor")
    torch.library.define(_BACKWARD, f"(Tensor grad, {inputs}) -> (Tensor, Tensor, Tensor)")
    torch.library.impl(_FORWARD, "CompositeExplicitAutograd", _forward)
    torch.library.impl(_BACKWARD, "CompositeExplicitAutograd", _backward)
    torch.library.impl(_FORWARD, "CUDA", _forward_gpu)
    torch.library.impl(_BACKWARD, "CUDA", _backward_gpu)
    show_kernels(_FORWARD, _forward_gpu, lambda args: _why_no_triton(*args[:2]) is None, _kernels)
    show_kernels(_BACKWARD, _backward_gpu, lambda args: _why_no_triton(*args[1:3]) is None, _kernels)
    torch.library.register_fake(_FORWARD, _fake_forward)
    torch.library.register_fake(_BACKWARD, _fake_backward)
    torch.library.register_autograd(_FORWARD, _autograd, setup_context=_setup_context)
    register_flop_formula(torch.ops.internimage.deformable_attention)(_flops)
    register_flop_formula(torch.ops.internimage.deformable_attention_backward)(_flops_backward)


_register()
