"""The branch's Triton kernels in Triton's interpreter: run by test_branch_op.py, in a process of its own.

By hand: ``TRITON_INTERPRET=1 pytest tests/ops/interpreted_branch.py``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from internimage.ops.branch import branch_reference, op
from support.branch import CASES, EPS, MASKS, NAMES, Case, Outcome, assert_close, composed, run
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory", "kernels")
FORWARD, BACKWARD = torch.ops.internimage.branch.default, torch.ops.internimage.branch_backward.default


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels run on CPU tensors too."""
    from internimage.ops.branch import triton_kernels

    assert type(triton_kernels.forward_kernel).__name__ == "InterpretedFunction", "set TRITON_INTERPRET=1"
    monkeypatch.setattr(op, "why_not", lambda *_: None)


def by_kernels(*arguments: Any, out_dtype: torch.dtype | None = None) -> Tensor:
    *tensors, activation = arguments
    return FORWARD(*tensors, EPS, activation, out_dtype)


def expect(case: Case, tensors: list[Tensor | None]) -> Outcome:
    return run(composed, case, [None if each is None else each.double() for each in tensors])


@pytest.mark.parametrize("case", CASES, **NAMES)
def test_kernels_equal_layers(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    assert_close(run(by_kernels, case, tensors), expect(case, tensors), 2e-7, 1e-6)


@pytest.mark.parametrize("name", ["odd_map_5x4", "channels_70"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_kernels_in_16_bit(name: str, dtype: torch.dtype) -> None:
    case = next(case for case in CASES if case.name == name)
    eps = torch.finfo(dtype).eps
    for parameters in (dtype, torch.float32):
        tensors = case.tensors(dtype, parameters)
        found = run(by_kernels, case, tensors)
        assert (found.output.dtype, found.grad_x.dtype, found.grad_norm_bias.dtype) == (dtype, dtype, parameters)
        assert_close(found, expect(case, tensors), eps, 2 * eps)


def test_float32_map_under_autocast() -> None:
    """One rounding, at the end: no value is further from the exact one than half a step of float16."""
    case = CASES[0]
    tensors = case.tensors(torch.float32)
    found = run(lambda *t: by_kernels(*t, out_dtype=torch.float16), case, tensors)
    expected = composed(*tensors, case.activation)
    assert (found.output.dtype, found.grad_x.dtype) == (torch.float16, torch.float32)
    torch.testing.assert_close(found.output.float(), expected, rtol=2**-11 + 1e-6, atol=1e-6)


# NumPy says what a GPU does not.
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("width", [5, 9])
def test_no_variance_off_the_map(width: int) -> None:
    """Without a bias the convolution is zero off the map, its deviation too, and nothing is added to it."""
    case = Case("no_eps", "", (2, 4, width, 6), has_bias=False)
    tensors = [None if each is None else each.requires_grad_() for each in case.tensors(torch.float32)]
    found = torch.autograd.grad(
        FORWARD(*tensors, 0.0, "gelu").square().sum(), [each for each in tensors if each is not None]
    )
    exact = [None if each is None else each.detach().double().requires_grad_() for each in tensors]
    expected = torch.autograd.grad(
        branch_reference(*exact, 0.0, "gelu").square().sum(), [each for each in exact if each is not None]
    )
    assert max(relative_rms(*pair) for pair in zip(found, expected, strict=True)) < 1e-5


@cache
def all_gradients(name: str) -> tuple[tuple[Any, ...], list[Tensor]]:
    """What a case's backward takes, and what it gives if all is wanted: computed once for all that want less."""
    case = next(case for case in CASES if case.name == name)
    tensors = case.tensors(torch.float32)
    arguments = FORWARD(*tensors, EPS, case.activation), *tensors, EPS, case.activation
    return arguments, BACKWARD(*arguments, [True] * 3)


@pytest.mark.parametrize("output_mask", MASKS, ids=str)
@pytest.mark.parametrize("name", ["odd_map_5x4", "channels_70", "no_bias", "batch_0"])
def test_only_what_is_wanted(name: str, output_mask: list[bool]) -> None:
    """The same bits as all together, and of the rest nothing."""
    arguments, whole = all_gradients(name)
    for wanted, found, expected in zip(output_mask, BACKWARD(*arguments, output_mask), whole, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected if wanted else expected.new_empty(0))


@pytest.mark.parametrize("name", ["many_rows", "two_strips", "kernel_5"])
def test_few_programs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes down many rows, from one image into the next, and the last one has fewer to do."""
    from internimage.ops.branch import triton_launch

    whole = triton_launch.spread
    monkeypatch.setattr(triton_launch, "spread", lambda x, pixels, *_: whole(x, pixels, 4))
    case = next(case for case in CASES if case.name == name)
    tensors = case.tensors(torch.float32)
    assert whole(tensors[0], 4, 4).rows > 1
    assert_close(run(by_kernels, case, tensors), expect(case, tensors), 2e-7, 1e-6)


@cache
def usual() -> Outcome:
    """The first case, computed once for all that compare with it."""
    return run(by_kernels, CASES[0], CASES[0].tensors(torch.float32))


def test_nothing_outside_the_map_is_read() -> None:
    case = CASES[0]
    tensors = case.tensors(torch.float32)
    around = torch.full((6, *case.shape[1:]), float("nan"))
    x = around[2:4].copy_(tensors[0])
    assert_close(run(by_kernels, case, [x, *tensors[1:]]), usual(), 0.0, 0.0)


def test_equal_inputs_give_equal_bits() -> None:
    assert_close(run(by_kernels, CASES[0], CASES[0].tensors(torch.float32)), usual(), 0.0, 0.0)


def test_a_broken_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch that leaves out the last rows: the memory that nobody wrote is NaN, and no tolerance takes that."""
    from internimage.ops.branch import triton_launch

    whole = triton_launch.spread
    monkeypatch.setattr(
        triton_launch, "spread", lambda *a: (s := whole(*a))._replace(programs=max(1, s.programs - s.strips))
    )
    case = CASES[0]
    tensors = case.tensors(torch.float32)
    with pytest.raises(AssertionError, match="inf"):
        assert_close(run(by_kernels, case, tensors), expect(case, tensors), 1e9, 1e9)
