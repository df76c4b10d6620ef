"""DCNv3's Triton kernels in Triton's interpreter: run by test_dcnv3_triton.py, in a process of its own.

By hand: ``TRITON_INTERPRET=1 pytest tests/ops/interpreted_dcnv3.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.ops.dcnv3 import DCNv3Geometry, gpu, sampling_positions_xy, triton_launch, triton_tuning
from support.cases import BASE, CASES, NAMES, Case
from support.compare import TOLERANCE, Outcome, assert_close, relative_rms, run
from support.sabotage import SABOTAGES, Sabotage, right

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(autouse=True)
def interpreted() -> None:
    kinds = {type(kernel).__name__ for kernel in triton_launch.KERNELS}
    assert kinds == {"InterpretedFunction"}, "set TRITON_INTERPRET=1"


@pytest.fixture
def atomic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual way of the value's gradient; memory stays poisoned, for which PyTorch wants to be deterministic."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)


class Kernels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, case: Case) -> Tensor:
        ctx.save_for_backward(value, offset, mask)
        ctx.case = case
        return gpu.forward(value, offset, mask, case.geometry, case.pattern.normalize)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *gpu.backward(grad, *ctx.saved_tensors, ctx.case.geometry, ctx.case.pattern.normalize), None


def by_kernels(case: Case, tensors: tuple[Tensor, ...]) -> Outcome:
    return smooth(case, tensors, run(lambda *t: Kernels.apply(*t, case), tensors))


def expect(case: Case, tensors: tuple[Tensor, ...]) -> Outcome:
    """The reference in float64 on the same, already rounded inputs."""
    return smooth(case, tensors, run(lambda *t: right(case, t), tuple(tensor.double() for tensor in tensors)))


def smooth(case: Case, tensors: tuple[Tensor, ...], outcome: Outcome) -> Outcome:
    return outcome._replace(grad_offset=case.smooth(tensors[1], outcome.grad_offset))


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_kernels_equal_reference(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "kernel_5"], **NAMES)
def test_deterministic_gradient_of_the_value(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", ["fp16", "bf16"])
@pytest.mark.parametrize("case_name", ["odd_map_5x4", "padding_0x2", "nan_offsets", "sigmoid"])
def test_kernels_in_16_bit(case_name: str, name: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    case = named(case_name)
    tensors = case.tensors(torch.float16 if name == "fp16" else torch.bfloat16)
    found = by_kernels(case, tensors)
    assert {each.dtype for each in found} == {tensors[0].dtype}
    assert_close(found, expect(case, tensors), name)


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("threads_per_row", [1, 2, 4])
@pytest.mark.parametrize(("depth", "chunk"), [(8, 9), (12, 2), (16, 3)])
def test_every_way_to_share_a_row(threads_per_row: int, depth: int, chunk: int) -> None:
    """Channels in parts, by several threads, a last part that is not full; chunks of points that divide nine or not."""
    case = Case("shared_rows", "", (1, 5, 4, 2, depth))
    tensors = case.tensors(torch.float32)
    config = triton_tuning.Config(threads_per_row, 1, chunk)
    with triton_tuning.use_config("forward", config), triton_tuning.use_config("backward", config):
        assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("width", range(7, 14))
def test_every_strip(width: int) -> None:
    """Maps wider than a strip, in strips of every width."""
    case = Case("strips", "", (1, 3, width, 2, 2), replace(BASE, kernel=(1, 1), padding=(0, 0)))
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("name", ["kernel_5", "remove_center"])
def test_wide_indices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only large images take, on a small one."""
    monkeypatch.setattr(triton_launch, "_INT32", 0)
    case = replace(named(name), shape=(1, 5, 4, 2, 3))
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.parametrize("deterministic", [False, True])
def test_more_images_than_a_grid_takes(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    monkeypatch.setattr(triton_launch, "_IMAGES", 2)
    case = Case("many_images", "", (5, 3, 4, 1, 2))
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shift", [0, 1])
def test_slices_of_one_projection(dtype: torch.dtype, shift: int) -> None:
    """Read in place; copied where an offset's (x, y) would not lie on a boundary of its size."""
    case = named("odd_map_5x4")
    value, offset, mask = case.tensors(dtype)
    split, rest = offset[0, 0, 0].numel(), mask[0, 0, 0].numel()
    together = torch.full((*mask.shape[:3], shift + split + rest), float("nan"), dtype=dtype)
    together[..., shift : shift + split] = offset.flatten(3)
    together[..., shift + split :] = mask.flatten(3)
    slices = together[..., shift : shift + split].unflatten(3, offset.shape[3:]), together[..., shift + split :]
    problem = triton_launch.Problem.of(
        (value, slices[0], slices[1].unflatten(3, mask.shape[3:])), case.geometry, case.pattern.normalize
    )
    assert (problem.offset.data_ptr() == slices[0].data_ptr()) is (shift == 0)
    assert problem.mask.data_ptr() == slices[1].data_ptr()
    plain = triton_launch.Problem.of((value, offset, mask), case.geometry, case.pattern.normalize)
    assert torch.equal(triton_launch.forward(problem), triton_launch.forward(plain))
    grad = torch.ones_like(triton_launch.forward(plain))
    for found, expected in zip(triton_launch.backward(problem, grad), triton_launch.backward(plain, grad), strict=True):
        assert torch.equal(found, expected)
        assert found.is_contiguous()


@pytest.mark.usefixtures("atomic")
def test_nothing_outside_the_tensors_counts() -> None:
    """The inputs lie between NaN; an element too far would show."""
    case = named("nan_offsets")
    tensors = case.tensors(torch.float32)
    inside = []
    for tensor in tensors:
        around = torch.full((tensor.shape[0] + 2, *tensor.shape[1:]), float("nan"))
        around[1:-1] = tensor
        inside.append(around[1:-1])
    assert_close(by_kernels(case, tuple(inside)), by_kernels(case, tensors), "fp32")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("deterministic", [False, True])
def test_no_gradient_off_the_map(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where an output's own gradient is infinite."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    case = Case("infinite", "", (1, 4, 4, 1, 2), replace(BASE, normalize="none"))
    value, offset, mask = case.tensors(torch.float32)
    grad = torch.ones(1, 4, 4, 1, 2)
    grad[0, 0, 0] = float("inf")
    _, grad_offset, _ = gpu.backward(grad, value, offset, mask, case.geometry, "none")
    off_map = (sampling_positions_xy(offset, case.geometry) <= -1).any(-1)[0, 0, 0, 0]
    assert off_map.any()
    assert (grad_offset[0, 0, 0, 0][off_map] == 0).all()


@pytest.mark.parametrize("sabotage", SABOTAGES, **NAMES)
def test_sabotage_is_rejected(sabotage: Sabotage) -> None:
    """Every classic mistake is further from the kernels' result than the tolerance."""
    for case in (named("odd_map_5x4"), named("remove_center"), named("kernel_3x2")):
        if sabotage.applies(case):
            tensors = case.tensors(torch.float32)
            found = gpu.forward(*tensors, case.geometry, case.pattern.normalize)
            assert relative_rms(sabotage.wrong(case, tensors), found) > 100 * TOLERANCE["fp32"][0]


@pytest.mark.usefixtures("atomic")
def test_a_forgotten_tile_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program less than needed: what it left out is NaN, and no tolerance takes that."""
    monkeypatch.setattr(triton_launch, "_ceil", lambda a, b: max(1, (a + b - 1) // b - 1))
    case = Case("two_programs", "", (1, 20, 8, 2, 2), replace(BASE, kernel=(1, 1), padding=(0, 0)))
    tensors = case.tensors(torch.float32)
    with pytest.raises(AssertionError, match="inf"):
        assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


def test_starts_of_windows() -> None:
    """By hand: kernel 3, stride 2, padding 1, dilation 2, so c = 2; factor 0.5: 2*o - 1 + 2 + 0.5*(2*i - 2 + d)."""
    geometry = DCNv3Geometry.make(3, stride=2, padding=1, dilation=2, offset_scale=0.5)
    value, mask = torch.zeros(1, 8, 8, 1, 1), torch.zeros(1, 3, 3, 1, 9)
    problem = triton_launch.Problem.of((value, torch.zeros(1, 3, 3, 1, 9, 2), mask), geometry, "none")
    assert problem.window == (2, 2, 0.0, 0.0, 1.0, 1.0, 0.5)
