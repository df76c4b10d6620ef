"""The branch's kernels compiled for GPUs that are not there: they compile, spill nothing, and stay within a budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from internimage.ops.branch import triton_kernels, triton_launch  # noqa: E402
from internimage.ops.branch.triton_launch import Tile  # noqa: E402
from support.aot import TARGETS, compile_for  # noqa: E402

NUMBERS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FLOAT32 = {"weight_ptr", "bias_ptr", "norm_weight_ptr", "norm_bias_ptr", "sums_ptr"}
# Registers a thread may use: forward, backward through the normalisation, backward through the convolution. By them
# 16, 16 and 8 warps fit on a multiprocessor, or more; AMD's compute unit has twice the registers.
BUDGET = {"sm_80": (128, 128, 192), "sm_90": (128, 128, 192), "sm_100": (128, 128, 192), "gfx942": (128, 128, 256)}
# Earlier compilers take more registers for the convolution's gradients, and spill up to four of the others.
pytestmark = pytest.mark.skipif(
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8), reason="the budget is for Triton 3.8 and later"
)
# C, kernel, a map's width at 224 pixels (H: 640): padded widths that are full and that are not, both kernels.
WIDTHS = ((64, 3, 56), (112, 3, 56), (256, 3, 14), (640, 3, 14), (320, 5, 160), (2560, 5, 20))


def types(kernel: Any, number: str) -> dict[str, str]:
    """Of all arguments that are no constants."""
    kinds = {"eps": "fp32"}
    for name in kernel.arg_names:
        if name.endswith("_ptr"):
            kinds[name] = "*fp32" if name in FLOAT32 else f"*{number}"
        elif name not in kinds and name.islower():
            kinds[name] = "i32"
    return {name: kinds[name] for name in kernel.arg_names if name.islower()}


def constants(channels: int, taps: int, tile: Tile, whole: bool, **changes: Any) -> dict[str, Any]:
    shared = {"KERNEL_H": taps, "KERNEL_W": taps, "CHANNELS": channels, "WIDE": False, "PIXELS": tile.pixels}
    if whole:
        return shared | {"ACTIVATION": 0, "HAS_BIAS": True, "CHANNELS_PADDED": tile.channels} | changes
    return shared | {"CHANNEL_BLOCK": tile.channels} | changes


def measure(target: str, channels: int, taps: int, width: int, number: str, **changes: Any) -> list[Any]:
    """What the three kernels need, as they would be launched."""
    plan = (
        (triton_kernels.forward_kernel, triton_launch.forward_tile(channels, width), True),
        (triton_kernels.backward_norm_kernel, triton_launch.norm_tile(channels, width), True),
        (triton_kernels.backward_conv_kernel, triton_launch.conv_tile(channels, width, taps**2), False),
    )
    tensors = torch.empty(0, dtype=NUMBERS[number]), torch.empty(1, 1, taps, taps)
    limit = triton_launch.register_limit(*tensors) if TARGETS[target].backend == "cuda" else {}
    return [
        compile_for(
            target,
            kernel,
            types(kernel, number),
            constants(channels, taps, tile, whole, **changes),
            num_warps=tile.warps,
            **(limit if whole else {}),
        )
        for kernel, tile, whole in plan
    ]


@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: f"{width[0]}x{width[1]}")
@pytest.mark.parametrize("target", BUDGET)
def test_production_widths(target: str, width: tuple[int, int, int]) -> None:
    found = measure(target, *width, "bf16")
    assert max(each.spills for each in found) == 0, found
    for each, most in zip(found, BUDGET[target], strict=True):
        assert each.registers <= most, found
    assert max(each.shared for each in found) <= 16384


@pytest.mark.parametrize("number", ["fp16", "fp32"])
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_other_numbers(target: str, number: str) -> None:
    found = measure(target, 256, 3, 14, number)
    assert max(each.spills for each in found) == 0, found


def test_images_of_more_than_2_31_elements() -> None:
    found = measure("sm_90", 64, 3, 10_000, "bf16", WIDE=True)
    assert max(each.spills for each in found) == 0, found


def test_a_greedy_kernel_is_noticed() -> None:
    """Ten times the numbers a thread should have: the budget must not hold, or it proves nothing."""
    kernel, tile = triton_kernels.forward_kernel, Tile(128, 256, 4)
    found = compile_for("sm_90", kernel, types(kernel, "bf16"), constants(256, 3, tile, True), num_warps=4, maxnreg=96)
    assert found.spills > 0
