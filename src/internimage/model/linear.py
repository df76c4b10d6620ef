"""Linear layers on a CPU without gradients: one oneDNN call for matrix, bias and activation.

PyTorch's own path copies the bias over the whole output first and passes over the result once more for the activation
(docs/decisions/0007).
"""

# The operator is what torch.compile's CPU backend calls; it has no public name and no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

_DTYPES = (torch.float32, torch.bfloat16)
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.GELU: "gelu", nn.ReLU: "relu", nn.SiLU: "swish"}
_TORCH = cast(Any, torch)
_MKLDNN: Any = _TORCH.ops.mkldnn if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, layer: nn.Module, activation: nn.Module | None = None) -> Tensor:
    """``activation(layer(x))``, by the fastest way that gives the same.

    Hooks, replaced layers (adapters, quantised weights), gradients and compilation all see the modules themselves; only
    a plain ``nn.Linear`` on plain tensors takes the short way, in autocast's dtype where that is on.

    Args:
        x: (..., C).
        layer: usually ``nn.Linear``.
        activation: usually GELU; None for none.

    >>> layer = nn.Linear(4, 3)
    >>> with torch.inference_mode():
    ...     torch.allclose(linear(torch.ones(2, 4), layer, nn.ReLU()), layer(torch.ones(2, 4)).relu())
    True
    """
    if type(layer) is nn.Linear and _is_plain(x, layer) and (activation is None or _is_plain_activation(activation)):
        name = "none" if activation is None else _ACTIVATIONS[type(activation)]
        # With more than two dimensions the call takes a slower way inside.
        rows, weight, bias = _autocast(x.reshape(-1, x.shape[-1])), _autocast(layer.weight), layer.bias
        bias = bias if bias is None else _autocast(bias)  # pyright: ignore[reportUnnecessaryComparison]  # Linear(bias=False)
        out: Tensor = _MKLDNN._linear_pointwise(rows, weight, bias, name, [], "none")
        return out.view(*x.shape[:-1], layer.out_features)
    out = layer(x)
    return out if activation is None else activation(out)


def _is_plain(x: Tensor, layer: nn.Linear) -> bool:
    weight = layer.weight
    return (
        _MKLDNN is not None
        and not torch.compiler.is_compiling()
        and type(x) is Tensor
        and type(weight) is nn.Parameter
        and x.device.type == weight.device.type == "cpu"
        and _autocast_dtype(x) == _autocast_dtype(weight)
        and _autocast_dtype(x) in _DTYPES
        and x.numel() > 0
        and not _needs_gradients(x, weight)
        and not _TORCH.jit.is_tracing()
        and not _TORCH._C._are_functorch_transforms_active()
        and _TORCH.backends.mkldnn.enabled
        and not _has_hooks(layer)
    )


def _autocast_dtype(tensor: Tensor) -> torch.dtype:
    # As PyTorch's own rule for linear layers, leave float64 alone.
    casts = torch.is_autocast_enabled("cpu") and tensor.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if casts else tensor.dtype


def _autocast(tensor: Tensor) -> Tensor:
    return tensor.to(_autocast_dtype(tensor))


def _needs_gradients(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def _is_plain_activation(activation: nn.Module) -> bool:
    # GELU's other form, tanh, is another function.
    exact = not isinstance(activation, nn.GELU) or activation.approximate == "none"
    return type(activation) in _ACTIVATIONS and exact and not _has_hooks(activation)


def _has_hooks(module: nn.Module) -> bool:
    own, every = cast(Any, module), cast(Any, nn.modules.module)
    return bool(
        own._forward_hooks or own._forward_pre_hooks or every._global_forward_hooks or every._global_forward_pre_hooks
    )


def _flops(x_shape: torch.Size, weight_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * x_shape.numel() * weight_shape[0]


if _MKLDNN is not None:
    register_flop_formula(_MKLDNN._linear_pointwise)(_flops)
