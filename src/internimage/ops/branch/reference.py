"""The branch in plain PyTorch, forward and backward: any device, any floating dtype.

Shape legend: N batch, H W map, C channels, Kh Kw kernel.
"""

# These operators have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from internimage.ops.dispatch import has_autocast

Activation = Literal["gelu", "relu", "silu"]
_ATEN = cast(Any, torch.ops.aten)
_ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


def branch_reference(
    x_NHWC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str = "gelu",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(layer_norm(convolution(x)))``, computed in float32 at least and rounded once, at the end.

    Args:
        x_NHWC: (N, H, W, C).
        weight: (C, 1, Kh, Kw) of the depth-wise convolution; odd sizes, zeros around the map, stride 1.
        bias: (C,), or None.
        norm_weight, norm_bias: (C,), of the normalisation over C.
        eps: added to the variance.
        activation: ``"gelu"`` (the exact form), ``"relu"`` or ``"silu"``.
        out_dtype: of the result; None for that of x.

    Returns:
        (N, H, W, C), contiguous.

    >>> x, ones = torch.arange(8.0).view(1, 2, 2, 2), torch.ones(2)
    >>> branch_reference(x, torch.ones(2, 1, 1, 1), None, ones, 0 * ones, 0.0, "relu")[0, 0, 0]
    tensor([0., 1.])
    """
    with _without_autocast(x_NHWC):
        _, normed_NHWC = _normed(x_NHWC, weight, bias, eps)
        dtype = normed_NHWC.dtype
        u_NHWC = normed_NHWC * norm_weight.to(dtype) + norm_bias.to(dtype)
        return _ACTIVATIONS[activation](u_NHWC).to(out_dtype or x_NHWC.dtype).contiguous()


def branch_reference_backward(
    grad_NHWC: Tensor,
    x_NHWC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str = "gelu",
    output_mask: Sequence[bool] = (True, True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and weight in their dtypes, and (3, C) those of bias, norm_weight, norm_bias.

    The three are in float32 at least; that of a bias which is not there is what it would be. Results that
    output_mask does not want are empty, (0,).
    """
    with _without_autocast(x_NHWC):
        scale_NHW1, normed_NHWC = _normed(x_NHWC, weight, bias, eps)
        dtype, channels = normed_NHWC.dtype, weight.shape[0]
        gain_C = norm_weight.to(dtype)
        grad_u_NHWC = _activation_backward(grad_NHWC.to(dtype), normed_NHWC * gain_C + norm_bias.to(dtype), activation)
        grad_normed_NHWC = grad_u_NHWC * gain_C
        mean_NHW1 = grad_normed_NHWC.mean(-1, keepdim=True)
        along_NHW1 = (grad_normed_NHWC * normed_NHWC).mean(-1, keepdim=True)
        grad_conv_NHWC = (grad_normed_NHWC - mean_NHW1 - normed_NHWC * along_NHW1) * scale_NHW1
        for_x, for_weight, for_rest = output_mask
        grad_x_NHWC, grad_weight, sums_3C = x_NHWC.new_empty(0), weight.new_empty(0), gain_C.new_empty(0)
        if for_x or for_weight:
            grad_x_NCHW, grad_kernel, _ = _ATEN.convolution_backward(
                grad_conv_NHWC.permute(0, 3, 1, 2), x_NHWC.to(dtype).permute(0, 3, 1, 2), weight.to(dtype), None,
                [1, 1], _padding(weight), [1, 1], False, [0, 0], channels, [for_x, for_weight, False],
            )  # fmt: skip
            if for_x:
                grad_x_NHWC = grad_x_NCHW.permute(0, 2, 3, 1).to(x_NHWC.dtype).contiguous()
            if for_weight:
                grad_weight = grad_kernel.to(weight.dtype).contiguous()
        if for_rest:
            places = (0, 1, 2)
            sums_3C = torch.stack(
                (grad_conv_NHWC.sum(places), (grad_u_NHWC * normed_NHWC).sum(places), grad_u_NHWC.sum(places))
            )
        return grad_x_NHWC, grad_weight, sums_3C


def _normed(x_NHWC: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The reciprocal deviations (N, H, W, 1) of the convolution's result, and itself, normalised."""
    dtype = torch.float64 if x_NHWC.dtype == torch.float64 else torch.float32
    x_NCHW = x_NHWC.to(dtype).permute(0, 3, 1, 2)
    shift_C = None if bias is None else bias.to(dtype)
    conv_NCHW = F.conv2d(x_NCHW, weight.to(dtype), shift_C, padding=_padding(weight), groups=weight.shape[0])
    conv_NHWC = conv_NCHW.permute(0, 2, 3, 1)
    centered_NHWC = conv_NHWC - conv_NHWC.mean(-1, keepdim=True)
    scale_NHW1 = torch.rsqrt(centered_NHWC.square().mean(-1, keepdim=True) + eps)
    return scale_NHW1, centered_NHWC * scale_NHW1


def _padding(weight: Tensor) -> list[int]:
    return [weight.shape[2] // 2, weight.shape[3] // 2]


def _activation_backward(grad: Tensor, u: Tensor, activation: str) -> Tensor:
    if activation == "gelu":
        return _ATEN.gelu_backward(grad, u)
    return _ATEN.silu_backward(grad, u) if activation == "silu" else _ATEN.threshold_backward(grad, u, 0)


def _without_autocast(x: Tensor) -> torch.autocast:
    # What is asked for is the computation in float32, not in autocast's dtype.
    return torch.autocast(x.device.type if has_autocast(x) else "cpu", enabled=False)
