"""Launching DCNv3's Triton kernels: memory layouts, grids, index widths, devices."""

# Triton has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from internimage.ops import dispatch
from internimage.ops.dcnv3 import triton_tuning
from internimage.ops.dcnv3.geometry import DCNv3Geometry
from internimage.ops.dcnv3.reference import Normalize
from internimage.ops.dcnv3.triton_kernels.backward import backward_kernel
from internimage.ops.dcnv3.triton_kernels.forward import forward_kernel
from internimage.ops.dcnv3.triton_kernels.gather import gather_kernel

KERNELS = (forward_kernel, backward_kernel, gather_kernel)
# As triton_kernels/sampling.py numbers them.
_NORMALIZE = {"softmax": 0, "sigmoid": 1, "none": 2}
_INT32 = 2**31
# The second dimension of a grid ends here.
_IMAGES = 65535
# Wide enough for windows to overlap, narrow enough for the rows above to stay in the first cache. On a wide map none
# leaves many programs without work.
_STRIPS, _WIDE_MAP = (8, 7, 6, 5, 4), 64


@dataclass(frozen=True)
class Problem:
    """What all kernels of one call share; made by `Problem.of`, which copies what no kernel can read.

    Args:
        value, offset, mask: (N, H, W, G, D), (N, Ho, Wo, G, K, 2), (N, Ho, Wo, G, K); value is contiguous.
        offset_stride, mask_stride: elements from one output position to the next.
    """

    value: Tensor
    offset: Tensor
    mask: Tensor
    offset_stride: int
    mask_stride: int
    geometry: DCNv3Geometry
    normalize: Normalize

    @classmethod
    def of(cls, tensors: tuple[Tensor, Tensor, Tensor], geometry: DCNv3Geometry, normalize: Normalize) -> Problem:
        """value, offset and mask as they come."""
        offset, offset_stride = _in_rows(tensors[1])
        # A kernel reads (x, y) in one load.
        if offset_stride % 2 or offset.storage_offset() % 2:
            offset = offset.clone(memory_format=torch.contiguous_format)
            offset_stride = offset.shape[3] * offset.shape[4] * 2
        mask, mask_stride = _in_rows(tensors[2])
        return cls(tensors[0].contiguous(), offset, mask, offset_stride, mask_stride, geometry, normalize)

    def shape_class(self, kind: str) -> triton_tuning.ShapeClass:
        """What the configuration of a kind of kernel depends on."""
        few = triton_tuning.are_few(math.prod(self.mask.shape[:4]))
        return triton_tuning.ShapeClass(kind, self.value.element_size(), self.depth, self.points, few)

    # Kernels are compiled for the next three: int() fixes what a traced graph leaves open.

    @property
    def groups(self) -> int:
        """G."""
        return int(self.value.shape[3])

    @property
    def depth(self) -> int:
        """D, channels of a group."""
        return int(self.value.shape[4])

    @property
    def points(self) -> int:
        """K, sampling points of a group."""
        return int(self.mask.shape[4])

    @property
    def window(self) -> tuple[int | float, ...]:
        """Strides, a window's first point, the way to the next and the factor on offsets; (y, x) where there are two.

        The equation's ``stride*o - padding + c + scale*(dilation*i - c + offset)``, sorted by o, i and offset.
        """
        return _window(self.geometry)

    @property
    def constants(self) -> dict[str, Any]:
        """What kernels are compiled for, configuration apart."""
        kernel_h, kernel_w = self.geometry.kernel_size
        groups, depth, points = self.groups, self.depth, self.points
        (_, height, width, *_), (_, out_height, out_width, *_) = self.value.shape, self.mask.shape
        stride = max(self.offset_stride, self.mask_stride, groups * depth, groups * points * 2)
        return {
            "KERNEL_H": kernel_h,
            # Never reached where no point is left out.
            "CENTER": (kernel_h * kernel_w) // 2 if self.geometry.remove_center else kernel_h * kernel_w,
            "POINTS": points,
            "NORMALIZE": _NORMALIZE[self.normalize],
            "GROUPS": groups,
            "DEPTH": depth,
            "WIDE": height * width * groups * depth >= _INT32 or out_height * out_width * stride >= _INT32,
        }

    def part(self, images: slice) -> Problem:
        """The same for some images."""
        return replace(self, value=self.value[images], offset=self.offset[images], mask=self.mask[images])


def forward(problem: Problem) -> Tensor:
    """Eq. (2), arXiv:2211.05778, as `dcnv3_reference`: (N, Ho, Wo, G, D) in float32, bfloat16 or float16."""
    out = problem.value.new_empty((problem.value.shape[0], *problem.mask.shape[1:4], problem.value.shape[4]))
    _launch(forward_kernel, "forward", problem, (problem.value, problem.offset, problem.mask, out))
    return out


