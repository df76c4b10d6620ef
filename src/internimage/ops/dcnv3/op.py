"""DCNv3 as a PyTorch operator: schema, kernels, fake tensors, autograd, FLOPs, autocast, and the public function.

``torch.ops.internimage.dcnv3`` is one opaque node for ``torch.compile`` and ``torch.export``; PyTorch's dispatcher
chooses its kernel by device. Devices without a kernel of their own take the reference. On a GPU compiled graphs hold
the Triton kernels themselves.
"""

# torch.library and torch.utils.flop_counter are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast, get_args

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from internimage.ops.dcnv3 import backends, cpu, gpu
from internimage.ops.dcnv3.geometry import DCNv3Geometry
from internimage.ops.dcnv3.reference import Normalize, dcnv3_reference, dcnv3_reference_backward
from internimage.ops.dispatch import autocast_dtype, needs_plain_operators, show_kernels

_SETTINGS = (
    "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, "
    "float offset_scale, bool remove_center, str normalize"
)
_FORWARD, _BACKWARD = "internimage::dcnv3", "internimage::dcnv3_backward"
_NORMALIZE = get_args(Normalize)
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def dcnv3(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    kernel_size: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    normalize: Normalize = "none",
    backend: str | None = None,
) -> Tensor:
    """Aggregate ``value`` at learned sampling points, group by group: ``sum_k m_gk * x_g(p0 + p_k + dp_gk)``.

    Source: Eq. (2), arXiv:2211.05778, without the projection w.

    Args:
        value: (N, H, W, G, D), the projected input in G groups of D channels. Zero outside the map.
        offset: (N, Ho, Wo, G, K, 2), displacement of each point as (x, y) in pixels, before ``offset_scale``.
            K runs x-major (all rows of the first kernel column first). Any value is safe: a point off the map or
            without a finite position contributes nothing.
        mask: (N, Ho, Wo, G, K), the modulation scalars, or their logits (see ``normalize``).
        kernel_size, stride, padding, dilation: an integer or a (height, width) pair, as for a convolution.
        offset_scale: factor on the kernel grid and the offsets.
        remove_center: K leaves out the middle point (odd kernels).
        normalize: what happens to ``mask``: ``"softmax"`` over K (DCNv3), ``"sigmoid"`` (DCNv2) or ``"none"`` (DCNv4).
        backend: a name from `explain_dcnv3`'s table, for tests and measurements; by default the dispatcher chooses.

    The three tensors share one device and one dtype (float64, float32, bfloat16 or float16); under autocast they are
    cast to its dtype. Coordinates, softmax and sums are float32 at least.

    Returns:
        (N, Ho, Wo, G, D), dtype of ``value``.

    Raises:
        ValueError: shapes, dtypes, devices or settings that do not fit, with the expected values.

    >>> value, mask = torch.ones(1, 4, 4, 2, 3), torch.zeros(1, 4, 4, 2, 9)
    >>> dcnv3(value, torch.zeros(1, 4, 4, 2, 9, 2), mask, normalize="softmax")[0, 1, 1, 0]
    tensor([1., 1., 1.])
    """
    geometry = _geometry(kernel_size, stride, padding, dilation, offset_scale, remove_center)
    return apply(value, offset, mask, geometry, normalize, backend)


def apply(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize = "none",
    backend: str | None = None,
) -> Tensor:
    """`dcnv3` with a geometry made before: for layers, which have one."""
    value, offset, mask = _prepare(value, offset, mask, geometry, normalize)
    _check_backend(backend, value)
    if backend == "reference" or (backend is None and _needs_reference(value, offset, mask)):
        return dcnv3_reference(value, offset, mask, geometry, normalize)
    op = cast(Any, torch.ops.internimage.dcnv3.default)
    if torch.compiler.is_compiling() or _needs_gradients(value, offset, mask):
        return op(value, offset, mask, *geometry.arguments, normalize)
    # Past autograd's kernel, which is Python: ten microseconds.
    with cast(Any, torch)._C._AutoDispatchBelowAutograd():
        return op(value, offset, mask, *geometry.arguments, normalize)


