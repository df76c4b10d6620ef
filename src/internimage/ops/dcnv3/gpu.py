"""DCNv3 on a GPU by the Triton kernels: when they can run, and how PyTorch reaches them.

Triton is imported with the first tensor on a GPU: importing the package costs PyTorch and nothing else.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from internimage.ops import dispatch
from internimage.ops.dcnv3.geometry import DCNv3Geometry
from internimage.ops.dcnv3.reference import Normalize


def why_not(value_NHWGD: Tensor) -> str | None:
    """The reason why the kernels can't run on this value, or None."""
    if value_NHWGD.is_cuda and value_NHWGD.dtype == torch.float64:
        return "the Triton kernels compute in float32, which would lose what float64 is for"
    return dispatch.why_no_triton(value_NHWGD.device)


def forward(
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
) -> Tensor:
    """`dcnv3_reference` by a Triton kernel."""
    from internimage.ops.dcnv3 import triton_launch

    inputs = value_NHWGD, offset_NHWGK2, mask_NHWGK
    return triton_launch.forward(triton_launch.Problem.of(inputs, geometry, normalize))


def backward(
    grad_NHWGD: Tensor,
    value_NHWGD: Tensor,
    offset_NHWGK2: Tensor,
    mask_NHWGK: Tensor,
    geometry: DCNv3Geometry,
    normalize: Normalize,
) -> tuple[Tensor, Tensor, Tensor]:
    """`dcnv3_reference_backward` by a Triton kernel."""
    from internimage.ops.dcnv3 import triton_launch

    inputs = value_NHWGD, offset_NHWGK2, mask_NHWGK
    return triton_launch.backward(triton_launch.Problem.of(inputs, geometry, normalize), grad_NHWGD)


def kernels() -> tuple[Any, ...]:
    """The Triton kernels of this operator."""
    from internimage.ops.dcnv3 import triton_launch

    return cast(Any, triton_launch).KERNELS
