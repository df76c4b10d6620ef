"""Time on a GPU, contenders in turns; and the bytes that a kernel can't avoid, against what a plain copy reaches."""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.timing import Timing, Workload, affordable_rounds, calls_per_sample, turns

# A GPU's queue takes about a thousand kernels; a call is a dozen at most.
_MOST_QUEUED = 50
_LONGEST_LEAD_S = 0.1
_WARM_UPS = 3
# Of the device's clock, which needs a while to reach its speed: about 0.3 s, then 10 ms that are timed.
_SPIN_CYCLES, _TIMED_CYCLES = 500_000_000, 20_000_000


class ContenderFailed(Exception):  # noqa: N818 (the cause is the error)
    """Somebody failed while the clock ran.

    Args:
        name: who.
        error: why.
    """

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name, error)
        self.name, self.error = name, error


@dataclass(frozen=True)
class Sample:
    """Milliseconds per call on the device; microseconds per call that the program needed to start it.

    ``starved``: the device may have waited for the program, so the first number holds some of the second.
    """

    ms: float
    launch_us: float
    starved: bool = False


@dataclass(frozen=True)
class Reading:
    """All samples of one contender."""

    timing: Timing
    launch_us: float
    starved: bool = False


# (call, how often, seconds that the device is kept busy before) -> a sample
Clock = Callable[[Workload, int, float], Sample]


def wall_clock(call: Workload, times: int, lead_s: float) -> Sample:
    """For a CPU, where a call returns when it is done."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    ms = 1000 * (time.perf_counter() - started) / times
    return Sample(ms, 1000 * ms)


class EventClock:
    """CUDA events around calls in a row.

    Short kernels end sooner than a Python program starts the next one. So the device first gets something to wait for,
    while the calls queue up behind it: then the events measure the device alone.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        start, end = self._event(), self._event()
        # An idle device runs slowly: counted then, a second would have too few cycles.
        _sleep(_SPIN_CYCLES)
        start.record()
        _sleep(_TIMED_CYCLES)
        end.record()
        end.synchronize()
        self._cycles_per_s = _TIMED_CYCLES / max(start.elapsed_time(end) / 1000, 1e-6)

    def __call__(self, call: Workload, times: int, lead_s: float) -> Sample:
        """See `Clock`."""
        before, start, end = self._event(), self._event(), self._event()
        torch.cuda.synchronize(self._device)
        before.record()
        if lead_s > 0:
            _sleep(int(lead_s * self._cycles_per_s))
        start.record()
        started = time.perf_counter()
        for _ in range(times):
            call()
        launch_s = time.perf_counter() - started
        end.record()
        end.synchronize()
        # The lead as it was: the device's clock rate changes.
        starved = lead_s > 0 and before.elapsed_time(start) / 1000 < launch_s
        return Sample(start.elapsed_time(end) / times, 1e6 * launch_s / times, starved)

    @staticmethod
    def _event() -> Any:
        return torch.cuda.Event(enable_timing=True)


def make_clock(device: torch.device) -> Clock:
    """Events on a GPU, the wall clock on a CPU."""
    return EventClock(device) if device.type == "cuda" else wall_clock


