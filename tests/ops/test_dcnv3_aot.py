"""DCNv3's Triton kernels, compiled for GPUs that are not here: what they need must leave room for enough warps.

A kernel that Triton's cache does not have takes NVIDIA's assembler up to a quarter of a minute: each kernel, target,
width, type and setting is in the default run, and what combines them otherwise is slow.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import triton

from internimage.ops.dcnv3 import DCNv3Geometry, triton_launch, triton_tuning
from internimage.ops.dcnv3.triton_kernels.backward import backward_kernel
from internimage.ops.dcnv3.triton_kernels.forward import forward_kernel
from internimage.ops.dcnv3.triton_kernels.gather import gather_kernel
from support import aot

KERNELS: dict[str, Any] = {"forward": forward_kernel, "backward": backward_kernel}
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# The most registers a thread may take: forward and backward, groups of 16 and of 32 channels. An SM of NVIDIA has
# 65,536: 512 of these threads fit with 128 each. A SIMD of the MI300 has 512 for each of 64 lanes: two waves with 256.
BUDGET = {
    "sm_80": {"forward": {16: 64, 32: 80}, "backward": {16: 128, 32: 112}},
    "sm_90": {"forward": {16: 64, 32: 80}, "backward": {16: 96, 32: 160}},
    "sm_100": {"forward": {16: 64, 32: 88}, "backward": {16: 96, 32: 128}},
    "gfx942": {"forward": {16: 112, 32: 192}, "backward": {16: 120, 32: 128}},
}
# Triton before 3.8 takes more, which two blocks of four warps still have.
IS_OLD = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8)
OLD_BUDGET = {"forward": {16: 112, 32: 192}, "backward": {16: 128, 32: 224}}


def type_of(argument: str, name: str, number: str = "fp32") -> str:
    if argument.endswith("_ptr"):
        return "*fp32" if argument == "grad_value_ptr" else f"*{name}"
    return number if argument.startswith(("start", "step", "scale")) else "i32"


def compile_kernel(
    kind: str,
    target: str,
    name: str,
    depth: int,
    kernel_size: int = 3,
    config: triton_tuning.Config | None = None,
    few: bool = False,
    number: str = "fp32",
    **changes: Any,
) -> aot.Resources:
    """As `triton_launch` would launch it for four groups on a map of 56 x 56."""
    kernel = (KERNELS | {"gather": gather_kernel})[kind]
    geometry = DCNv3Geometry.make(kernel_size, padding=kernel_size // 2)
    with torch.device("meta"):
        value = torch.empty(1, 56, 56, 4, depth, dtype=TYPES[name])
        mask = torch.empty(1, 56, 56, 4, geometry.num_points, dtype=TYPES[name])
    problem = triton_launch.Problem.of((value, mask.new_empty((*mask.shape, 2)), mask), geometry, "softmax")
    small = changes.pop("small", True)
    constants = problem.constants | {"stride_y": 1, "stride_x": 1} | changes
    if kind == "gather":
        constants |= triton_launch.gather_constants(problem)
    else:
        shape = replace(problem.shape_class(kind), few=few)
        config = config or triton_tuning.default(shape, target)
        constants |= shape.constants(config, triton_tuning.warp_size(target)) | {"STRIP": 8}
        constants |= {"num_warps": config.num_warps} | ({"SCATTER": True} if kind == "backward" else {}) | changes
    warps = constants.pop("num_warps")
    types = {argument: type_of(argument, name, number) for argument in kernel.arg_names if argument not in constants}
    return aot.compile_for(target, kernel, types, constants, num_warps=warps, small=small)


def some(every: Iterable[tuple[Any, ...]], kept: Container[tuple[Any, ...]]) -> list[Any]:
    """Arguments of every test; those that are not kept are slow."""
    return [pytest.param(*each, marks=() if each in kept else pytest.mark.slow) for each in every]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    ("target", "depth", "name"),
    some(
        product(BUDGET, (16, 32), TYPES),
        (
            *(("sm_80", 16, "bf16"), ("sm_90", 16, "bf16"), ("sm_100", 16, "fp16"), ("gfx942", 16, "fp32")),
            *(("sm_90", 32, "fp16"), ("gfx942", 32, "bf16")),
        ),
    ),
)
def test_production_kernels_stay_within_their_registers(kind: str, target: str, depth: int, name: str) -> None:
    """The group widths of all published variants, on all four targets."""
    found = compile_kernel(kind, target, name, depth)
    assert found.spills == 0, found
    assert found.registers <= (OLD_BUDGET if IS_OLD else BUDGET[target])[kind][depth], found


ONE_OF_EACH_MAKER = some(((target,) for target in BUDGET), (("sm_90",), ("gfx942",)))
LAUNCHES = (
    ("fp16", 16, {"few": True}),
    ("bf16", 32, {"few": True}),
    ("bf16", 16, {"NORMALIZE": 1}),
    ("bf16", 16, {"NORMALIZE": 2}),
)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    ("target", "name", "depth", "others"),
    some(
        ((target, *launch) for target in BUDGET for launch in LAUNCHES),
        (("sm_90", *LAUNCHES[0]), ("gfx942", *LAUNCHES[1]), ("sm_90", *LAUNCHES[2]), ("gfx942", *LAUNCHES[3])),
    ),
    ids=str,
)
def test_other_launches_spill_nothing(kind: str, target: str, name: str, depth: int, others: dict[str, Any]) -> None:
    """Single images, sigmoid, and weights as they are."""
    assert compile_kernel(kind, target, name, depth, **others).spills == 0


CLASSES = (("bf16", 24, {}), ("fp32", 5, {}), ("bf16", 16, {"kernel_size": 7}), ("bf16", 16, {"WIDE": True}))


@pytest.mark.parametrize(
    ("kind", "name", "depth", "others"),
    some(
        ((kind, *each) for kind in KERNELS for each in CLASSES),
        (
            *(("forward", *CLASSES[0]), ("backward", *CLASSES[1])),
            *(("backward", *CLASSES[2]), ("forward", *CLASSES[3])),
        ),
    ),
    ids=str,
)
def test_other_classes_spill_nothing(kind: str, name: str, depth: int, others: dict[str, Any]) -> None:
    assert compile_kernel(kind, "sm_90", name, depth, **others).spills == 0


@pytest.mark.parametrize("target", ONE_OF_EACH_MAKER)
def test_the_deterministic_backward_spills_nothing(target: str) -> None:
    assert compile_kernel("backward", target, "bf16", 16, SCATTER=False).spills == 0


@pytest.mark.parametrize("kind", KERNELS)
def test_large_tensors_on_amd_spill_nothing(kind: str) -> None:
    assert compile_kernel(kind, "gfx942", "bf16", 16, small=False).spills == 0


@pytest.mark.parametrize("target", ONE_OF_EACH_MAKER)
def test_the_deterministic_gradient_spills_nothing(target: str) -> None:
    assert compile_kernel("gather", target, "bf16", 16).spills == 0


@pytest.mark.parametrize("kind", ["forward", "backward", "gather"])
def test_numbers_in_float64_change_nothing(kind: str) -> None:
    """torch.compile hands over Python's numbers as they are; no loop carries float64, no sum becomes one."""
    config = triton_tuning.Config(1, 4, 1)
    plain, wide = (compile_kernel(kind, "sm_90", "fp16", 16, config=config, number=n) for n in ("fp32", "fp64"))
    assert wide.spills == 0
    assert wide.registers <= 1.25 * plain.registers


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("target", [pytest.param("sm_70", marks=pytest.mark.slow), "sm_75"])
def test_old_gpus_compile_too(kind: str, target: str) -> None:
    """V100 and T4, which have no row in the table."""
    assert compile_kernel(kind, target, "fp16", 16).spills == 0


def test_a_kernel_that_needs_too_much_is_noticed() -> None:
    """All 64 channels of a group in one thread: the check must be able to fail."""
    greedy = compile_kernel("backward", "sm_90", "fp32", 64, config=triton_tuning.Config(1, 4, 1))
    assert greedy.spills > 0 or greedy.registers > 224
