"""One comparison on a GPU: who takes part, whether the results are right, what the clock says."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.comparison import Agreement, Contender, Result, Row
from benchmarks.memory import Memory, process_peak_mib
from benchmarks.on_gpu.clock import Clock, ContenderFailed, Reading, take_turns
from benchmarks.on_gpu.extensions import Missing, Peers, in_a_line
from benchmarks.timing import Workload, paired_ratio

_MIB = 2**20
# For the rounds of calls that take a large part of a second: ten would leave the fewest samples only.
LONG_BUDGET_S = 60.0
# What the rounds may take of the time that is left; warming up comes before.
_SHARE_OF_THE_REST = 0.7


class TimeUp(BaseException):
    """The time limit is near; no ``Exception``, so that nobody takes it for a failure of a contender."""


class DeviceLost(BaseException):
    """The GPU no longer answers: after an illegal access nothing that this process starts on it will run."""


@dataclass(frozen=True)
class Setup:
    """What the command line asked for, and what all comparisons share.

    Args:
        device: where everything runs.
        peers: the others' code.
        clock: measures calls in a row.
        copy_bytes_per_s: what a large copy reaches.
        quick: few repeats and small batches; nothing is judged.
        rounds: samples per contender.
        budget_s: seconds for the rounds of one comparison, unless it asks for more.
        deadline: when `TimeUp` comes, a value of ``time.monotonic()``; None for never.
        variants: of InternImage, ``t`` and ``b``.
        dtypes: 16-bit types by preference.
    """

    device: torch.device
    peers: Peers
    clock: Clock
    copy_bytes_per_s: float
    quick: bool = False
    rounds: int = 20
    budget_s: float = 10.0
    deadline: float | None = None
    variants: tuple[str, ...] = ("t", "b")
    dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16)

    @property
    def on_cpu(self) -> bool:
        """A dry run: it shows that the code runs."""
        return self.device.type != "cuda"

    def affordable_s(self, wished: float | None) -> float:
        """Seconds for the rounds of a comparison that begins now."""
        budget = self.budget_s if wished is None else wished
        if self.deadline is None:
            return budget
        return min(budget, max(0.0, _SHARE_OF_THE_REST * (self.deadline - time.monotonic())))


@dataclass
class Trial:
    """A comparison that stands ready.

    Args:
        title: says the work and its size.
        key: what the targets look for: suite, variant, dtype and more.
        baseline: who the others are compared with; without it there are no ratios.
        contenders: the baseline first.
        agreements: checks made before.
        skipped: (name, reason).
        memory: measured while the contenders were built.
        images_per_call: for images per second.
        moved_bytes: compulsory bytes per call.
        queued: measure the device alone.
        budget_s: seconds for the rounds; None for what all have.
        notes: more lines for people.
    """

    title: str
    key: dict[str, str]
    baseline: str | None = None
    contenders: list[Contender] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    images_per_call: int | None = None
    moved_bytes: int | None = None
    queued: bool = False
    budget_s: float | None = None
    notes: list[str] = field(default_factory=list)

    def extended(self, title: str, key: Mapping[str, str]) -> Trial:
        """A second comparison with everybody of this one, to which others can be added."""
        return replace(
            self,
            title=title,
            key=self.key | dict(key),
            contenders=list(self.contenders),
            agreements=list(self.agreements),
            skipped=list(self.skipped),
            memory=dict(self.memory),
            notes=list(self.notes),
        )

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Whoever fails inside is skipped, with the reason printed at once and kept."""
        reason = None
        try:
            yield
        except Exception as error:
            reason = _reason(error)
        if reason is not None:
            self.skip(name, reason)

    def skip(self, name: str, reason: str) -> None:
        """Keep and print why somebody has no row."""
        self.skipped.append((name, reason))
        say_once(f"skipped: {name}: {reason}")


@dataclass(frozen=True)
class Finding(Result):
    """A result with what only a GPU's comparison has.

    Args:
        key: see `Trial`.
        readings: launch times and the like, by contender.
        shares: of the copy bandwidth, by contender.
        notes: lines for people.
    """

    key: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def row(self, name: str) -> Row | None:
        """The row of that name, if it was measured."""
        return next((row for row in self.rows if row.name == name), None)

    def why_missing(self, name: str) -> str | None:
        """The reason why that name has no row."""
        return next((reason for other, reason in self.skipped if other == name), None)


