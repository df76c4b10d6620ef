"""Time callables side by side: in turns, so that a slow spell of the machine hits all of them alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Workload = Callable[[], object]

_MOST_CALLS = 1000
# With fewer, quartiles say little.
_LEAST_ROUNDS = 5
_LONG_MS = 1000.0


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call, one sample a round.

    Args:
        samples_ms: in the order of the rounds; each is the mean of ``calls_per_sample`` calls in a row.
        calls_per_sample: more than one where a single call is too short for the clock.
    """

    samples_ms: tuple[float, ...]
    calls_per_sample: int = 1

    @property
    def median_ms(self) -> float:
        """The middle sample: one slow round does not move it, as it would the mean."""
        return statistics.median(self.samples_ms)

    @property
    def min_ms(self) -> float:
        """The fastest sample: the least disturbed by other programs."""
        return min(self.samples_ms)

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """The first and the third quartile; half of the samples lie between them."""
        return quartiles(self.samples_ms)


@dataclass(frozen=True)
class Ratio:
    """How many times as long as the baseline a call takes: median and quartiles over the rounds."""

    median: float
    low: float
    high: float


def interleave(
    calls: Mapping[str, Workload],
    *,
    rounds: int,
    warmup: int = 2,
    sample_ms: float = 20.0,
    budget_s: float = math.inf,
    rest_s: float = 0.0,
    synchronize: Workload = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every callable once a round, for ``rounds`` rounds, after ``warmup`` calls of each.

    Args:
        calls: what to time, by name.
        rounds: samples per callable, at least 1.
        warmup: calls before the first round, at least 1; a call of more than a second is made once. The last one
            says how many calls make a sample.
        sample_ms: the least duration of a sample, in milliseconds.
        budget_s: where ``rounds`` would take longer, in seconds, there are fewer, but 5 if ``rounds`` allows.
        rest_s: seconds of rest before each sample: libraries keep idle threads spinning for a while.
        synchronize: waits until the device has finished; called before and after each sample.
        clock: seconds, monotonic.

    Raises:
        ValueError: nothing to time, or fewer than one round or warm-up call.
    """
    if not calls or rounds < 1 or warmup < 1:
        raise ValueError(
            f"need a callable, a round and a warm-up call; got {len(calls)} callables, {rounds} rounds, warmup {warmup}"
        )

    def sample(call: Workload, times: int) -> float:
        if rest_s:
            time.sleep(rest_s)
        synchronize()
        started = clock()
        for _ in range(times):
            call()
        synchronize()
        return 1000 * (clock() - started) / times

    names = list(calls)
    with _no_collection():
        first_ms: dict[str, float] = {}
        for name, call in calls.items():
            for _ in range(warmup):
                first_ms[name] = sample(call, 1)
                if first_ms[name] > _LONG_MS:
                    break
        times = {name: calls_per_sample(first_ms[name], sample_ms) for name in names}
        round_s = sum(first_ms[name] * times[name] for name in names) / 1000
        samples: dict[str, list[float]] = {name: [] for name in names}
        for number in range(affordable_rounds(rounds, round_s, budget_s)):
            for name in turns(names, number):
                samples[name].append(sample(calls[name], times[name]))
    return {name: Timing(tuple(samples[name]), times[name]) for name in names}


def turns(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: forwards, then the same backwards, then both again from one further on.

    So nobody always comes first, or always after the same neighbour, whose data still fill the caches. Shifted in every
    round, two would keep their order: the shift would undo the reversal.

    >>> [" ".join(turns("abc", number)) for number in range(4)]
    ['a b c', 'c b a', 'b c a', 'a c b']
    >>> [" ".join(turns("ab", number)) for number in range(4)]
    ['a b', 'b a', 'b a', 'a b']
    """
    start = number // 2 % len(names)
    order = [*names[start:], *names[:start]]
    return order[::-1] if number % 2 else order


def calls_per_sample(call_ms: float, sample_ms: float) -> int:
    """How many calls in a row last at least ``sample_ms``, between 1 and 1,000.

    >>> calls_per_sample(3.0, 20.0), calls_per_sample(500.0, 20.0), calls_per_sample(0.0, 20.0)
    (7, 1, 1000)
    """
    if call_ms * _MOST_CALLS <= sample_ms:
        return _MOST_CALLS
    return max(1, math.ceil(sample_ms / call_ms))


def affordable_rounds(rounds: int, round_s: float, budget_s: float) -> int:
    """As many of ``rounds`` as the budget pays for, but at least 5 of them.

    >>> affordable_rounds(10, 2.0, 14.0), affordable_rounds(10, 9.0, 14.0), affordable_rounds(3, 9.0, 14.0)
    (7, 5, 3)
    """
    if round_s * rounds <= budget_s:
        return rounds
    return min(rounds, max(_LEAST_ROUNDS, int(budget_s / round_s)))


def paired_ratio(timing: Timing, baseline: Timing) -> Ratio:
    """Compare round by round, then take the median: what slows a whole round down cancels out.

    Raises:
        ValueError: the two were not timed in the same rounds.

    >>> paired_ratio(Timing((2.0, 40.0, 3.0)), Timing((1.0, 20.0, 1.0)))
    Ratio(median=2.0, low=2.0, high=2.5)
    """
    if len(timing.samples_ms) != len(baseline.samples_ms):
        raise ValueError(f"{len(timing.samples_ms)} and {len(baseline.samples_ms)} rounds can't be paired")
    ratios = [ours / theirs for ours, theirs in zip(timing.samples_ms, baseline.samples_ms, strict=True)]
    return Ratio(statistics.median(ratios), *quartiles(ratios))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile, interpolated between neighbours.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 4.0)
    """
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def synchronizer(device: torch.device) -> Workload:
    """What waits for the device: CUDA runs behind the program's back, the CPU does not."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