def explain_dcnv3(
    value: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    normalize: Normalize = "none",
    backend: str | None = None,
    **settings: Any,
) -> str:
    """Say which backend these tensors take and why not the others; takes what `dcnv3` takes, and checks it.

    >>> print(explain_dcnv3(torch.zeros(1, 4, 4, 2, 3)))
    DCNv3 on cpu, float32:
      cpu        runs: C++ ...
      reference  could run: plain PyTorch (grid_sample); any device, any floating dtype
    """
    if (offset is None) != (mask is None):
        raise ValueError("give offset and mask, or neither of them")
    geometry = DCNv3Geometry.make(**settings)
    if offset is not None and mask is not None:
        value, offset, mask = _prepare(value, offset, mask, geometry, normalize)
    else:
        value = _autocast(value)
        _check_dtypes(value)
    _check_backend(backend, value)
    return backends.explain(value)


def _needs_gradients(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _needs_reference(*tensors: Tensor) -> bool:
    """Whether only PyTorch's own operators will do, or on a giant image: the C++ kernel counts in 32 bit."""
    if torch.compiler.is_compiling():
        return False
    is_giant = tensors[0].device.type == "cpu" and cpu.is_too_large(tensors[0])
    return is_giant or needs_plain_operators(*tensors)


def _prepare(
    value: Tensor, offset: Tensor, mask: Tensor, geometry: DCNv3Geometry, normalize: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors in autocast's dtype; ``ValueError`` for what does not fit."""
    _check(value, offset, mask, geometry, normalize)
    if autocast_dtype(value) is not None:
        value, offset, mask = _autocast(value), _autocast(offset), _autocast(mask)
    _check_dtypes(value, offset, mask)
    return value, offset, mask


def _check_backend(backend: str | None, value: Tensor) -> None:
    if backend is not None and (reason := backends.why_not(backend, value)):
        raise ValueError(f"backend {backend!r} can't take these tensors: {reason}")


def _check_dtypes(*tensors: Tensor) -> None:
    dtype = tensors[0].dtype
    if dtype not in _DTYPES or any(tensor.dtype != dtype for tensor in tensors):
        found = [tensor.dtype for tensor in tensors]
        raise ValueError(
            "value, offset and mask must share one dtype of float64, float32, bfloat16, float16; "
            f"got {', '.join(map(str, found))}"
        )


def _check(value: Tensor, offset: Tensor, mask: Tensor, geometry: DCNv3Geometry, normalize: str) -> None:
    if value.dim() != 5:
        raise ValueError(f"value must be (N, H, W, G, D), got {tuple(value.shape)}; split the channels into groups")
    if normalize not in _NORMALIZE:
        raise ValueError(f"normalize must be one of {', '.join(_NORMALIZE)}, got {normalize!r}")
    batch, height, width, groups, depth = value.shape
    out_h, out_w = geometry.output_size(height, width)
    if height < 1 or width < 1 or groups < 1 or depth < 1 or out_h < 1 or out_w < 1:
        raise ValueError(
            f"a map of {height} x {width} with {groups} groups of {depth} channels gives no output for {geometry}"
        )
    expected = (batch, out_h, out_w, groups, geometry.num_points)
    if mask.shape != expected:
        raise ValueError(f"mask must be (N, Ho, Wo, G, K) = {expected} for this value, got {tuple(mask.shape)}")
    if offset.shape != (*expected, 2):
        raise ValueError(f"offset must be (N, Ho, Wo, G, K, 2) = {(*expected, 2)}, got {tuple(offset.shape)}")
    if not value.device == offset.device == mask.device:
        raise ValueError(
            f"value, offset and mask must be on one device, got {value.device}, {offset.device}, {mask.device}"
        )


def _autocast(tensor: Tensor) -> Tensor:
    dtype = autocast_dtype(tensor)
    return tensor if dtype is None else tensor.to(dtype)


def _geometry(*settings: Any) -> DCNv3Geometry:
    pairs = settings[:4]
    if (
        type(pairs[0]) is type(pairs[1]) is type(pairs[2]) is type(pairs[3]) is int
        and not torch.compiler.is_compiling()
    ):
        return _known_geometry(*settings)
    # True and 2.0 equal numbers that would be found, and are no kernel sizes; the compiler traces no look-up.
    if torch.compiler.is_compiling() or not all(type(n) is int for pair in pairs for n in _numbers(pair)):
        return DCNv3Geometry.make(*settings)
    return _known_geometry(*map(_numbers, pairs), *settings[4:])


def _numbers(pair: Any) -> tuple[Any, ...]:
    return tuple(cast(Sequence[Any], pair)) if isinstance(pair, tuple | list) else (pair, pair)


# Every layer asks for the same one each time.
_known_geometry = lru_cache(maxsize=256)(DCNv3Geometry.make)


def _forward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
    if _comes_with_kernel(value):
        return cast(Any, torch.ops.internimage.dcnv3.default)(value, offset, mask, *settings)
    return dcnv3_reference(value, offset, mask, _geometry(*settings[:-1]), settings[-1])


def _backward(grad: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    if _comes_with_kernel(value):
        return cast(Any, torch.ops.internimage.dcnv3_backward.default)(grad, value, offset, mask, *settings)
    return dcnv3_reference_backward(grad, value, offset, mask, _geometry(*settings[:-1]), settings[-1])


def _comes_with_kernel(value: Tensor) -> bool:
    """On a CPU the first call ends here: it loads the C++ kernel, to which the dispatcher goes from then on."""
    if value.device.type != "cpu" or cpu.is_too_large(value):
        return False
    if reason := cpu.why_not(value):
        backends.warn_once(reason)
    return reason is None


def _forward_gpu(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
    run = gpu.forward if _takes_triton(value) else dcnv3_reference
    return run(value, offset, mask, _geometry(*settings[:-1]), settings[-1])


def _backward_gpu(grad: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    run = gpu.backward if _takes_triton(value) else dcnv3_reference_backward
    return run(grad, value, offset, mask, _geometry(*settings[:-1]), settings[-1])


def _takes_triton(value: Tensor) -> bool:
    reason = gpu.why_not(value)
    if reason and value.dtype != torch.float64:
        backends.warn_once(reason)
    return reason is None


def _fake_forward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
    batch, _, _, groups, depth = value.shape
    return value.new_empty((batch, offset.shape[1], offset.shape[2], groups, depth))


def _fake_backward(grad: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (value, offset, mask))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    backward = cast(Any, torch.ops.internimage.dcnv3_backward.default)
    return (*backward(grad, *ctx.saved_tensors, *ctx.settings), *(None for _ in ctx.settings))


def _flops(value_shape: Sequence[int], offset_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Two per multiply-add; five multiply-adds a point and channel: four bilinear corners and the modulation."""
    batch, out_h, out_w, groups, points, _ = offset_shape
    return 2 * 5 * batch * out_h * out_w * groups * points * value_shape[-1]


def _flops_backward(
    grad_shape: Sequence[int], value_shape: Sequence[int], offset_shape: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """Eight multiply-adds a point and channel: at each corner one for the scalar product, one for the value."""
    batch, out_h, out_w, groups, points, _ = offset_shape
    return 2 * 8 * batch * out_h * out_w * groups * points * value_shape[-1]


def _register() -> None:
    tensors = "Tensor value, Tensor offset, Tensor mask"
    torch.library.define(_FORWARD, f"({tensors}, {_SETTINGS}) -> Tensor")
    torch.library.define(_BACKWARD, f"(Tensor grad, {tensors}, {_SETTINGS}) -> (Tensor, Tensor, Tensor)")
    torch.library.impl(_FORWARD, "CompositeExplicitAutograd", _forward)
    torch.library.impl(_BACKWARD, "CompositeExplicitAutograd", _backward)
    torch.library.impl(_FORWARD, "CUDA", _forward_gpu)
    torch.library.impl(_BACKWARD, "CUDA", _backward_gpu)
    show_kernels(_FORWARD, _forward_gpu, lambda args: gpu.why_not(args[0]) is None, gpu.kernels)
    show_kernels(_BACKWARD, _backward_gpu, lambda args: gpu.why_not(args[1]) is None, gpu.kernels)
    torch.library.register_fake(_FORWARD, _fake_forward)
    torch.library.register_fake(_BACKWARD, _fake_backward)
    torch.library.register_autograd(_FORWARD, _autograd, setup_context=_setup_context)
    register_flop_formula(torch.ops.internimage.dcnv3)(_flops)
    register_flop_formula(torch.ops.internimage.dcnv3_backward)(_flops_backward)


_register()
