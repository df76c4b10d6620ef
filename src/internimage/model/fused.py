"""Several layers in one call, where that gives the same: on a CPU in C++ and oneDNN, the branch on a GPU in Triton.

Hooks, replaced layers (adapters, quantised weights), compilation, FLOP counters all see the modules themselves; only
plain layers on plain tensors take the short way (docs/decisions/0007), with gradients that of `lean.py`.
"""

# These operators and questions have no public names and no types.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module

from internimage.model import lean
from internimage.ops import dispatch
from internimage.ops.branch import MOST_TAPS, depthwise_branch
from internimage.ops.dcnv3 import cpu

_TORCH, _C = cast(Any, torch), cast(Any, torch._C)
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# oneDNN has no product in bfloat16 for CPUs without AVX-512 or its like, and says so only where one is tried.
_HAS_BF16 = _HAS_ONEDNN and bool(_TORCH.ops.mkldnn._is_mkldnn_bf16_supported())
_LINEAR_DTYPES = (torch.float32, torch.bfloat16) if _HAS_BF16 else (torch.float32,)
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
    if torch.compiler.is_compiling():
        if _compiles(x, layer, activation) and type(layer) is nn.Linear:
            name = "none" if activation is None else _ACTIVATIONS[type(activation)][0]
            return _TORCH.ops.internimage.linear.default(x, layer.weight, layer.bias, name)
        out = layer(x)
        return out if activation is None else activation(out)
    if not _is_plain_linear(x, layer, activation):
        out = layer(x)
        return out if activation is None else activation(out)
    weight, bias = cast(Tensor, layer._parameters["weight"]), layer._parameters["bias"]
    if _is_graded(x, layer):
        out = lean.linear(x, weight, bias)
        return out if activation is None else activation(out)
    wanted = _autocast_dtype(x)
    if x.dtype != wanted or weight.dtype != wanted:
        x, weight, bias = x.to(wanted), weight.to(wanted), bias if bias is None else bias.to(wanted)
    return lean.product(x, weight, bias, "none" if activation is None else _ACTIVATIONS[type(activation)][0])


def feed_forward(x: Tensor, layer1: nn.Module, activation: nn.Module, layer2: nn.Module) -> Tensor:
    """``layer2(activation(layer1(x)))``; in training the activation's result is not kept but computed again.

    >>> with torch.inference_mode():
    ...     feed_forward(torch.ones(2, 4), nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3)).shape
    torch.Size([2, 3])
    """
    if (
        not torch.compiler.is_compiling()
        and _is_graded(x, layer1, layer2)
        and (
            _keeps_less_on_gpu(x, layer1, activation, layer2)
            or (_is_plain_linear(x, layer1, activation) and _is_plain_linear(x, layer2, activation))
        )
    ):
        first, second = cast(Any, layer1), cast(Any, layer2)
        dtype = dispatch.autocast_dtype(x)
        x = x if dtype is None else x.to(dtype)
        return lean.feed_forward(
            x, first.weight, first.bias, second.weight, second.bias, _ACTIVATIONS[type(activation)][1]
        )
    return linear(linear(x, layer1, activation), layer2)


