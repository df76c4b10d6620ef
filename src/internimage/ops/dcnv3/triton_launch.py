"""Launching DCNv3's Triton kernels: memory layouts, grids, index widths, devices."""

# Triton has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from internimage.ops.dcnv3 import gpu, triton_tuning
from internimage.ops.dcnv3.geometry import DCNv3Geometry
from internimage.ops.dcnv3.reference import Normalize
from internimage.ops.dcnv3.triton_kernels.backward import backward_kernel
from internimage.ops.dcnv3.triton_kernels.forward import forward_kernel

# As triton_kernels/sampling.py numbers them.
_NORMALIZE = {"softmax": 0, "sigmoid": 1, "none": 2}
_INT32 = 2**31
# The third dimension of a grid ends here.
_IMAGES = 65535
# Wide enough for windows to overlap, narrow enough for the rows above to stay in the first cache.
_STRIPS = (8, 7, 6, 5, 4)
# Of torch.library.wrap_triton: a kernel in, something that a graph can hold out.
Wrap = Callable[[Any], Any]


def forward(
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
    wrap: Wrap | None = None,
) -> Tensor:
    """Eq. (2), arXiv:2211.05778, as `dcnv3_reference`: float32, bfloat16 or float16 on a GPU.

    ``wrap`` is ``torch.library.wrap_triton`` while a graph is traced.
    """
    value, offset, mask = value_NHWGD.contiguous(), _in_pairs(offset_NHWGK2), _in_rows(mask_NHWGK)
    out = value.new_empty((value.shape[0], *mask.shape[1:4], value.shape[4]))
    _launch(forward_kernel, "forward", (value, offset, mask, out), (value, offset, mask), geometry, normalize, wrap)
    return out


