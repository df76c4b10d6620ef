"""The branch as PyTorch operators: ``internimage::branch`` and ``internimage::branch_backward``.

::

    branch(Tensor x, Tensor weight, Tensor? bias, Tensor norm_weight, Tensor norm_bias,
           float eps, str activation="gelu", ScalarType? out_dtype=None) -> Tensor
    branch_backward(Tensor grad, Tensor x, Tensor weight, Tensor? bias, Tensor norm_weight, Tensor norm_bias,
                    float eps, str activation, bool[] output_mask) -> (Tensor, Tensor, Tensor)

On a GPU they are Triton kernels, which ``torch.compile`` sees; elsewhere, and in float64, plain PyTorch.
"""

# torch.library is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, get_args

import torch
from torch import Tensor

from internimage.ops import dispatch
from internimage.ops.branch.reference import Activation, branch_reference, branch_reference_backward

_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ACTIVATIONS = get_args(Activation)
# The backward kernel writes out every tap, with a sum for each: more would take minutes to compile and fill the GPU's
# registers.
MOST_TAPS = 49


@torch.library.custom_op("internimage::branch", mutates_args=())
def branch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str = "gelu",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(layer_norm(convolution(x)))``: depth-wise, stride 1, zeros around the map, channels-last.

    Sums, normalisation and activation are in float32 (float64 for float64), whatever the dtypes; autocast does nothing
    here (`depthwise_branch` follows it).

    Args:
        x: (N, H, W, C), float64, float32, bfloat16 or float16.
        weight: (C, 1, Kh, Kw), odd sizes; like all parameters of the dtype of x, or float32 for 16 bits.
        bias: (C,), or None.
        norm_weight, norm_bias: (C,).
        eps: added to the variance.
        activation: ``"gelu"`` (the exact form), ``"relu"`` or ``"silu"``.
        out_dtype: of the result; None for that of x.

    Returns:
        (N, H, W, C), contiguous.

    Raises:
        ValueError: shapes or settings that do not fit.
    """
    _check(x, weight, bias, norm_weight, norm_bias, activation)
    if why_not(x, weight) is None:
        from internimage.ops.branch import triton_launch

        return triton_launch.forward(x, weight, bias, norm_weight, norm_bias, eps, activation, out_dtype)
    return branch_reference(x, weight, bias, norm_weight, norm_bias, eps, activation, out_dtype)


@torch.library.custom_op("internimage::branch_backward", mutates_args=())
def branch_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and weight, and (3, C) of bias, norm_weight and norm_bias, the last in float32 at least.

    Which of the three results are wanted, output_mask says; the others are empty, (0,), and little or nothing is done
    for them. Nothing but the inputs is kept for it: the convolution is computed again. Equal inputs give equal bits.
    """
    if why_not(x, weight) is None:
        from internimage.ops.branch import triton_launch

        return triton_launch.backward(grad, x, weight, bias, norm_weight, norm_bias, eps, activation, output_mask)
    return branch_reference_backward(grad, x, weight, bias, norm_weight, norm_bias, eps, activation, output_mask)


def depthwise_branch(
    x_NHWC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: Activation = "gelu",
) -> Tensor:
    """`branch` with the result in autocast's dtype where autocast is on.

    The inputs are read as they are: a float32 map is not rounded before the convolution, as autocast would.

    >>> x, ones = torch.ones(1, 5, 4, 8), torch.ones(8)
    >>> depthwise_branch(x, torch.ones(8, 1, 3, 3), None, ones, ones, 1e-6).shape
    torch.Size([1, 5, 4, 8])
    """
    out_dtype = dispatch.autocast_dtype(x_NHWC)
    op = cast(Any, torch.ops.internimage.branch.default)
    tensors = x_NHWC, weight, bias, norm_weight, norm_bias
    graded = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in tensors)
    if graded or torch.compiler.is_compiling():
        return op(*tensors, eps, activation, out_dtype)
    # Past autograd's kernel, which is Python.
    with cast(Any, torch)._C._AutoDispatchBelowAutograd():
        return op(*tensors, eps, activation, out_dtype)


def why_not(x: Tensor, weight: Tensor) -> str | None:
    """The reason why the Triton kernels can't take these tensors, or None if they can.

    >>> why_not(torch.zeros(1, 5, 4, 8), torch.zeros(8, 1, 3, 3))
    'the tensors are on cpu'
    """
    if x.is_cuda and (x.dtype not in _KERNEL_DTYPES or weight.dtype not in _KERNEL_DTYPES):
        return f"the kernels are for float32, bfloat16 and float16, not {x.dtype} with {weight.dtype}"
    if x.is_cuda and weight.shape[2] * weight.shape[3] > MOST_TAPS:
        return f"the kernels are for up to {MOST_TAPS} taps, not {weight.shape[2]} x {weight.shape[3]}"
    return dispatch.why_no_triton(x.device)


def _check(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor, norm_bias: Tensor, activation: str
) -> None:
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            f"x must be (N, H, W, C) and weight (C, 1, Kh, Kw), got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    channels = x.shape[3]
    if weight.shape[0] != channels or weight.shape[1] != 1 or not weight.shape[2] % 2 or not weight.shape[3] % 2:
        raise ValueError(f"weight must be ({channels}, 1, Kh, Kw) with odd sizes, got {tuple(weight.shape)}")
    for name, each in (("bias", bias), ("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if each is not None and each.shape != (channels,):
            raise ValueError(f"{name} must be ({channels},), got {tuple(each.shape)}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")


def _fake_branch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    activation: str = "gelu",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    _check(x, weight, bias, norm_weight, norm_bias, activation)
    return x.new_empty(x.shape, dtype=out_dtype or x.dtype)


def _fake_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    for_x, for_weight, for_rest = rest[-1]
    return (
        x.new_empty(x.shape if for_x else (0,)),
        weight.new_empty(weight.shape if for_weight else (0,)),
        x.new_empty(
            (3, weight.shape[0]) if for_rest else (0,),
            dtype=torch.float64 if x.dtype == torch.float64 else torch.float32,
        ),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.settings = inputs[5:7]


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    backward = cast(Any, torch.ops.internimage.branch_backward.default)
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:5]
    output_mask = [needed[0], needed[1], any(needed[2:])]
    grad_x, grad_weight, sums_3C = backward(grad, *tensors, *ctx.settings, output_mask)
    rest = [sums_3C[row].to(tensors[2 + row].dtype) if needed[2 + row] else None for row in range(3)]
    return (grad_x if needed[0] else None, grad_weight if needed[1] else None, *rest, None, None, None)


def _kernels() -> tuple[Any, ...]:
    from internimage.ops.branch import triton_launch

    return triton_launch.KERNELS


branch.register_fake(_fake_branch)
branch_backward.register_fake(_fake_backward)
branch.register_autograd(_autograd, setup_context=_setup_context)
dispatch.show_kernels(
    "internimage::branch", cast(Any, branch)._init_fn, lambda args: why_not(*args[:2]) is None, _kernels
)
dispatch.show_kernels(
    "internimage::branch_backward",
    cast(Any, branch_backward)._init_fn,
    lambda args: why_not(*args[1:3]) is None,
    _kernels,
)