def take_turns(
    calls: Mapping[str, Workload], clock: Clock, *, rounds: int, budget_s: float, sample_ms: float, queued: bool
) -> dict[str, Reading]:
    """Time each call once a round, after three calls to warm up.

    Args:
        calls: by name.
        clock: times calls in a row.
        rounds: samples of each; fewer, but 5 if ``rounds`` allows, where they would take longer than the budget.
        budget_s: seconds for all rounds together.
        sample_ms: the least duration of a sample.
        queued: measure the device alone, without what the program needs to start a kernel.

    Raises:
        ContenderFailed: a call raised.
    """

    def sample(name: str, times: int, lead_s: float) -> Sample:
        try:
            return clock(calls[name], times, lead_s)
        except Exception as error:
            raise ContenderFailed(name, error) from error

    times: dict[str, int] = {}
    lead_s: dict[str, float] = {}
    round_s = 0.0
    for name in calls:
        first = sample(name, 1, 0.0)
        for _ in range(_WARM_UPS - 1):
            first = sample(name, 1, 0.0)
            if first.ms > 1000:
                break
        first = sample(name, 2, 0.0) if first.ms < 500 else first
        most = _MOST_QUEUED if queued else 1000
        times[name] = min(most, calls_per_sample(first.ms, sample_ms))
        lead_s[name] = min(_LONGEST_LEAD_S, 1.5e-6 * first.launch_us * times[name] + 2e-4) if queued else 0.0
        round_s += first.ms * times[name] / 1000 + lead_s[name]
    names = list(calls)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(affordable_rounds(rounds, round_s, budget_s)):
            for name in turns(names, number):
                samples[name].append(sample(name, times[name], lead_s[name]))
    finally:
        if was_on:
            gc.enable()
    return {name: _reading(samples[name], times[name]) for name in names}


def _reading(samples: Sequence[Sample], times: int) -> Reading:
    timing = Timing(tuple(sample.ms for sample in samples), times)
    launch_us = statistics.median(sample.launch_us for sample in samples)
    # One late round does not move a median.
    return Reading(timing, launch_us, 2 * sum(sample.starved for sample in samples) > len(samples))


def rotation_count(set_bytes: int, cache_bytes: int) -> int:
    """How many sets of inputs in turn make sure that none is still in the cache: twice its size lies between two uses.

    >>> rotation_count(60, 50), rotation_count(10, 50), rotation_count(500, 50)
    (3, 11, 2)
    """
    return max(2, math.ceil(2 * cache_bytes / set_bytes) + 1)


def cache_bytes(device: torch.device) -> int:
    """Size of the GPU's last cache; nothing on a CPU, where nothing is measured."""
    if device.type != "cuda":
        return 0
    properties = torch.cuda.get_device_properties(device)
    # An H100's, where PyTorch does not say.
    return int(getattr(properties, "L2_cache_size", 50 * 2**20))


def rotated(run: Callable[..., object], sets: Sequence[tuple[Tensor, ...]]) -> Workload:
    """Call with the next set each time; as many results are kept as there are sets.

    A result that was dropped would leave its memory to the next one: all would be written to the same place, and that
    stays in the cache. The first results are made here, so that no sample waits for new memory.
    """
    turn = itertools.cycle(sets)
    kept = deque((run(*next(turn)) for _ in sets), maxlen=len(sets))
    return lambda: kept.append(run(*next(turn)))


def compulsory_bytes(positions: int, groups: int, depth: int, points: int, itemsize: int, *, backward: bool) -> int:
    """What must be read and written at least once, for equal maps in and out.

    Forward: value, offset and mask in, output out. Backward: these three and the output's gradient in, three gradients
    out.

    >>> compulsory_bytes(10, 2, 16, 9, 2, backward=False)
    2360
    >>> compulsory_bytes(10, 2, 16, 9, 2, backward=True) - 2360
    4080
    """
    value, offset, mask = depth, 2 * points, points
    forward = value + offset + mask + value
    both = forward + (value + offset + mask + value) + (value + offset + mask)
    return positions * groups * itemsize * (both if backward else forward)


def copy_bandwidth(device: torch.device, clock: Clock) -> float:
    """Bytes per second that a large ``copy_`` reads and writes: the best that memory-bound work can hope for."""
    size = 2**30 if device.type == "cuda" else 2**22
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    reading = take_turns(
        {"copy": lambda: target.copy_(source)}, clock, rounds=10, budget_s=2.0, sample_ms=2.0, queued=True
    )["copy"]
    return 2 * size / (reading.timing.median_ms / 1000)


def _sleep(cycles: int) -> None:
    # PyTorch has no public way to keep a stream busy.
    cast(Any, torch.cuda)._sleep(cycles)
