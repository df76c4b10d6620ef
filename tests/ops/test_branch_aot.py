"""The branch's kernels compiled for GPUs that are not there: they compile, spill nothing, and stay within a budget."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

triton = pytest.importorskip("triton")

from internimage.ops.branch import triton_launch  # noqa: E402
from internimage.ops.branch.triton_launch import Tile  # noqa: E402
from support import aot  # noqa: E402

NUMBERS = {"bf16": 2, "fp16": 2, "fp32": 4}
FLOAT32 = {"weight_ptr", "bias_ptr", "norm_weight_ptr", "norm_bias_ptr", "sums_ptr"}
# Registers a thread may use: forward, backward through the normalisation, backward through the convolution. By them
# 24, 16 and 8 warps fit on a multiprocessor, or more; AMD's compute unit has twice the registers.
BUDGET = {"sm_80": (80, 112, 192), "sm_90": (80, 112, 192), "sm_100": (80, 112, 192), "gfx942": (112, 112, 256)}
# What NVIDIA's assembler spills for one more program on a multiprocessor, in bytes per thread.
SPILLS = {
    ("sm_90", "fp16"): {("backward_conv_kernel", channels, 3): 8 for channels in (80, 112, 160, 224)},
    ("sm_90", "fp32"): {("forward_kernel", 4096, 5): 8},
}
# Earlier compilers take more registers for the convolution's gradients, and spill up to four of the others.
pytestmark = pytest.mark.skipif(
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8), reason="the budget is for Triton 3.8 and later"
)


class Width(NamedTuple):
    """Channels, kernel, and a map's width in a network."""

    channels: int
    kernel: int
    width: int


# All stages of the published variants: C1, kernel, and the first map's width at 224 pixels (H, G: 640).
FIRST = ((64, 3, 56), (80, 3, 56), (112, 3, 56), (160, 3, 56), (192, 3, 56), (320, 5, 160), (512, 5, 160))
ALL = [Width(channels << stage, kernel, width >> stage) for channels, kernel, width in FIRST for stage in range(4)]
# Padded widths that are full and that are not, both kernels.
SOME = [
    Width(64, 3, 56),
    Width(112, 3, 56),
    Width(256, 3, 14),
    Width(640, 3, 14),
    Width(320, 5, 160),
    Width(2560, 5, 20),
]
NAMES = {"ids": lambda each: f"{each.channels}x{each.kernel}" if isinstance(each, Width) else each}
KERNELS = {each.fn.__name__: each for each in triton_launch.KERNELS}


def tile_of(name: str, width: Width, itemsize: int) -> Tile:
    """As it would be launched."""
    if name == "forward_kernel":
        return triton_launch.forward_tile(width.channels, width.width, itemsize)
    if name == "backward_norm_kernel":
        return triton_launch.norm_tile(width.channels, width.width)
    return triton_launch.conv_tile(width.channels, width.width, width.kernel**2)


def compile_kernel(
    name: str, target: str, width: Width, number: str, tile: Tile | None = None, eps: str = "fp32", **changes: Any
) -> aot.Resources:
    kernel, tile = KERNELS[name], tile or tile_of(name, width, NUMBERS[number])
    values = {
        "KERNEL_H": width.kernel, "KERNEL_W": width.kernel, "CHANNELS": width.channels, "WIDE": False,
        "ACTIVATION": 0, "HAS_BIAS": True, "GRAD_X": True, "SUMS": True,
        "PIXELS": tile.pixels, "PARTS": tile.parts, "CHANNELS_PADDED": tile.channels, "CHANNEL_BLOCK": tile.channels,
    }  # fmt: skip
    constants = {each: value for each, value in (values | changes).items() if each in kernel.arg_names}
    types = {each: type_of(each, number, eps) for each in kernel.arg_names if each not in constants}
    return aot.compile_for(target, kernel, types, constants, num_warps=tile.warps)


def type_of(argument: str, number: str, eps: str = "fp32") -> str:
    if argument.endswith("_ptr"):
        return "*fp32" if argument in FLOAT32 else f"*{number}"
    return eps if argument == "eps" else "i32"


