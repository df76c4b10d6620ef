"""Deformable attention's Triton kernels in Triton's interpreter: run by test_attention_triton.py, in its own process.

By hand: ``TRITON_INTERPRET=1 pytest tests/ops/attention/interpreted_attention.py``; ``-m slow`` has further cases.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.ops.attention import deformable_attention_reference, triton_launch
from internimage.ops.dcnv3 import triton_tuning
from support.attention.cases import CASES, NAMES, SABOTAGES, Case, Sabotage, Shapes, Tensors, check, named, outcome
from support.compare import TOLERANCE, Outcome, relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# As small as the interpreter likes it, with everything that a detector's have; points in chunks that don't divide them.
SMALL = Case("small", "", 2, ((3, 4), (1, 3)), 2, 12, 3, 3)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {type(kernel).__name__ for kernel in triton_launch.KERNELS}
    assert kinds == {"InterpretedFunction"}, "set TRITON_INTERPRET=1"
    # Programs of more rows: the interpreter's time goes by their number.
    monkeypatch.setattr(triton_tuning, "are_few", lambda _: False)


@pytest.fixture
def atomic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual way of the value's gradient; memory stays poisoned, for which PyTorch wants to be deterministic."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)


class Kernels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, shapes: Shapes, points: Tensor, weights: Tensor) -> Tensor:
        ctx.problem = triton_launch.Problem.of(value, [side for size in shapes for side in size], points, weights)
        return triton_launch.forward(ctx.problem)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        to_value, to_points, to_weights = triton_launch.backward(ctx.problem, grad)
        return to_value, None, to_points, to_weights


def expect(case: Case, tensors: Tensors) -> Outcome:
    """The reference in float64 on the same, already rounded inputs."""
    value, points, weights = (tensor.double() for tensor in tensors)
    return outcome(deformable_attention_reference, case, (value, points, weights))


def slow_but(*kept: str) -> list[Any]:
    return [pytest.param(case, marks=() if case.name in kept else pytest.mark.slow) for case in CASES]


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("case", slow_but("thin_maps", "batch_0", "queries_0"), **NAMES)
def test_kernels_equal_reference(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    check(outcome(Kernels.apply, case, tensors), expect(case, tensors), "fp32")


@pytest.mark.parametrize("case", slow_but("hostile_points", "nothing"), **NAMES)
def test_deterministic_gradient_of_the_value(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    check(outcome(Kernels.apply, case, tensors), expect(case, tensors), "fp32")


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("name", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_kernels_in_16_bit(name: str) -> None:
    tensors = SMALL.tensors(TYPES[name])
    found = outcome(Kernels.apply, SMALL, tensors)
    assert [each.dtype for each in found] == [TYPES[name]] * 2 + [torch.float32] * 2
    check(found, expect(SMALL, tensors), name)


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize(
    ("threads_per_row", "chunk"), [(2, 2), *(pytest.param(*row, marks=pytest.mark.slow) for row in ((1, 1), (4, 3)))]
)
def test_every_way_to_share_a_row(threads_per_row: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels in parts, the last not full; several programs; indices in 64 bits, as only large tensors take them."""
    monkeypatch.setattr(triton_launch, "_INT32", 0)
    tensors = SMALL.tensors(torch.float32)
    config = triton_tuning.Config(threads_per_row, 1, chunk)
    kinds = "attention_forward", "attention_backward"
    with triton_tuning.use_config(kinds[0], config), triton_tuning.use_config(kinds[1], config):
        check(outcome(Kernels.apply, SMALL, tensors), expect(SMALL, tensors), "fp32")


def forward(case: Case, tensors: Tensors) -> Tensor:
    return Kernels.apply(tensors[0], case.shapes, tensors[1], tensors[2])


def test_nothing_outside_the_tensors_counts_and_views_are_taken() -> None:
    """The inputs lie between NaN, at odd addresses; an element too far would show."""
    tensors, inside = SMALL.tensors(torch.float32), []
    for tensor in tensors:
        around = torch.full((tensor.numel() + 22,), float("nan"))
        around[11:-11] = tensor.flatten()
        inside.append(around[11:-11].view(tensor.shape))
    assert torch.equal(forward(SMALL, (inside[0], inside[1], inside[2])), forward(SMALL, tensors))


def test_sabotage_is_rejected() -> None:
    case = named("two_levels")
    tensors = case.tensors(torch.float32)
    found = forward(case, tensors)

    def is_far(sabotage: Sabotage) -> bool:
        wrong = sabotage.wrong(deformable_attention_reference, case, tensors)
        return relative_rms(wrong, found) > 100 * TOLERANCE["fp32"][0]

    assert all(map(is_far, SABOTAGES))


@pytest.mark.usefixtures("atomic")
def test_a_forgotten_program_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left out is NaN, and no tolerance takes that."""
    monkeypatch.setattr(triton_launch, "_ceil", lambda a, b: (a + b - 1) // b - 1)
    case = Case("programs", "", 1, ((2, 2),), 1, 4, 40, 1)
    tensors = case.tensors(torch.float32)
    config = triton_tuning.Config(1, 1, 1)
    with triton_tuning.use_config("attention_forward", config), pytest.raises(AssertionError, match="inf"):
        check(expect(case, tensors)._replace(output=forward(case, tensors)), expect(case, tensors), "fp32")