def backward(
    grad_NHWGD: Tensor,
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
    wrap: Wrap | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward` for value, offset and mask: their dtypes, contiguous; nothing but the inputs is kept.

    The value's gradient is summed in float32, in an order that changes from run to run.
    """
    value, offset, mask = value_NHWGD.contiguous(), _in_pairs(offset_NHWGK2), _in_rows(mask_NHWGK)
    grad_value = torch.zeros(value.shape, dtype=torch.float32, device=value.device)
    grad_offset, grad_mask = offset.new_empty(offset.shape), mask.new_empty(mask.shape)
    tensors = (grad_NHWGD.contiguous(), value, offset, mask, grad_value, grad_offset, grad_mask)
    _launch(backward_kernel, "backward", tensors, (value, offset, mask), geometry, normalize, wrap, SCATTER=True)
    return grad_value.to(value.dtype), grad_offset, grad_mask


def _launch(
    kernel: Any,
    kind: str,
    tensors: tuple[Tensor, ...],
    inputs: tuple[Tensor, Tensor, Tensor],
    geometry: DCNv3Geometry,
    normalize: Normalize,
    wrap: Wrap | None,
    **constants: Any,
) -> None:
    value, offset, mask = inputs
    batch = value.shape[0]
    if batch == 0:
        return
    if batch > _IMAGES:
        for start in range(0, batch, _IMAGES):
            part = slice(start, start + _IMAGES)
            parts = tuple(tensor[part] for tensor in tensors)
            _launch(kernel, kind, parts, (value[part], offset[part], mask[part]), geometry, normalize, wrap, **constants)
        return
    _, height, width, groups, depth = value.shape
    out_height, out_width, points = mask.shape[1], mask.shape[2], mask.shape[4]
    shape = triton_tuning.ShapeClass(kind, value.element_size(), depth, points)
    strip = _strip(out_width)
    constants |= _constants(shape, geometry, normalize, (value, offset, mask)) | {"STRIP": strip}
    sizes = (height, width, out_height, out_width, groups, _row_stride(offset), _row_stride(mask))

    def grid(chosen: dict[str, Any]) -> tuple[Any, Any, Any]:
        rows = out_height * strip * groups
        return triton.cdiv(rows, chosen["ROWS"]), triton.cdiv(out_width, strip), batch

    kernel, config = _configure(kernel, shape, value, wrap)
    with torch.cuda.device(value.device) if wrap is None and value.is_cuda else nullcontext():
        kernel[grid](*tensors, *sizes, *_window(geometry), **constants, **config)


def _configure(kernel: Any, shape: triton_tuning.ShapeClass, value: Tensor, wrap: Wrap | None) -> tuple[Any, dict[str, Any]]:
    """The kernel, with a tuner around it where nothing is known about this class of shapes; and what is chosen."""
    architecture = gpu.architecture(value.device) if value.is_cuda else "interpreter"
    config = triton_tuning.choose(shape, architecture)
    # A tuner launches and waits, which a graph under capture can't; and what it finds may change from run to run.
    fixed = not value.is_cuda or torch.are_deterministic_algorithms_enabled() or (
        wrap is None and torch.cuda.is_current_stream_capturing()
    )
    if config is None and fixed:
        config = triton_tuning.default(shape, architecture)
    if config is None:
        kernel = triton_tuning.autotuned(kernel, shape, architecture)
    chosen = {} if config is None else {"ROWS": config.rows, "num_warps": config.num_warps}
    return (kernel if wrap is None else wrap(kernel)), chosen


def _constants(
    shape: triton_tuning.ShapeClass, geometry: DCNv3Geometry, normalize: Normalize, inputs: tuple[Tensor, ...]
) -> dict[str, Any]:
    kernel_h, kernel_w = geometry.kernel_size
    return {
        "KERNEL_H": kernel_h,
        # Never reached where no point is left out.
        "CENTER": (kernel_h * kernel_w) // 2 if geometry.remove_center else kernel_h * kernel_w,
        "POINTS": shape.points,
        "NORMALIZE": _NORMALIZE[normalize],
        "DEPTH": shape.depth,
        "DEPTH_PADDED": shape.depth_padded,
        "WIDE": any(tensor.shape[1] * tensor.stride(1) >= _INT32 for tensor in inputs),
        "UNROLL": shape.points <= triton_tuning.UNROLLED_POINTS,
    }


def _window(geometry: DCNv3Geometry) -> tuple[int | float, ...]:
    """Strides, a window's first point, the way to the next and the factor on offsets; (y, x) where there are two."""
    scale, padding, dilation, center = geometry.offset_scale, geometry.padding, geometry.dilation, geometry.center
    starts = (float(c - p - scale * c) for c, p in zip(center, padding, strict=True))
    steps = (float(scale * d) for d in dilation)
    return (*geometry.stride, *starts, *steps, float(scale))


def _strip(out_width: int) -> int:
    """Columns of a strip: those that leave the fewest programs without work."""
    if not isinstance(out_width, int):
        return _STRIPS[0]  # a size that a traced graph leaves open
    if out_width <= _STRIPS[0]:
        return out_width
    return min(_STRIPS, key=lambda strip: -out_width % strip)


def _row_stride(tensor: Tensor) -> int:
    """Elements from one output position to the next."""
    return tensor.stride(2)


def _in_rows(tensor: Tensor) -> Tensor:
    """The tensor itself if positions lie at equal distances and each is dense, as slices of one projection do."""
    inner = 1
    for size, stride in zip(reversed(tensor.shape[3:]), reversed(tensor.stride()[3:]), strict=True):
        if stride != inner:
            return tensor.contiguous()
        inner *= size
    _, rows, columns = tensor.shape[:3]
    row_stride = tensor.stride(2)
    if tensor.stride(1) != columns * row_stride or tensor.stride(0) != rows * columns * row_stride:
        return tensor.contiguous()
    return tensor


def _in_pairs(offset_NHWGK2: Tensor) -> Tensor:
    """As `_in_rows`; (x, y) must also be readable in one load."""
    offset = _in_rows(offset_NHWGK2)
    aligned = offset.stride(2) % 2 == 0 and offset.storage_offset() % 2 == 0
    return offset if aligned else offset.contiguous()
