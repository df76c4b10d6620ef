"""DCNv3 on a CPU by the C++ kernel of cpu.cpp: when it can run, and how the operator calls it."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from internimage.ops.dcnv3.cpu_build import BuildError, find_or_build
from internimage.ops.dcnv3.geometry import DCNv3Geometry
from internimage.ops.dcnv3.reference import Normalize

# As cpu.cpp numbers them.
_NORMALIZE: dict[Normalize, int] = {"none": 0, "softmax": 1, "sigmoid": 2}
INSTRUCTION_SETS = ("plain", "avx2", "avx512")
_INT32 = 2**31


def why_not(value_NHWGD: Tensor) -> str | None:
    """The reason why the kernel can't run on this value, or None; compiles it if need be."""
    if value_NHWGD.device.type != "cpu":
        return f"the tensors are on {value_NHWGD.device.type}"
    if value_NHWGD.shape[1:].numel() >= _INT32:
        return "an image has 2^31 elements or more"
    return _load()


def describe() -> str:
    """The kernel's instruction set and library; only after `why_not` said None."""
    return f"{INSTRUCTION_SETS[int(_ops().instruction_set())]} vectors, from {find_or_build()}"


def forward(
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
    level: int = -1,
) -> Tensor:
    """As `dcnv3_reference`; ``level`` is the most that it may use of `INSTRUCTION_SETS`, -1 for the best."""
    dtype = value_NHWGD.dtype
    value, offset, mask = (_widened(tensor) for tensor in (value_NHWGD, offset_NHWGK2, mask_NHWGK))
    value, offset, mask = value.contiguous(), _rows(offset), _rows(mask)
    settings = _settings(geometry, normalize, offset, mask, level)
    return cast(Tensor, _ops().forward(value, offset, mask, settings, geometry.offset_scale)).to(dtype)


def backward(
    grad_NHWGD: Tensor,
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
    level: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `dcnv3_reference_backward`."""
    dtype = value_NHWGD.dtype
    grad, value, offset, mask = (_widened(t) for t in (grad_NHWGD, value_NHWGD, offset_NHWGK2, mask_NHWGK))
    grad, value, offset, mask = grad.contiguous(), value.contiguous(), _rows(offset), _rows(mask)
    settings = _settings(geometry, normalize, offset, mask, level)
    grads = cast(tuple[Tensor, ...], _ops().backward(grad, value, offset, mask, settings, geometry.offset_scale))
    return grads[0].to(dtype), grads[1].to(dtype), grads[2].to(dtype)


def warn_once(reason: str) -> None:
    """Say that the slow path runs, and what would end that."""
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"DCNv3 runs on the slow reference: {reason}", RuntimeWarning, stacklevel=2)


_warned: set[str] = set()


@cache
def _load() -> str | None:
    try:
        cast(Any, torch.ops).load_library(str(find_or_build()))
    except BuildError as error:
        return str(error)
    except OSError as error:
        return f"the compiled kernel can't be loaded ({str(error).splitlines()[0]})"
    return None


def _ops() -> Any:
    return cast(Any, torch.ops).internimage_cpu


def _widened(tensor: Tensor) -> Tensor:
    # Few processors compute in float16; the kernel has float64, float32 and bfloat16.
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _rows(tensor: Tensor) -> Tensor:
    """The tensor, or a copy, with everything that belongs to one output position side by side.

    Offsets and masks that are slices of one projection's output stay as they are.
    """
    steps, inner = tensor.stride(), tensor[0, 0, 0] if tensor.numel() else tensor
    height, width = tensor.shape[1:3]
    regular = steps[1] == width * steps[2] and steps[0] == height * steps[1]
    return tensor if tensor.numel() and inner.is_contiguous() and regular else tensor.contiguous()


def _settings(geometry: DCNv3Geometry, normalize: Normalize, offset: Tensor, mask: Tensor, level: int) -> list[int]:
    g = geometry
    pairs = (*g.kernel_size, *g.stride, *g.padding, *g.dilation)
    return [*pairs, int(g.remove_center), _NORMALIZE[normalize], offset.stride(2), mask.stride(2), level]