# All widths on one target, a kernel of 3 and one of 5 on each of the others; the other pairs are slow.
KEPT = {target: (SOME[place], SOME[4 + place % 2]) for place, target in enumerate(BUDGET)} | {"sm_90": tuple(SOME)}
PAIRS = [
    pytest.param(target, width, marks=() if width in KEPT[target] else pytest.mark.slow)
    for target in BUDGET
    for width in SOME
]


@pytest.mark.parametrize(("target", "width"), PAIRS, **NAMES)
def test_production_widths(target: str, width: Width) -> None:
    for name, most in zip(KERNELS, BUDGET[target], strict=True):
        found = compile_kernel(name, target, width, "bf16")
        assert found.spills == 0, (name, found)
        assert found.registers <= most, (name, found)
        assert found.shared <= 16384, (name, found)


@pytest.mark.parametrize("name", ["forward_kernel", "backward_norm_kernel"])
def test_eps_in_float64_changes_nothing(name: str) -> None:
    """torch.compile hands over Python's numbers as they are."""
    plain, wide = (compile_kernel(name, "sm_90", SOME[0], "bf16", eps=eps) for eps in ("fp32", "fp64"))
    assert wide.spills == 0
    assert wide.registers <= 1.25 * plain.registers


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("target", BUDGET)
def test_all_widths(target: str, number: str) -> None:
    found = {
        (name, width): compile_kernel(name, target, width, number) for name in KERNELS for width in sorted(set(ALL))
    }
    spills = {(name, *width[:2]): each.spills for (name, width), each in found.items() if each.spills}
    assert spills == SPILLS.get((target, number), {})
    most = dict(zip(KERNELS, BUDGET[target], strict=True))
    assert all(each.registers <= most[name] for (name, _), each in found.items())
    assert max(each.shared for each in found.values()) <= 16384


@pytest.mark.parametrize("number", ["fp16", "fp32"])
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_other_numbers(target: str, number: str) -> None:
    for name in KERNELS:
        assert compile_kernel(name, target, Width(256, 3, 14), number).spills == 0


@pytest.mark.parametrize("target", ["sm_70", "sm_75"])
def test_free_notebooks(target: str) -> None:
    """V100 and T4, which have no bfloat16."""
    for name in KERNELS:
        assert compile_kernel(name, target, Width(64, 3, 56), "fp16").spills == 0


@pytest.mark.parametrize(
    "changes",
    [{"WIDE": True}, {"SUMS": False}, {"GRAD_X": False}, {"HAS_BIAS": False}],
    ids=lambda each: next(iter(each)),
)
def test_other_settings(changes: dict[str, bool]) -> None:
    for name, kernel in KERNELS.items():
        if changes.keys() <= set(kernel.arg_names):
            assert compile_kernel(name, "sm_90", Width(64, 3, 56), "bf16", **changes).spills == 0


@pytest.mark.parametrize("width", [*SOME[:3], Width(512, 3, 7)], **NAMES)
@pytest.mark.parametrize("name", KERNELS)
def test_weights_reach_their_threads_directly(name: str, width: Width, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changes its layout inside a loop, by way of shared memory and a barrier for every tap."""
    texts: list[str] = []

    def keep(*arguments: Any, **settings: Any) -> Any:
        compiled = triton.compile(*arguments, **settings)
        texts.append(compiled.asm["ttgir"])
        return compiled

    monkeypatch.setattr(aot, "triton_compile", keep)
    compile_kernel(name, "sm_90", width, "bf16")
    (text,) = texts
    # What is in a loop is indented by more than the function's own four spaces.
    assert re.search(r"^ {6,}\S.* = tt\.load", text, re.MULTILINE)
    assert re.findall(r"^ {6,}\S.*convert_layout.*", text, re.MULTILINE) == []


def test_a_greedy_kernel_is_noticed() -> None:
    """Ten times the numbers a thread should have: the budget must not hold, or it proves nothing."""
    assert compile_kernel("forward_kernel", "sm_90", Width(256, 3, 56), "bf16", Tile(64, 256, 4)).spills > 0
