"""DCNv3's Triton kernels in Triton's interpreter: run by test_dcnv3_triton.py, in a process of its own.

By hand: ``TRITON_INTERPRET=1 pytest tests/ops/interpreted_dcnv3.py``. By default every case runs once, and every rule,
dtype, strip and way to share a row, both ways of the value's gradient among them; what says the same of further cases
is marked slow, and ``-m "slow or not slow"`` runs that too, as ``pytest -m slow tests/ops/test_dcnv3_triton.py`` does.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from functools import cache
from itertools import product
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


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of large maps, of more rows each: the interpreter's time goes by their number."""
    monkeypatch.setattr(triton_tuning, "are_few", lambda _: False)


@pytest.fixture
def small_programs(programs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that maps as small as these have on a GPU."""
    monkeypatch.setattr(triton_tuning, "are_few", lambda _: True)


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


def one_image(case: Case) -> Case:
    return replace(case, shape=(min(case.shape[0], 1), *case.shape[1:]))


def images(case: Case) -> Case:
    """Two where outputs and pixels differ in number or neither is a multiple of anything; else one says as much."""
    return case if case.name in ("odd_map_5x4", "stride_2x1", "padding_0x2") else one_image(case)


def some(every: Iterable[Any], kept: Container[Any]) -> list[Any]:
    """Tuples of arguments, or names of cases; those that are not kept are slow."""
    rows = [(each, (named(each),) if isinstance(each, str) else each) for each in every]
    return [pytest.param(*row, marks=() if each in kept else pytest.mark.slow) for each, row in rows]


EVERY = [case.name for case in CASES]
# Every geometry and rule that the kernel knows; NaN comes in 16 bit.
GATHERED = (
    *("odd_map_5x4", "kernel_3x2", "kernel_1", "stride_2x1", "dilation_2", "width_not_multiple_of_block", "batch_0"),
    *("remove_center", "offset_scale", "sigmoid", "plain_weights"),
)
# Every pair of a case, a dtype and a way of the value's gradient.
IN_16_BIT = (
    ("odd_map_5x4", "fp16", False),
    ("odd_map_5x4", "bf16", True),
    ("padding_0x2", "fp16", True),
    ("padding_0x2", "bf16", False),
    ("nan_offsets", "fp16", False),
    ("nan_offsets", "bf16", True),
    ("sigmoid", "fp16", True),
    ("sigmoid", "bf16", False),
)


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("case", CASES, **NAMES)
def test_kernels_equal_reference(case: Case) -> None:
    case = images(case)
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.usefixtures("atomic", "small_programs")
@pytest.mark.parametrize("case", some(EVERY, ("odd_map_5x4", "one_group")), **NAMES)
def test_small_programs_equal_reference(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.parametrize("case", some((name for name in EVERY if name != "kernel_5"), GATHERED), **NAMES)
def test_deterministic_gradient_of_the_value(case: Case) -> None:
    case = images(case)
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.parametrize(
    ("case_name", "name", "deterministic"),
    some(product(dict.fromkeys(name for name, *_ in IN_16_BIT), ("fp16", "bf16"), (False, True)), IN_16_BIT),
)
def test_kernels_in_16_bit(case_name: str, name: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    case = one_image(named(case_name))
    tensors = case.tensors(torch.float16 if name == "fp16" else torch.bfloat16)
    found = by_kernels(case, tensors)
    assert {each.dtype for each in found} == {tensors[0].dtype}
    assert_close(found, expect(case, tensors), name)


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize(
    ("threads_per_row", "depth", "chunk"),
    some(
        ((threads, *row) for threads, row in product((1, 2, 4), ((8, 9), (12, 2), (16, 3)))),
        ((1, 16, 3), (2, 12, 2), (4, 12, 2), (4, 8, 9)),
    ),
)
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
    case = Case("many_images", "", (3, 3, 4, 1, 2))
    tensors = case.tensors(torch.float32)
    assert_close(by_kernels(case, tensors), expect(case, tensors), "fp32")


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize(
    ("shift", "dtype"),
    some(product((0, 1), (torch.float32, torch.float16)), ((0, torch.float16), (1, torch.float32))),
    ids=str,
)
def test_slices_of_one_projection(shift: int, dtype: torch.dtype) -> None:
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
    expected = triton_launch.forward(plain)
    assert torch.equal(triton_launch.forward(problem), expected)
    grad = torch.ones_like(expected)
    for found, expected in zip(triton_launch.backward(problem, grad), triton_launch.backward(plain, grad), strict=True):
        assert torch.equal(found, expected)
        assert found.is_contiguous()


@pytest.mark.usefixtures("atomic")
def test_nothing_outside_the_tensors_counts() -> None:
    """The inputs lie between NaN; an element too far would show."""
    case = one_image(named("nan_offsets"))
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


@cache
def output(name: str) -> Tensor:
    """The kernels', computed once for all sabotages."""
    case = named(name)
    return gpu.forward(*case.tensors(torch.float32), case.geometry, case.pattern.normalize)


@pytest.mark.parametrize("sabotage", SABOTAGES, **NAMES)
def test_sabotage_is_rejected(sabotage: Sabotage) -> None:
    """Every classic mistake is further from the kernels' result than the tolerance."""
    for case in (named("odd_map_5x4"), named("remove_center"), named("kernel_3x2")):
        if sabotage.applies(case):
            wrong = sabotage.wrong(case, case.tensors(torch.float32))
            assert relative_rms(wrong, output(case.name)) > 100 * TOLERANCE["fp32"][0]


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
