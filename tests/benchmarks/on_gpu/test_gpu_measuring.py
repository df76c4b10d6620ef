"""A comparison goes on without whoever fails, and takes the time that there is."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.comparison import Contender
from benchmarks.memory import Memory
from benchmarks.on_gpu.clock import Reading, wall_clock
from benchmarks.on_gpu.extensions import Peers
from benchmarks.on_gpu.measuring import DeviceLost, Setup, Trial, is_out_of_memory, measure

from benchmarks.on_gpu import measuring

CPU = torch.device("cpu")


def setup(**changes: Any) -> Setup:
    values: dict[str, Any] = {"rounds": 3} | changes
    return Setup(CPU, Peers({}, Path("unused"), CPU), wall_clock, 1e9, quick=True, **values)


class Fails:
    """A call that fails from some time on; it can be watched."""

    def __init__(self, error: Exception, after: int) -> None:
        self.error, self.left = error, after

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of GPU memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out of GPU memory"),
        (RuntimeError("broken\nmore"), "RuntimeError: broken"),
    ],
)
@pytest.mark.parametrize("after", [0, 6])
def test_who_fails_while_the_clock_runs_is_dropped_alone(
    error: Exception, reason: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the warm-up, and between samples."""
    bad = Fails(error, after)
    watched = weakref.ref(bad)
    alive: list[bool] = []

    def release() -> None:
        # This test holds the error, and with it the frames of the call.
        error.__traceback__ = None
        gc.collect()
        alive.append(watched() is not None)

    monkeypatch.setattr(measuring, "release", release)
    trial = Trial("work", {}, "ours", [Contender("ours", lambda: None), Contender("bad", bad)])
    trial.contenders.append(Contender("theirs", lambda: time.sleep(0.002)))
    trial.memory["bad"] = Memory(1.0, 2.0)
    del bad
    finding = measure(trial, setup())
    assert [row.name for row in finding.rows] == ["ours", "theirs"]
    assert all(len(row.timing.samples_ms) == 3 and row.ratio is not None for row in finding.rows)
    assert finding.why_missing("bad") == f"failed while the clock ran: {reason}"
    assert alive == [False], "its memory is free when the others begin again"
    assert [contender.name for contender in trial.contenders] == ["ours", "theirs"], "nor does it come back"


def test_if_all_fail_the_reasons_are_kept() -> None:
    trial = Trial("work", {}, "a", [Contender(name, Fails(ValueError(name), 0)) for name in "ab"])
    finding = measure(trial, setup())
    assert finding.rows == ()
    assert finding.skipped == tuple((name, f"failed while the clock ran: ValueError: {name}") for name in "ab")


def test_a_lost_device_ends_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    bad = Fails(RuntimeError("CUDA error: an illegal memory access was encountered"), 0)
    with pytest.raises(DeviceLost):
        measure(Trial("work", {}, None, [Contender("bad", bad)]), setup())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("out of resource: shared memory"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_who_says_that_memory_is_short(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


@pytest.mark.parametrize(
    ("wished", "left_s", "expected"),
    [(None, None, 10.0), (60.0, None, 60.0), (60.0, 1000.0, 60.0), (60.0, 20.0, 14.0), (None, -3.0, 0.0)],
)
def test_rounds_take_what_they_may_and_what_is_left(
    wished: float | None, left_s: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[float] = []

    def take_turns(calls: dict[str, Callable[[], object]], clock: object, **options: Any) -> dict[str, Reading]:
        budgets.append(options["budget_s"])
        return {}

    monkeypatch.setattr(measuring, "take_turns", take_turns)
    deadline = None if left_s is None else time.monotonic() + left_s
    measure(Trial("work", {}, None, [Contender("a", int)], budget_s=wished), setup(deadline=deadline))
    assert budgets == [pytest.approx(expected, abs=0.1)]
