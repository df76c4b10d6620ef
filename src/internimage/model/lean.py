"""Layers that keep less for the backward pass; on a CPU in float32 also on oneDNN's faster products.

A block of the network keeps 12.7 maps of C channels instead of 18.7 on a CPU (docs/decisions/0009); on a GPU the
feed-forward layer alone comes here. `fused.py` decides who does. Derivatives of derivatives go through PyTorch's own
operators.
"""

# Functions of autograd and oneDNN's operators have no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

# Of the separable branch: the normalisation's epsilon, the convolution's stride and padding, the activation's name.
Settings = tuple[float, tuple[int, ...], tuple[int, ...], str]

_OPS = cast(Any, torch.ops)
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """``activation(x @ weight.T + bias)`` over the last dimension, by oneDNN; x (..., C) to (..., C')."""
    # With more than two dimensions the call takes a slower way inside.
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    out = _OPS.mkldnn._linear_pointwise.default(rows, weight, bias, activation, [], "none")
    return out.view(*x.shape[:-1], weight.shape[0])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``."""
    return cast(Any, _Linear).apply(x, weight, bias)


def feed_forward(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None, activation: str
) -> Tensor:
    """``linear(activation(linear(x)))``; activation ``"gelu"``, ``"relu"`` or ``"silu"``.

    Keeps what the activation is given, not what it gives: that is computed again. Parameters may be in float32 where x
    is in 16 bits, as autocast has it.
    """
    return cast(Any, _FeedForward).apply(x, weight1, bias1, weight2, bias2, activation)


def depthwise(
    x_NHWC: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor, norm_bias: Tensor, settings: Settings
) -> Tensor:
    """The separable branch, (N, H, W, C) to (N, Ho, Wo, C); keeps its input alone."""
    return cast(Any, _Depthwise).apply(x_NHWC, weight, bias, norm_weight, norm_bias, settings)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad, F.linear)
        x, weight, _ = ctx.saved_tensors
        return _linear_backward(grad, x, weight, ctx.needs_input_grad)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
        activation: str,
    ) -> Tensor:
        hidden = _affine(x, weight1, bias1)
        ctx.save_for_backward(x, weight1, bias1, weight2, bias2, hidden)
        ctx.activation = activation
        return _affine(_ACTIVATIONS[activation](hidden), weight2, bias2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        activate = _ACTIVATIONS[ctx.activation]
        if torch.is_grad_enabled():
            again = _differentiable(ctx, grad, lambda x, w1, b1, w2, b2: _plain(activate(_plain(x, w1, b1)), w2, b2))
            return *again, None
        x, weight1, _, weight2, _, hidden = ctx.saved_tensors
        needs = ctx.needs_input_grad
        active = activate(hidden)
        grad_active, *grads2 = _linear_backward(grad, active, weight2, (True, *needs[3:5]))
        del active
        if any(needs[:3]) and grad_active is not None:
            # In place: new memory costs as much as the computation.
            if ctx.activation == "gelu":
                _OPS.aten.gelu_backward.grad_input(grad_active, hidden, approximate="none", grad_input=grad_active)
            elif ctx.activation == "silu":
                _OPS.aten.silu_backward.grad_input(grad_active, hidden, grad_input=grad_active)
            else:
                grad_active.mul_(hidden > 0)
            return *_linear_backward(grad_active, x, weight1, needs[:3]), *grads2, None
        return None, None, None, *grads2, None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NHWC: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        norm_weight: Tensor,
        norm_bias: Tensor,
        settings: Settings,
    ) -> Tensor:
        ctx.save_for_backward(x_NHWC, weight, bias, norm_weight, norm_bias)
        ctx.settings = settings
        return _OPS.internimage_cpu.branch(x_NHWC, weight, bias, norm_weight, norm_bias, *settings)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        eps, stride, padding, activation = ctx.settings

        def branch(
            x_NHWC: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor, norm_bias: Tensor
        ) -> Tensor:
            groups = weight.shape[0]
            x_NCHW = F.conv2d(x_NHWC.permute(0, 3, 1, 2), weight, bias, stride, padding, groups=groups)
            x_NHWC = F.layer_norm(x_NCHW.permute(0, 2, 3, 1), (groups,), norm_weight, norm_bias, eps)
            return _ACTIVATIONS[activation](x_NHWC)

        return (*_differentiable(ctx, grad, branch), None)


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, the weight and the bias, as far as they are needed."""
    rows = grad.reshape(-1, grad.shape[-1])
    grad_x = _affine(grad, weight.t(), None) if needs[0] else None
    # Here PyTorch's own product is the faster one.
    grad_weight = rows.t() @ x.reshape(-1, x.shape[-1]) if needs[1] else None
    return grad_x, grad_weight, rows.sum(0) if needs[2] else None


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """By oneDNN where that is the faster one."""
    return product(x, weight, bias) if x.is_cpu and x.dtype == torch.float32 else _plain(x, weight, bias)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight.to(x.dtype), bias if bias is None else bias.to(x.dtype))


def _differentiable(ctx: Any, grad: Tensor, function: Callable[..., Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of the function's five inputs or fewer, by computing it again with PyTorch's own operators."""
    create_graph, needs = torch.is_grad_enabled(), ctx.needs_input_grad[:5]
    inputs: list[Any] = list(ctx.saved_tensors[: len(needs)])
    if not create_graph:
        # A graph of its own, of which nothing is left afterwards.
        inputs = [each if each is None else each.detach() for each in inputs]
    wanted = [each for each, needed in zip(inputs, needs, strict=True) if needed]
    with torch.enable_grad():
        if not create_graph:
            for each in wanted:
                each.requires_grad_()
        found = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=create_graph))
    return tuple(next(found) if needed else None for needed in needs)
