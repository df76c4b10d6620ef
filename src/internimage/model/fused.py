"""Several layers in one call, where that gives the same: on a CPU, without gradients.

Hooks, replaced layers (adapters, quantised weights), gradients, compilation, FLOP counters all see the modules
themselves; only plain layers on plain tensors take the short way (docs/decisions/0007).
"""

# These operators and questions have no public names and no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from internimage.ops.dcnv3 import cpu

_TORCH, _C = cast(Any, torch), cast(Any, torch._C)
_LINEAR: Any = _TORCH.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None
_LINEAR_DTYPES = (torch.float32, torch.bfloat16)
# Activation modules and their names to oneDNN and to our own kernel.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, str]] = {
    nn.GELU: ("gelu", "gelu"),
    nn.ReLU: ("relu", "relu"),
    nn.SiLU: ("swish", "silu"),
}


def linear(x: Tensor, layer: nn.Module, activation: nn.Module | None = None) -> Tensor:
    """``activation(layer(x))``: matrix, bias and activation in one oneDNN call, in autocast's dtype where that is on.

    PyTorch's own path copies the bias over the whole output first and passes over the result once more for the
    activation.

    Args:
        x: (..., C).
        layer: usually ``nn.Linear``.
        activation: usually GELU; None for none.

    >>> layer = nn.Linear(4, 3)
    >>> with torch.inference_mode():
    ...     torch.allclose(linear(torch.ones(2, 4), layer, nn.ReLU()), layer(torch.ones(2, 4)).relu())
    True
    """
    if (
        not torch.compiler.is_compiling()
        and type(layer) is nn.Linear
        and (activation is None or _is_plain_activation(activation))
        and _are_plain(x, layer)
        and _C._get_mkldnn_enabled()
    ):
        weight, bias = layer._parameters["weight"], layer._parameters["bias"]
        assert weight is not None  # for the type checker
        wanted = _autocast_dtype(x)
        if wanted in _LINEAR_DTYPES and wanted == _autocast_dtype(weight) and _LINEAR is not None:
            # With more than two dimensions the call takes a slower way inside.
            rows = x.reshape(-1, x.shape[-1])
            if rows.dtype != wanted or weight.dtype != wanted:
                rows, weight, bias = rows.to(wanted), weight.to(wanted), bias if bias is None else bias.to(wanted)
            name = "none" if activation is None else _ACTIVATIONS[type(activation)][0]
            out: Tensor = _LINEAR(rows, weight, bias, name, [], "none")
            return out.view(*x.shape[:-1], layer.out_features)
    out = layer(x)
    return out if activation is None else activation(out)


def depthwise(x_NHWC: Tensor, conv: nn.Module, norm: nn.Module, activation: nn.Module) -> Tensor:
    """``activation(norm(conv(x)))`` of a depth-wise convolution and a layer normalisation, channels-last, in one pass.

    Under autocast it computes in the input's own dtype, which is more exact and saves the conversions.

    Args:
        x_NHWC: (N, H, W, C).
        conv: usually a depth-wise ``nn.Conv2d``.
        norm: usually ``nn.LayerNorm`` over C.
        activation: usually GELU.

    Returns:
        (N, Ho, Wo, C).

    >>> conv, norm = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.LayerNorm(4)
    >>> with torch.inference_mode():
    ...     depthwise(torch.ones(1, 5, 6, 4), conv, norm, nn.GELU()).shape
    torch.Size([1, 5, 6, 4])
    """
    if (
        not torch.compiler.is_compiling()
        and type(conv) is nn.Conv2d
        and type(norm) is nn.LayerNorm
        and _is_plain_activation(activation)
        and _are_plain(x_NHWC, conv, norm)
        and _is_depthwise(x_NHWC, conv, norm)
        and cpu.why_not(x_NHWC) is None
    ):
        name = _ACTIVATIONS[type(activation)][1]
        parameters = conv.weight, conv.bias, norm.weight, norm.bias, norm.eps
        return _TORCH.ops.internimage_cpu.branch(x_NHWC, *parameters, conv.stride, conv.padding, name)
    return activation(norm(conv(x_NHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))


def _are_plain(x: Tensor, *layers: nn.Module) -> bool:
    """Whether nobody watches these layers, differentiates through them or gave them parameters of another kind."""
    graded = torch.is_grad_enabled()
    if type(x) is not Tensor or not x.is_cpu or x.numel() == 0 or (graded and x.requires_grad):
        return False
    for layer in layers:
        if layer._forward_hooks or layer._forward_pre_hooks:
            return False
        for parameter in layer._parameters.values():
            if parameter is None:
                continue
            if type(parameter) is not nn.Parameter or not parameter.is_cpu or (graded and parameter.requires_grad):
                return False
    return not (
        nn_module._global_forward_hooks
        or nn_module._global_forward_pre_hooks
        or _C._len_torch_dispatch_stack()
        or _C._are_functorch_transforms_active()
        or _C._get_tracing_state()
    )


def _is_plain_activation(activation: nn.Module) -> bool:
    # GELU's other form, tanh, is another function.
    exact = not isinstance(activation, nn.GELU) or activation.approximate == "none"
    watched = activation._forward_hooks or activation._forward_pre_hooks
    return type(activation) in _ACTIVATIONS and exact and not watched


def _is_depthwise(x_NHWC: Tensor, conv: nn.Conv2d, norm: nn.LayerNorm) -> bool:
    channels, dtype, padding = conv.groups, conv.weight.dtype, conv.padding
    if x_NHWC.dim() != 4 or isinstance(padding, str) or norm._parameters["bias"] is None:
        return False
    (height, width), kernel = x_NHWC.shape[1:3], conv.kernel_size
    return (
        x_NHWC.shape[3] == channels == conv.in_channels == conv.out_channels
        and norm.normalized_shape == (channels,)
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and height + 2 * padding[0] >= kernel[0]
        and width + 2 * padding[1] >= kernel[1]
        # As PyTorch's normalisation: parameters of the input's dtype, or of float32 for 16 bits.
        and (dtype == x_NHWC.dtype or (dtype == torch.float32 and x_NHWC.dtype in (torch.bfloat16, torch.float16)))
        and all(each is None or each.dtype == dtype for each in (conv.bias, norm.weight, norm.bias))
    )


def _autocast_dtype(tensor: Tensor) -> torch.dtype:
    # As PyTorch's own rule for linear layers, leave float64 alone.
    if torch.is_autocast_enabled("cpu") and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype("cpu")
    return tensor.dtype
