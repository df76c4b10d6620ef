"""The clock of the GPU benchmark: turns, rotation, and a device that keeps busy while calls queue up."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import pytest
import torch
from benchmarks.on_gpu.clock import ContenderFailed, EventClock, Sample, rotated, take_turns, wall_clock
from benchmarks.timing import Timing, Workload


class Result:
    """What a call allocates; can be watched."""


def test_rotated_takes_one_set_after_the_other() -> None:
    seen: list[float] = []
    call = rotated(lambda tensor: seen.append(float(tensor)), [(torch.tensor(1.0),), (torch.tensor(2.0),)])
    seen.clear()
    for _ in range(5):
        call()
    assert seen == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_as_many_results_as_inputs_live_at_any_time() -> None:
    made: list[weakref.ref[Result]] = []

    def run(number: int) -> Result:
        result = Result()
        made.append(weakref.ref(result))
        return result

    call = rotated(run, [(torch.tensor(number),) for number in range(3)])
    assert [ref() is not None for ref in made] == [True] * 3, "before the first sample"
    for _ in range(4):
        call()
    assert [ref() is not None for ref in made] == [False] * 4 + [True] * 3


def test_turns_are_interleaved_and_short_calls_repeat() -> None:
    order: list[str] = []

    def clock(call: Workload, times: int, lead_s: float) -> Sample:
        name = str(call())
        order.append(name)
        assert (lead_s > 0) == (len(order) > 12), "after the warm-up the device is kept busy first"
        return Sample(2.0 if name == "a" else 0.5, 10.0, starved=name == "b")

    calls = {name: partial(str, name) for name in "abc"}
    readings = take_turns(calls, clock, rounds=4, budget_s=10.0, sample_ms=5.0, queued=True)
    assert "".join(order) == "aaaabbbbcccc" + "abccbabcaacb"
    assert readings["a"].timing == Timing((2.0,) * 4, 3)
    assert readings["b"].timing.calls_per_sample == 10
    assert [reading.starved for reading in readings.values()] == [False, True, False]


def test_who_failed_is_told() -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(ContenderFailed) as failed:
        take_turns({"good": int, "bad": fail}, wall_clock, rounds=2, budget_s=1.0, sample_ms=0.0, queued=False)
    assert failed.value.name == "bad"
    assert str(failed.value.error) == "broken"


class Device:
    """A GPU whose clock needs a while to reach its speed: cycles per millisecond, before and after half a billion."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[Any] = []
        self.now_ms, self.cycles = 0.0, 0
        device = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.at_ms = -1.0

            def record(self) -> None:
                self.at_ms = device.now_ms
                device.log.append("event")

            def synchronize(self) -> None:
                device.log.append("wait")

            def elapsed_time(self, other: Event) -> float:
                return other.at_ms - self.at_ms

        fake = {"Event": Event, "_sleep": self.sleep, "synchronize": lambda device: self.log.append("idle")}
        for name, value in fake.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def sleep(self, cycles: int) -> None:
        speed = 1_000_000 if self.cycles < 400_000_000 else 2_000_000
        self.cycles += cycles
        self.now_ms += cycles / speed
        self.log.append(cycles)

    def call(self) -> None:
        self.now_ms += 5.0
        self.log.append("call")


def test_event_clock_is_calibrated_at_full_speed_and_keeps_the_device_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    clock = EventClock(torch.device("cuda"))
    device.log.clear()
    sample = clock(device.call, 2, 1e-3)
    # Two million cycles are a millisecond, once it runs at its speed.
    assert device.log == ["idle", "event", 2_000_000, "event", "call", "call", "event", "wait"]
    assert sample.ms == pytest.approx(5.0)


def test_the_lead_that_was_measured_says_whether_the_device_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    clock = EventClock(torch.device("cuda"))
    seconds = iter([0.0, 0.002] * 3)
    monkeypatch.setattr("benchmarks.on_gpu.clock.time.perf_counter", lambda: next(seconds))
    assert not clock(device.call, 1, 3e-3).starved, "calls take 2 ms to start, and the device is busy for 3"
    assert not clock(device.call, 1, 0.0).starved, "without a lead nobody claims that it is"
    # The clock rate doubles: the nominal 3 ms are 1.5.
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: device.sleep(cycles // 2))
    assert clock(device.call, 1, 3e-3).starved