def depthwise(x_NHWC: Tensor, conv: nn.Module, norm: nn.Module, activation: nn.Module) -> Tensor:
    """``activation(norm(conv(x)))`` of a depth-wise convolution and a layer normalisation, channels-last, in one pass.

    Under autocast it takes the map in the dtype it comes in; on a GPU `deform.DCNv3` has rounded it before.

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
    if _takes_triton(x_NHWC, conv, norm, activation):
        first, second = cast(Any, conv), cast(Any, norm)
        parameters = first.weight, first.bias, second.weight, second.bias
        return depthwise_branch(x_NHWC, *parameters, second.eps, cast(Any, _ACTIVATIONS[type(activation)][1]))
    if torch.compiler.is_compiling():
        short = (
            type(conv) is nn.Conv2d
            and type(norm) is nn.LayerNorm
            and _compiles(x_NHWC, conv, activation)
            and _is_depthwise(x_NHWC, conv, norm)
            and _has_kernel()
        )
    else:
        short = (
            type(conv) is nn.Conv2d
            and type(norm) is nn.LayerNorm
            and _is_plain_activation(activation)
            and _are_plain(x_NHWC, conv, norm)
            and _is_depthwise(x_NHWC, conv, norm)
            and cpu.why_not(x_NHWC) is None
        )
    if not short:
        return activation(norm(conv(x_NHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
    assert isinstance(conv, nn.Conv2d)  # for the type checker, as the next
    assert isinstance(norm, nn.LayerNorm)
    settings = norm.eps, conv.stride, cast("tuple[int, ...]", conv.padding), _ACTIVATIONS[type(activation)][1]
    parameters = conv.weight, conv.bias, norm.weight, norm.bias
    if not torch.compiler.is_compiling() and _is_graded(x_NHWC, conv, norm):
        return lean.depthwise(x_NHWC, *parameters, settings)
    return _TORCH.ops.internimage_cpu.branch(x_NHWC, *parameters, *settings)


def _compiles(x: Tensor, layer: nn.Module, activation: nn.Module | None) -> bool:
    """Whether these calls may stand in a compiled graph: not in one for export, and without gradients.

    Inductor calls oneDNN with an activation only for frozen weights.
    """
    weight = layer._parameters.get("weight")
    return (
        not _is_exporting()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _HAS_ONEDNN
        and x.device.type == "cpu"
        and x.numel() > 0
        and weight is not None
        and x.dtype == weight.dtype
        and x.dtype in _LINEAR_DTYPES
        and (activation is None or _is_plain_activation(activation))
        and not _is_watched(layer)
    )


def _is_exporting() -> bool:
    # The public question, is_exporting, is true in every graph that PyTorch 2.11 traces.
    return cast(Any, torch.compiler)._is_exporting_flag


@torch.compiler.assume_constant_result
def _has_kernel() -> bool:
    return cpu.why_not(torch.empty(1, 1, 1, 1, 1)) is None


def _takes_triton(x_NHWC: Tensor, conv: nn.Module, norm: nn.Module, activation: nn.Module) -> bool:
    """Whether the branch is one operator on this GPU: plain layers nobody watches, stride 1, size kept.

    Exported programs keep the layers: they may run elsewhere.
    """
    if not x_NHWC.is_cuda or type(conv) is not nn.Conv2d or type(norm) is not nn.LayerNorm:
        return False
    if torch.compiler.is_compiling():
        watched = _is_exporting() or any(_is_watched(layer) for layer in (conv, norm))
    else:
        watched = not _are_unwatched(x_NHWC, conv, norm) or _is_dual()
    kernel = conv.kernel_size
    return (
        not watched
        and _is_plain_activation(activation)
        and _is_depthwise(x_NHWC, conv, norm)
        and conv.stride == (1, 1)
        and kernel[0] % 2 == kernel[1] % 2 == 1
        and kernel[0] * kernel[1] <= MOST_TAPS
        and conv.padding == (kernel[0] // 2, kernel[1] // 2)
        and x_NHWC.dtype != torch.float64
        and _has_triton()
    )


@torch.compiler.assume_constant_result
def _has_triton() -> bool:
    return dispatch.why_no_triton(torch.device("cuda", torch.cuda.current_device())) is None


def _keeps_less_on_gpu(x: Tensor, layer1: nn.Module, activation: nn.Module, layer2: nn.Module) -> bool:
    """Whether a GPU has these two layers, nobody watches them, and autocast or nobody has to change a dtype."""
    if not x.is_cuda or not type(layer1) is type(layer2) is nn.Linear or not _is_plain_activation(activation):
        return False
    dtypes = {each.dtype for layer in (layer1, layer2) for each in layer._parameters.values() if each is not None}
    is_one = dispatch.autocast_dtype(x) is not None or dtypes == {x.dtype}
    return is_one and _are_unwatched(x, layer1, layer2) and not _is_dual()


def _is_dual() -> bool:
    """Forward-mode derivatives, which know PyTorch's own operators only."""
    return cast(Any, forward_ad)._current_level >= 0


