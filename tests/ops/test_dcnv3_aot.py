"""DCNv3's Triton kernels, compiled for GPUs that are not here: what they need must leave room for enough warps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton

from internimage.ops.dcnv3 import DCNv3Geometry, triton_launch, triton_tuning
from internimage.ops.dcnv3.triton_kernels.backward import backward_kernel
from internimage.ops.dcnv3.triton_kernels.forward import forward_kernel
from support import aot

KERNELS: dict[str, Any] = {"forward": forward_kernel, "backward": backward_kernel}
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# The most registers a thread may take. An SM of NVIDIA has 65,536 for up to 64 warps; a SIMD of the MI300 has 512 per
# lane for up to 8 waves.
BUDGET = {
    ("forward", "sm_80"): 128,
    ("forward", "sm_90"): 128,
    ("forward", "sm_100"): 128,
    ("forward", "gfx942"): 256,
    ("backward", "sm_80"): 128,
    ("backward", "sm_90"): 128,
    ("backward", "sm_100"): 128,
    ("backward", "gfx942"): 256,
}


def type_of(argument: str, name: str) -> str:
    if argument.endswith("_ptr"):
        return "*fp32" if argument == "grad_value_ptr" else f"*{name}"
    return "fp32" if argument.startswith(("start", "step", "scale")) else "i32"


def compile_kernel(
    kind: str, target: str, name: str, depth: int, kernel_size: int = 3, **changes: Any
) -> aot.Resources:
    """As `triton_launch` would launch it for four groups on a map of 56 x 56."""
    kernel, geometry = KERNELS[kind], DCNv3Geometry.make(kernel_size, padding=kernel_size // 2)
    with torch.device("meta"):
        value = torch.empty(1, 56, 56, 4, depth, dtype=TYPES[name])
        mask = torch.empty(1, 56, 56, 4, geometry.num_points, dtype=TYPES[name])
    problem = triton_launch.Problem.of((value, mask.new_empty((*mask.shape, 2)), mask), geometry, "softmax")
    shape = problem.shape_class(kind)
    config = triton_tuning.default(shape, target)
    constants = problem.constants | shape.constants(config, triton_tuning.warp_size(target))
    constants |= {"STRIP": 8, "UNROLL": geometry.num_points <= triton_tuning.UNROLLED_POINTS}
    constants |= {"stride_y": 1, "stride_x": 1} | changes
    if kind == "backward":
        constants = {"SCATTER": True, "CHUNK": 3} | constants
    types = {argument: type_of(argument, name) for argument in kernel.arg_names if argument not in constants}
    return aot.compile_for(target, kernel, types, constants, num_warps=config.num_warps)


@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("depth", [16, 32])
@pytest.mark.parametrize("name", TYPES)
def test_production_kernels_stay_within_their_registers(kind: str, target: str, depth: int, name: str) -> None:
    """The group widths of all published variants, on all four targets."""
    found = compile_kernel(kind, target, name, depth)
    assert found.spills == 0
    assert found.registers <= BUDGET[kind, target], found


@pytest.mark.parametrize("kind", KERNELS)
def test_other_classes_compile_without_spills(kind: str) -> None:
    assert compile_kernel(kind, "sm_90", "bf16", 24).spills == 0
    assert compile_kernel(kind, "sm_90", "fp32", 5).spills == 0
    assert compile_kernel(kind, "sm_90", "bf16", 16, kernel_size=7).spills == 0
    assert compile_kernel(kind, "sm_90", "bf16", 16, WIDE=True).spills == 0


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("target", ["sm_70", "sm_75"])
def test_old_gpus_compile_too(kind: str, target: str) -> None:
    assert compile_kernel(kind, target, "fp16", 16).spills == 0


def test_a_kernel_that_needs_too_much_is_noticed() -> None:
    """Sixty-four channels in one thread: the check must be able to fail."""
    greedy = compile_kernel("backward", "sm_90", "fp32", 128, WIDTH=128, PARTS=1, ROWS=128)
    assert greedy.spills > 0
