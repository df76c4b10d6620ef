"""DCNv3 on a CPU by the C++ kernel of cpu.cpp: when it can run, and how it is loaded."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from internimage.ops.dcnv3.cpu_build import BuildError, find_or_build

# As cpu.cpp numbers them.
INSTRUCTION_SETS = ("plain", "avx2", "avx512")
_INT32 = 2**31


def why_not(value_NHWGD: Tensor) -> str | None:
    """The reason why the kernel can't run on this value, or None; compiles it if need be."""
    if value_NHWGD.device.type != "cpu":
        return f"the tensors are on {value_NHWGD.device.type}"
    return "an image has 2^31 elements or more" if is_too_large(value_NHWGD) else _load()


def is_too_large(value_NHWGD: Tensor) -> bool:
    """Whether an image has more elements than the kernel counts."""
    return value_NHWGD.shape[1:].numel() >= _INT32


def describe() -> str:
    """The kernel's instruction set and library; only after `why_not` said None."""
    chosen = INSTRUCTION_SETS[int(cast(Any, torch.ops).internimage_cpu.instruction_set())]
    return f"{chosen} vectors, from {find_or_build()}"


def _fake_branch(x_NHWC: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
    stride, padding = arguments[4:6]
    height, width = (
        (x_NHWC.shape[1 + axis] + 2 * padding[axis] - weight.shape[2 + axis]) // stride[axis] + 1 for axis in (0, 1)
    )
    return x_NHWC.new_empty((x_NHWC.shape[0], height, width, x_NHWC.shape[3]))


@cache
def _load() -> str | None:
    try:
        cast(Any, torch.ops).load_library(str(find_or_build()))
        cast(Any, torch.library).register_fake("internimage_cpu::branch", _fake_branch)
    except BuildError as error:
        return str(error)
    except OSError as error:
        return f"the compiled kernel can't be loaded ({str(error).splitlines()[0]})"
    return None
