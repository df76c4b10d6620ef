"""The arithmetic of timing, by a clock that moves only when a callable says so."""

from __future__ import annotations

import doctest
import gc
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import pytest
from benchmarks.timing import Timing, affordable_rounds, calls_per_sample, interleave, paired_ratio, quartiles, turns

from benchmarks import comparison, report, timing


class Machine:
    """A clock in seconds, and callables that take known times."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, *durations_ms: float) -> Callable[[], None]:
        left = list(durations_ms)

        def work() -> None:
            self.called.append(name)
            self.now += (left.pop(0) if len(left) > 1 else left[0]) / 1000

        return work


def test_each_round_calls_everybody_once_and_the_order_changes() -> None:
    machine = Machine()
    calls = {name: machine.call(name, 30.0) for name in "abc"}
    interleave(calls, rounds=6, warmup=2, clock=machine.clock)
    warm, timed = machine.called[:6], machine.called[6:]
    assert warm == ["a", "a", "b", "b", "c", "c"]
    rounds = [timed[start : start + 3] for start in range(0, len(timed), 3)]
    assert len(rounds) == 6
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert {names[0] for names in rounds} == {"a", "b", "c"}, "somebody never comes first"


def test_nobody_always_follows_the_same_neighbour() -> None:
    names = ["a", "b", "c"]
    before: dict[str, set[str]] = {name: set() for name in names}
    for number in range(6):
        for first, second in pairwise(turns(names, number)):
            before[second].add(first)
    assert all(len(neighbours) == 2 for neighbours in before.values()), before


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_everybody_comes_equally_often_at_every_place(names: str) -> None:
    rounds = [turns(names, number) for number in range(2 * len(names))]
    for place in range(len(names)):
        assert sorted(order[place] for order in rounds) == sorted(2 * names)


def test_two_swap_their_places() -> None:
    orders = ["".join(turns("ab", number)) for number in range(20)]
    assert orders[:2] == ["ab", "ba"]
    assert orders.count("ab") == orders.count("ba") == 10


def test_samples_are_each_round_s_time_without_the_warm_up() -> None:
    machine = Machine()
    # Two warm-up calls, then five rounds; one round is slow.
    calls = {"steady": machine.call("steady", 25.0), "rough": machine.call("rough", 500, 40, 30, 32, 900, 31, 34)}
    found = interleave(calls, rounds=5, warmup=2, clock=machine.clock)
    assert found["steady"].samples_ms == pytest.approx((25.0,) * 5)
    assert found["rough"].samples_ms == pytest.approx((30, 32, 900, 31, 34))
    assert found["rough"].median_ms == pytest.approx(32)
    assert found["rough"].min_ms == pytest.approx(30)
    assert found["rough"].quartiles_ms == pytest.approx((31, 34))


def test_a_short_call_is_repeated_and_its_mean_taken() -> None:
    machine = Machine()
    found = interleave({"short": machine.call("short", 4.0)}, rounds=2, warmup=1, sample_ms=20.0, clock=machine.clock)
    assert found["short"].calls_per_sample == 5
    assert len(machine.called) == 1 + 2 * 5
    assert found["short"].median_ms == pytest.approx(4.0)


def test_the_device_is_waited_for_before_and_after_each_sample() -> None:
    machine = Machine()
    calls = {"a": machine.call("a", 50.0), "b": machine.call("b", 50.0)}
    interleave(calls, rounds=1, warmup=1, synchronize=lambda: machine.called.append("|"), clock=machine.clock)
    assert "".join(machine.called) == "|a||b||a||b|"


def test_rest_before_each_sample_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr("benchmarks.timing.time.sleep", lambda seconds: machine.call(f"rest {seconds}", 500.0)())
    found = interleave({"a": machine.call("a", 50.0)}, rounds=2, warmup=1, rest_s=0.5, clock=machine.clock)
    assert machine.called == ["rest 0.5", "a"] * 3
    assert found["a"].samples_ms == pytest.approx((50.0, 50.0))


def test_time_until_the_device_has_finished_counts() -> None:
    machine = Machine()
    calls = {"queued": machine.call("queued", 1.0)}
    wait = machine.call("wait", 15.0)
    found = interleave(calls, rounds=1, warmup=1, sample_ms=1.0, synchronize=wait, clock=machine.clock)
    assert found["queued"].median_ms == pytest.approx(16.0)


def test_a_budget_takes_rounds_away_but_leaves_five() -> None:
    machine = Machine()
    found = interleave({"a": machine.call("a", 2000.0)}, rounds=20, warmup=3, budget_s=14.0, clock=machine.clock)
    assert len(found["a"].samples_ms) == 7
    assert len(machine.called) == 1 + 7, "a call of more than a second warms up once"
    assert affordable_rounds(20, 60.0, 14.0) == 5
    assert affordable_rounds(2, 60.0, 14.0) == 2


def test_a_slow_spell_cancels_out_of_the_ratio() -> None:
    baseline = Timing((10.0, 10.0, 50.0, 10.0, 10.0))
    other = Timing((20.0, 20.0, 100.0, 21.0, 19.0))
    ratio = paired_ratio(other, baseline)
    assert ratio.median == pytest.approx(2.0)
    assert (ratio.low, ratio.high) == pytest.approx((2.0, 2.0))
    # The slow spell hit the other's first round alone: the median does not move.
    assert paired_ratio(Timing((90.0, 20.0, 100.0, 21.0, 19.0)), baseline).median == pytest.approx(2.0)


def test_ratios_need_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        paired_ratio(Timing((1.0, 2.0)), Timing((1.0,)))


def test_calls_per_sample_ends_at_a_thousand() -> None:
    assert [calls_per_sample(call_ms, 20.0) for call_ms in (0.0, 0.001, 0.5, 7.0, 20.0, 900.0)] == [
        1000, 1000, 40, 3, 1, 1,
    ]  # fmt: skip


def test_quartiles_of_one_sample_are_that_sample() -> None:
    assert quartiles([3.0]) == (3.0, 3.0)
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 4.0)


def test_garbage_collection_is_off_while_timing_and_on_again_after_an_error() -> None:
    seen: list[bool] = []

    def fail() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("broken contender")

    with pytest.raises(RuntimeError, match="broken contender"):
        interleave({"broken": fail}, rounds=1)
    assert seen == [False]
    assert gc.isenabled()


@pytest.mark.parametrize(("rounds", "warmup", "names"), [(0, 1, "a"), (1, 0, "a"), (1, 1, "")])
def test_nothing_to_time_is_an_error(rounds: int, warmup: int, names: str) -> None:
    with pytest.raises(ValueError, match="need a callable, a round and a warm-up call"):
        interleave(dict.fromkeys(names, int), rounds=rounds, warmup=warmup)


@pytest.mark.parametrize("module", [comparison, report, timing], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
