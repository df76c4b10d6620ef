"""Checks that refuse ratios, and memory that is the workload's own."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from benchmarks.comparison import Agreement, Comparison, Contender, Result, Settings, measure, relative_rms
from benchmarks.memory import Memory, peak_memory

QUICK = Settings(rounds=3, quick=True)


def found(*agreements: Agreement) -> Result:
    contenders = tuple(Contender(name, partial(sum, range(100))) for name in ("ours", "same", "other"))
    return measure(Comparison("sums", contenders, agreements, images_per_call=2), QUICK)


def test_contenders_that_agree_get_ratios_and_speeds() -> None:
    result = found(Agreement("same", "output", 1e-7, 1e-5))
    assert result.agrees
    ratios = [row.ratio for row in result.rows]
    assert ratios[0] is not None
    assert ratios[0].median == ratios[0].low == ratios[0].high == 1.0
    assert all(ratio is not None and ratio.median > 0 for ratio in ratios)
    for row in result.rows:
        assert row.images_per_second == pytest.approx(2000 / row.timing.median_ms)


@pytest.mark.parametrize("error", [1.1e-5, float("inf"), float("nan")])
def test_a_contender_with_other_results_gets_no_ratio(error: float) -> None:
    result = found(Agreement("same", "output", error, 1e-5))
    assert not result.agrees
    ours, same, other = result.rows
    assert same.ratio is None
    assert same.refused is not None
    assert "output" in same.refused
    assert ours.ratio is not None
    assert other.ratio is not None


def test_a_baseline_with_wrong_results_leaves_no_ratio_at_all() -> None:
    result = found(Agreement("ours", "output", 0.5, 1e-5), Agreement("same", "output", 0.0, 1e-5))
    assert [row.ratio for row in result.rows] == [None, None, None]
    assert all(row.refused for row in result.rows)


def test_relative_rms() -> None:
    expected = torch.tensor([3.0, 4.0, 0.0])
    assert relative_rms(expected, expected) == 0.0
    assert relative_rms(2 * expected, expected) == pytest.approx(1.0)
    assert relative_rms(torch.zeros(3), expected) == pytest.approx(1.0)
    assert relative_rms(torch.ones(3), torch.zeros(3)) > 0
    assert relative_rms(torch.zeros(2), expected) == float("inf")
    assert relative_rms(torch.tensor([3.0, float("nan"), 0.0]), expected) == float("inf")
    assert relative_rms(torch.tensor([3.0, float("inf"), 0.0]), expected) == float("inf")


def test_memory_is_the_workload_s_own_whatever_the_parent_holds() -> None:
    in_the_parent = np.ones(150 * 2**17)
    allocate_100_mib = partial(np.ones, 100 * 2**17)
    memory = peak_memory(partial(partial, allocate_100_mib), torch.device("cpu"), 1)
    assert in_the_parent.nbytes == 150 * 2**20
    assert 95 < memory.added_mib < 130, memory
    assert memory.added_mib == memory.peak_mib - memory.ready_mib


def test_a_quick_run_measures_the_first_contender_s_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []

    def record(rebuild: object, device: torch.device, threads: int) -> Memory:
        measured.append(rebuild)
        return Memory(1.0, 2.0)

    monkeypatch.setattr("benchmarks.comparison.peak_memory", record)
    contenders = tuple(Contender(name, int, partial(str, name)) for name in ("first", "second"))
    quick = measure(Comparison("numbers", contenders), QUICK)
    assert len(measured) == 1
    assert [row.memory for row in quick.rows] == [Memory(1.0, 2.0), None]
    measure(Comparison("numbers", (*contenders, Contender("third", int))), Settings(rounds=1))
    assert len(measured) == 3, "only who can be rebuilt is measured"