def measure(trial: Trial, setup: Setup) -> Finding:
    """Time everybody in turns; a ratio only where both results are right."""
    readings = _readings(trial, setup)
    rows: list[Row] = []
    shares: dict[str, float] = {}
    for name, reading in readings.items():
        baseline = readings.get(trial.baseline or "")
        refused = refusal(trial.agreements, name) or refusal(trial.agreements, trial.baseline or "")
        ratio = None if refused or baseline is None else paired_ratio(reading.timing, baseline.timing)
        median_s = reading.timing.median_ms / 1000
        speed = None if trial.images_per_call is None else trial.images_per_call / median_s
        rows.append(Row(name, reading.timing, ratio, refused, trial.memory.get(name), speed))
        if trial.moved_bytes is not None and refused is None:
            shares[name] = trial.moved_bytes / median_s / setup.copy_bytes_per_s
    return Finding(
        trial.title,
        tuple(rows),
        tuple(trial.agreements),
        tuple(trial.skipped),
        dict(trial.key),
        readings,
        shares,
        (*trial.notes, *_notes(trial, readings, shares, setup)),
    )


def _readings(trial: Trial, setup: Setup) -> dict[str, Reading]:
    """Everybody's times; whoever fails while the clock runs is dropped, and the others take turns again without it."""
    while trial.contenders:
        try:
            return take_turns(
                {contender.name: contender.call for contender in trial.contenders},
                setup.clock,
                rounds=setup.rounds,
                budget_s=setup.affordable_s(trial.budget_s),
                sample_ms=1.0 if setup.quick else 5.0 if trial.queued else 50.0,
                queued=trial.queued,
            )
        except ContenderFailed as failed:
            name, reason = failed.name, _reason(failed.error)
        trial.skip(name, f"failed while the clock ran: {reason}")
        trial.contenders[:] = [contender for contender in trial.contenders if contender.name != name]
        trial.memory.pop(name, None)
        # Outside of the handler: the error holds what the call had allocated.
        release()
    return {}


def refusal(agreements: list[Agreement], name: str) -> str | None:
    """Why nothing is said about somebody's speed, or None.

    >>> refusal([Agreement("theirs", "output", 0.5, 0.01)], "theirs")
    'refused: wrong result of theirs: output, error 5.0e-01, allowed 1.0e-02'
    """
    for agreement in agreements:
        if agreement.name == name and not agreement.holds:
            return (
                f"refused: wrong result of {name}: {agreement.what}, error {agreement.error:.1e}, "
                f"allowed {agreement.limit:.1e}"
            )
    return None


def _notes(trial: Trial, readings: Mapping[str, Reading], shares: Mapping[str, float], setup: Setup) -> list[str]:
    lines: list[str] = []
    if shares and trial.moved_bytes is not None:
        words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
        lines.append(f"- Compulsory: {trial.moved_bytes / 1e6:.1f} MB; share of the copy bandwidth: {words}.")
    if trial.queued and readings and not setup.on_cpu:
        words = ", ".join(f"{name} {reading.launch_us:.0f} µs" for name, reading in readings.items())
        lines.append(f"- To start a call the program needs (not in the table): {words}.")
    late = [name for name, reading in readings.items() if reading.starved]
    if late:
        lines.append(f"- The device may have waited for the program: {', '.join(late)}.")
    return lines


def build_measured(build: Callable[[], Workload], device: torch.device) -> tuple[Workload, Memory]:
    """Build, call twice, and read the peak that this one added to what lay there before."""
    if device.type != "cuda":
        workload = build()
        workload()
        return workload, Memory(process_peak_mib(), process_peak_mib())
    release()
    before = torch.cuda.memory_allocated(device)
    workload = build()
    ready = torch.cuda.memory_allocated(device)
    # The first call compiles and tunes, which needs memory of its own.
    workload()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    workload()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    return workload, Memory((ready - before) / _MIB, (peak - before) / _MIB)


def release() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def detached(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same numbers as new, contiguous leaves."""
    return tuple(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors)


@cache
def say_once(line: str) -> None:
    """Print: whoever is missing is missing from many comparisons."""
    print(line, flush=True)


def default_cache() -> Path:
    """Where patched copies and builds stay between runs: outside this project, for they are other people's code."""
    return Path.home() / ".cache" / "internimage" / "benchmark_peers"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, whoever says so: PyTorch, cuDNN, cuBLAS or Triton.

    >>> is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), is_out_of_memory(RuntimeError("no"))
    (True, False)
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text.lower() or "ALLOC_FAILED" in text)


def _reason(error: Exception) -> str:
    """Why somebody has no row, in a line.

    Raises:
        DeviceLost: nobody will have one.
    """
    check_device(error)
    if isinstance(error, Missing):
        return str(error)
    return "out of GPU memory" if is_out_of_memory(error) else in_a_line(error)


def check_device(error: Exception) -> None:
    """Nothing runs after a CUDA error that stays; tell it from an error of this call alone."""
    if "CUDA error" in str(error) or "illegal memory access" in str(error):
        try:
            torch.cuda.synchronize()
        except Exception as lost:
            raise DeviceLost(in_a_line(error)) from lost