def backward(problem: Problem, grad_NHWGD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward` for value, offset and mask: their dtypes, contiguous; nothing but the inputs is kept.

    The value's gradient is summed in float32, in an order that changes from run to run unless
    ``torch.use_deterministic_algorithms(True)``; then by a slower kernel.
    """
    value, offset, mask, grad = problem.value, problem.offset, problem.mask, grad_NHWGD.contiguous()
    grad_offset, grad_mask = offset.new_empty(offset.shape), mask.new_empty(mask.shape)
    gathers = torch.are_deterministic_algorithms_enabled()
    if gathers:
        grad_value = value.new_empty(value.shape)
        _launch_gather(problem, (grad, offset, mask, grad_value))
    else:
        grad_value = torch.zeros(value.shape, dtype=torch.float32, device=value.device)
    tensors = (grad, value, offset, mask, grad_value, grad_offset, grad_mask)
    _launch(backward_kernel, "backward", problem, tensors, SCATTER=not gathers)
    return grad_value.to(value.dtype), grad_offset, grad_mask


def _launch(kernel: Any, kind: str, problem: Problem, tensors: tuple[Tensor, ...], **constants: Any) -> None:
    """Forward or backward: a program for every few outputs of a strip."""
    launch, config = triton_tuning.configure(kernel, problem.shape_class(kind), problem.value)
    rows, columns, strip = problem.mask.shape[1], problem.mask.shape[2], _strip(problem.mask.shape[2])

    def programs(chosen: dict[str, Any]) -> Any:
        return _ceil(rows * strip * problem.groups, chosen["ROWS"]) * _ceil(columns, strip)

    _run(launch, programs, problem, tensors, STRIP=strip, **constants, **config)


def _launch_gather(problem: Problem, tensors: tuple[Tensor, ...]) -> None:
    """The value's gradient: a program for every tile of pixels and block of channels."""
    height, width = problem.value.shape[1:3]
    constants = gather_constants(problem)
    tile, channels = constants["TILE"], constants["CHANNELS"]

    def programs(_: dict[str, Any]) -> Any:
        tiles = _ceil(height, tile) * _ceil(width, tile)
        return tiles * problem.groups * _ceil(problem.depth, channels)

    _run(triton_tuning.launcher(gather_kernel, problem.value), programs, problem, tensors, **constants)


def gather_constants(problem: Problem) -> dict[str, int]:
    """Tiles of 8 x 8 pixels, blocks of 32 positions; channels as a matrix product takes them, at least 16."""
    return {"TILE": 8, "BLOCK": 32, "CHANNELS": min(64, max(16, triton.next_power_of_2(problem.depth))), "num_warps": 4}


def _run(
    launch: triton_tuning.Launcher, programs: Any, problem: Problem, tensors: tuple[Tensor, ...], **constants: Any
) -> None:
    """Launch on the tensors' device ``programs`` for each image."""
    batch = problem.value.shape[0]
    if batch == 0:
        return
    if batch > _IMAGES:
        for start in range(0, batch, _IMAGES):
            images = slice(start, start + _IMAGES)
            _run(launch, programs, problem.part(images), tuple(tensor[images] for tensor in tensors), **constants)
        return
    sizes = (
        *problem.value.shape[1:3],
        *problem.mask.shape[1:3],
        problem.offset_stride,
        problem.mask_stride,
        problem.points,
    )
    on_gpu = problem.value.is_cuda and not dispatch.is_traced(problem.value)

    def grid(chosen: dict[str, Any]) -> tuple[Any, Any]:
        return programs(chosen), batch

    with torch.cuda.device(problem.value.device) if on_gpu else nullcontext():
        launch(grid, *tensors, *sizes, *problem.window, **problem.constants, **constants)


def _ceil(number: Any, divisor: Any) -> Any:
    """triton.cdiv, in a tenth of its time."""
    return (number + divisor - 1) // divisor


@cache
def _window(geometry: DCNv3Geometry) -> tuple[int | float, ...]:
    g, scale = geometry, geometry.offset_scale
    starts = (float(c - padding - scale * c) for c, padding in zip(g.center, g.padding, strict=True))
    return (*g.stride, *starts, *(float(scale * dilation) for dilation in g.dilation), float(scale))


def _strip(out_width: int | torch.SymInt) -> int:
    """Columns of a strip: those that leave the fewest programs without work."""
    # A size that a traced graph leaves open is like a wide map.
    if isinstance(out_width, torch.SymInt) or out_width > _WIDE_MAP:
        return _STRIPS[0]
    if out_width <= _STRIPS[0]:
        return out_width
    return min(_STRIPS, key=lambda strip: -out_width % strip)


def _in_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """Elements from one output position to the next, and the tensor itself if they are as many everywhere.

    Slices of one projection, dense at a position but not from one to the next, are read where they are.
    """
    dense = math.prod(tensor.shape[3:])
    if not tensor.is_contiguous():
        _, rows, columns = tensor.shape[:3]
        stride = tensor.stride(2)
        inner = [math.prod(tensor.shape[axis + 1 :]) for axis in range(3, tensor.dim())]
        if list(tensor.stride()) == [rows * columns * stride, columns * stride, stride, *inner]:
            return tensor, stride
        tensor = tensor.contiguous()
    return tensor, dense
