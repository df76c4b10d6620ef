"""What is compared with what, whether it computes the same, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.memory import Memory, peak_memory
from benchmarks.timing import Ratio, Timing, Workload, interleave, paired_ratio, synchronizer

# Seconds in the rounds of one comparison: all of them together stay within minutes on two cores.
_BUDGET_S = 20.0


@dataclass(frozen=True)
class Settings:
    """What the command line asked for.

    Args:
        official: a checkout of the official repository, or None.
        rounds: samples per contender; fewer where calls are long.
        threads: CPU threads of PyTorch.
        device: where everything runs.
        quick: the smallest sizes: shows that everything runs, measures nothing.
    """

    official: Path | None = None
    rounds: int = 10
    threads: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    quick: bool = False


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Args:
        name: unique in its comparison.
        call: does the work once.
        rebuild: makes the same workload anew and can be pickled; where it is None, memory is not measured.
    """

    name: str
    call: Workload
    rebuild: Callable[[], Workload] | None = None


@dataclass(frozen=True)
class Agreement:
    """How far results are from those that they should equal.

    Args:
        name: whose ratio is refused if it does not hold; for the baseline all ratios are.
        what: what was compared with what.
        error: relative RMS; not finite means wrong.
        limit: the largest error that counts as equal.
    """

    name: str
    what: str
    error: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the results are equal up to rounding; false for a NaN."""
        return self.error <= self.limit


@dataclass(frozen=True)
class Comparison:
    """Contenders that take turns, with the checks that were made before.

    Args:
        title: says the work and its size.
        contenders: the first one is the baseline.
        agreements: checks of contenders that compute the same function; others need none.
        skipped: (name, reason) of whoever could not take part.
        images_per_call: for images per second, or None.
        rest_s: seconds of rest before each sample, for threads of the one before to fall asleep.
    """

    title: str
    contenders: tuple[Contender, ...]
    agreements: tuple[Agreement, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    images_per_call: int | None = None
    rest_s: float = 0.0


@dataclass(frozen=True)
class Row:
    """One contender's findings; ``refused`` says why there is no ratio."""

    name: str
    timing: Timing
    ratio: Ratio | None = None
    refused: str | None = None
    memory: Memory | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class Result:
    """One comparison's findings."""

    title: str
    rows: tuple[Row, ...]
    agreements: tuple[Agreement, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def agrees(self) -> bool:
        """Whether every check holds."""
        return all(agreement.holds for agreement in self.agreements)


def measure(comparison: Comparison, settings: Settings) -> Result:
    """Memory first, then time in turns; a ratio only between contenders that passed their checks."""
    # In a quick run one process shows that memory can be measured.
    measured = comparison.contenders[: 1 if settings.quick else None]
    memory = {
        contender.name: peak_memory(contender.rebuild, settings.device, settings.threads)
        for contender in measured
        if contender.rebuild is not None
    }
    timings = interleave(
        {contender.name: contender.call for contender in comparison.contenders},
        rounds=settings.rounds,
        budget_s=_BUDGET_S,
        sample_ms=1.0 if settings.quick else 20.0,
        rest_s=comparison.rest_s,
        synchronize=synchronizer(settings.device),
    )
    baseline = comparison.contenders[0].name
    rows: list[Row] = []
    for name, timing in timings.items():
        refused = _refusal(comparison.agreements, {name, baseline})
        ratio = None if refused else paired_ratio(timing, timings[baseline])
        images = comparison.images_per_call
        speed = None if images is None else 1000 * images / timing.median_ms
        rows.append(Row(name, timing, ratio, refused, memory.get(name), speed))
    return Result(comparison.title, tuple(rows), comparison.agreements, comparison.skipped)


def _refusal(agreements: tuple[Agreement, ...], names: set[str]) -> str | None:
    for agreement in agreements:
        if agreement.name in names and not agreement.holds:
            return f"{agreement.name}: {agreement.what} differs by {agreement.error:.1e}, allowed {agreement.limit:.1e}"
    return None


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference over the RMS of the expectation; infinite for other shapes or anything not finite.

    >>> relative_rms(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    1.3333333333333333
    """
    if actual.shape != expected.shape:
        return float("inf")
    actual, expected = actual.detach().double(), expected.detach().double()
    difference, size = float((actual - expected).norm()), float(expected.norm())
    if not difference < float("inf"):
        return float("inf")
    return difference / size if size else difference


@contextmanager
def full_float32() -> Iterator[None]:
    """Checks run without TF32, whose rounding would hide a small error; the timing runs as PyTorch is set."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = convolution