def _is_plain_linear(x: Tensor, layer: nn.Module, activation: nn.Module | None) -> bool:
    if (
        type(layer) is not nn.Linear
        or not _HAS_ONEDNN
        or not _C._get_mkldnn_enabled()
        or (activation is not None and not _is_plain_activation(activation))
        or not _are_plain(x, layer)
    ):
        return False
    dtype = _autocast_dtype(x)
    return dtype in _LINEAR_DTYPES and dtype == _autocast_dtype(cast(Tensor, layer._parameters["weight"]))


def is_idle(dropout: nn.Module) -> bool:
    """Whether a dropout layer does nothing, and nobody watches it."""
    return type(dropout) is nn.Dropout and not (dropout.training and dropout.p > 0) and not _is_watched(dropout)


def _is_watched(layer: nn.Module) -> bool:
    own = cast(Any, layer)
    return bool(own._forward_hooks or own._forward_pre_hooks or own._backward_hooks or own._backward_pre_hooks)


def _is_graded(x: Tensor, *layers: nn.Module) -> bool:
    if not torch.is_grad_enabled():
        return False
    parameters = (each for layer in layers for each in layer._parameters.values() if each is not None)
    return x.requires_grad or any(each.requires_grad for each in parameters)


def _are_plain(x: Tensor, *layers: nn.Module) -> bool:
    """Whether nobody watches these layers, on a CPU, and `lean` knows what to keep."""
    if not x.is_cpu or not _are_unwatched(x, *layers):
        return False
    return not _is_graded(x, *layers) or (
        not torch.is_autocast_enabled("cpu")
        and x.dtype == torch.float32
        and all(each is None or each.dtype == torch.float32 for layer in layers for each in layer._parameters.values())
    )


def _are_unwatched(x: Tensor, *layers: nn.Module) -> bool:
    """Whether nobody watches these layers or gave them parameters of another kind."""
    if type(x) is not Tensor or x.numel() == 0:
        return False
    # FSDP puts views of its flat parameter in their place.
    kinds = (nn.Parameter, Tensor) if x.is_cuda else (nn.Parameter,)
    for layer in layers:
        if _is_watched(layer):
            return False
        for parameter in layer._parameters.values():
            if parameter is not None and (type(parameter) not in kinds or parameter.device != x.device):
                return False
    return not (
        nn_module._global_forward_hooks
        or nn_module._global_forward_pre_hooks
        or nn_module._global_backward_hooks
        or nn_module._global_backward_pre_hooks
        or _C._len_torch_dispatch_stack()
        or _C._are_functorch_transforms_active()
        or _C._get_tracing_state()
    )


def _is_plain_activation(activation: nn.Module) -> bool:
    # GELU's other form, tanh, is another function.
    exact = not isinstance(activation, nn.GELU) or activation.approximate == "none"
    return type(activation) in _ACTIVATIONS and exact and not _is_watched(activation)


def _is_depthwise(x_NHWC: Tensor, conv: nn.Conv2d, norm: nn.LayerNorm) -> bool:
    channels, dtype, padding = conv.groups, conv.weight.dtype, conv.padding
    if x_NHWC.dim() != 4 or isinstance(padding, str) or cast(Any, norm).bias is None:
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


def _fake_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


# For compiled graphs, in which Inductor takes oneDNN's own operator with constant weights alone.
_LIBRARY = torch.library.Library("internimage", "FRAGMENT")
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias, str activation) -> Tensor")
_LIBRARY.impl("linear", lean.product, "CPU")
_TORCH.library.register_fake("internimage::linear", _fake_linear, lib=_LIBRARY)
