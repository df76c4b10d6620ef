"""Runs of the GPU benchmark on a CPU: the same code path, wrong contenders found out, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.comparison import Agreement, Contender
from benchmarks.dcnv3 import Implementation
from benchmarks.on_gpu.clock import wall_clock
from benchmarks.on_gpu.extensions import Peers
from benchmarks.on_gpu.kernels import Maker, Work
from benchmarks.on_gpu.measuring import DeviceLost, Setup, TimeUp, Trial, measure
from benchmarks.on_gpu.page import Page

from benchmarks.on_gpu import command, kernels, operator_suite, tune_suite

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parents[3]
FACTS = {"date": "2030-01-31T12:00:00+00:00", "command": "python benchmarks/gpu.py"}


def setup(**changes: Any) -> Setup:
    values: dict[str, Any] = {"quick": True, "rounds": 2, "dtypes": (torch.bfloat16,)} | changes
    return Setup(CPU, Peers({}, Path("unused"), CPU), wall_clock, 1e9, **values)


def trials_of(*titles: str, last: BaseException | None = None) -> Any:
    """A suite of quick comparisons that ends in an exception."""

    def suite(setup: Setup) -> Iterator[Trial]:
        for title in titles:
            yield Trial(title, {"suite": "operator"}, "work", [Contender("work", lambda: sum(range(10)))])
        if last is not None:
            raise last

    return suite


def test_a_wrong_kernel_is_refused_and_a_right_one_is_not() -> None:
    right = kernels.reference("softmax")
    wrong = Implementation(lambda value, offset, mask: 1.2 * right.run(value, offset, mask))

    def makers(work: Work, compiled: bool) -> dict[str, Maker]:
        return (
            {kernels.OURS: lambda: right, "wrong": lambda: wrong}
            if work == "softmax"
            else {kernels.OURS: lambda: kernels.reference(work)}
        )

    findings = [measure(trial, setup()) for trial in operator_suite.trials(setup(), makers)]
    assert len(findings) == 4
    for finding in findings[:2]:
        ours, bad = finding.rows
        assert ours.ratio is not None
        assert ours.refused is None
        assert bad.ratio is None
        assert bad.refused is not None
        assert bad.refused.startswith(
            "refused: wrong result of wrong: output against the reference in float32, error 2.0e-01"
        )
        assert set(finding.shares) == {kernels.OURS}
    assert all(finding.agrees for finding in findings[2:])


def test_wrong_gradients_are_refused_too() -> None:
    right = kernels.reference("softmax")

    def halve(value: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return right.run(value, 0.5 * offset + 0.5 * offset.detach(), mask)

    def makers(work: Work, compiled: bool) -> dict[str, Maker]:
        return {kernels.OURS: lambda: Implementation(halve)}

    forward, both, *_ = (measure(trial, setup()) for trial in operator_suite.trials(setup(), makers))
    assert forward.agrees
    assert both.rows[0].refused is not None
    assert "gradient of offset" in both.rows[0].refused


def test_without_the_baseline_there_is_no_ratio() -> None:
    trial = Trial("work", {}, "ours", [Contender("theirs", lambda: None)], skipped=[("ours", "broken")])
    assert measure(trial, setup()).rows[0].ratio is None


def test_whoever_fails_is_skipped_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial("work", {})
    with trial.attempt("first"):
        raise RuntimeError("line one of this test\nline two")
    with trial.attempt("second"):
        raise torch.cuda.OutOfMemoryError
    assert trial.skipped == [("first", "RuntimeError: line one of this test"), ("second", "out of GPU memory")]
    assert "skipped: first: RuntimeError: line one of this test\n" in capsys.readouterr().out
    with pytest.raises(TimeUp), trial.attempt("third"):
        raise TimeUp


@pytest.mark.parametrize(
    ("end", "words"), [(TimeUp(), "the time limit was near"), (DeviceLost("E"), "no longer answers")]
)
def test_what_was_measured_survives_the_end(
    end: BaseException, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.SUITES, "operator", trials_of("one", "two", last=end))
    page = Page(tmp_path, "operator", FACTS, quick=True)
    state, findings = command.run(["operator"], setup(), page)
    assert words in state
    assert [finding.title for finding in findings] == ["one", "two"]
    content = json.loads(page.files[0].read_text(encoding="utf-8"))
    assert [result["title"] for result in content["results"]] == ["one", "two"]
    assert content["state"] == state
    assert "## Targets" in page.files[1].read_text(encoding="utf-8")


def test_a_killed_run_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.SUITES, "operator", trials_of("one", last=KeyboardInterrupt()))
    page = Page(tmp_path, "operator", FACTS, quick=True)
    with pytest.raises(KeyboardInterrupt):
        command.run(["operator"], setup(), page)
    content = json.loads(page.files[0].read_text(encoding="utf-8"))
    assert content["state"].startswith("not finished")
    assert len(content["results"]) == 1


def test_the_alarm_ends_a_comparison_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(setup: Setup) -> Iterator[Trial]:
        yield from trials_of("one")(setup)
        time.sleep(60)

    monkeypatch.setitem(command.SUITES, "operator", endless)
    started = time.monotonic()
    page = Page(tmp_path, "operator", FACTS, quick=True)
    state, findings = command.run(["operator"], setup(deadline=started + 5.0), page)
    assert time.monotonic() - started < 30
    assert state.startswith("stopped: the time limit")
    assert len(findings) == 1
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_alarm_rings_again_where_python_drops_what_it_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)

    class Slow:
        def __del__(self) -> None:
            time.sleep(5)

    def work() -> None:
        # Gone at once: the first ring finds its finalizer running.
        Slow()
        time.sleep(5)

    monkeypatch.setattr(command, "_AGAIN_S", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    with pytest.raises(TimeUp), command.alarm(started + 0.05):
        work()
    assert [entry.exc_type for entry in dropped] == [TimeUp]
    assert time.monotonic() - started < 4
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", [])])
def test_the_device_that_was_asked_for_is_the_current_one(
    device: str, expected: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[torch.device] = []
    calibrated: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(command, "make_clock", lambda device: calibrated.append(len(current)))
    monkeypatch.setattr(command, "copy_bandwidth", lambda device, clock: 1e12)
    options = command.parse(["--device", device])
    made = command.make_setup(options, Peers({}, Path("unused"), torch.device(device)), deadline=12.0)
    assert current == expected
    assert calibrated == [len(expected)], "before the clock is calibrated"
    assert made.deadline == 12.0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    names: list[str] = []
    for output in (tmp_path, tmp_path, tmp_path / "own.md", tmp_path / "own.md"):
        page = Page(output, "operator", FACTS, quick=False)
        page.write([], "finished")
        names.append(page.files[1].name)
    assert names == ["2030-01-31_gpu_operator.md", "2030-01-31_gpu_operator_2.md", "own.md", "own_2.md"]
    assert len(list(tmp_path.iterdir())) == 8


def test_refusals_missing_peers_and_notes_stand_on_the_page(tmp_path: Path) -> None:
    trial = Trial(
        "work",
        {"suite": "operator"},
        "ours",
        [Contender("ours", lambda: None), Contender("theirs", lambda: None)],
        [Agreement("theirs", "output", 0.5, 0.01)],
        [("absent", "no path given")],
        moved_bytes=2_000_000,
    )
    page = Page(tmp_path, "operator", FACTS, quick=False)
    page.write([measure(trial, setup())], "finished")
    text = page.files[1].read_text(encoding="utf-8")
    assert "- **refused: wrong result of theirs: output, error 5.0e-01, allowed 1.0e-02**." in text
    assert "- Not here: absent: no path given." in text
    assert "- Compulsory: 2.0 MB; share of the copy bandwidth: ours" in text
    assert "**not measured**" in text


def test_tuning_times_the_candidates_and_says_where_there_are_none() -> None:
    class Launch:
        def shape(self, kind: str, itemsize: int, depth: int, points: int, rows: int) -> object:
            return kind, itemsize, depth, points, rows

        def candidates(self, shape: object) -> list[int]:
            return [1, 2]

        def use_config(self, kind: str, config: int) -> AbstractContextManager[Any]:
            return nullcontext()

        def entry(self, config: int) -> str:
            return f"config {config}"

    findings = [measure(trial, setup()) for trial in tune_suite.trials(setup(), Launch())]
    assert [[row.name for row in finding.rows] for finding in findings] == [["config 1", "config 2"]] * 2
    assert len(tune_suite.summarize(findings)) == 4


def test_tuning_without_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_suite, "_MODULE", "internimage.no_such_module")
    (finding,) = (measure(trial, setup()) for trial in tune_suite.trials(setup()))
    assert finding.rows == ()
    assert "can't be imported" in finding.skipped[0][1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu"], "add --quick"),
        (["--device", "tpu", "--quick"], "--device must be cuda or cpu"),
        (["--device", "cpu", "--quick", "--official", "/no/such/folder"], "--official /no/such/folder is no folder"),
        (["--device", "cpu", "--quick", "--rounds", "0"], "--rounds must be at least 1"),
        (["--device", "cpu", "--quick", "--time-limit", "3"], "--time-limit must be more than 5 seconds"),
    ],
)
def test_bad_arguments_end_in_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.parse(arguments)
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last


@pytest.mark.slow
def test_the_program_runs_from_end_to_end(tmp_path: Path) -> None:
    """As a person starts it, without anything installed beside PyTorch and the core libraries."""
    program = [sys.executable, str(REPOSITORY / "benchmarks/gpu.py"), "--device", "cpu", "--quick"]
    options = ["--suite", "operator", "--rounds", "2", "--dtypes", "bf16", "--output", str(tmp_path)]
    done = subprocess.run(
        [*program, *options, "--time-limit", "120"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped: official extension: no path given (--official PATH)" in done.stdout
    assert "skipped: DCNv4 extension: no path given (--dcnv4 PATH)" in done.stdout
    assert done.stdout.count("skipped: DCNv4 extension") == 1, "each is told once"
    (numbers,) = tmp_path.glob("*.json")
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert content["state"] == "finished: 4 comparisons"
    assert [result["rows"][0]["name"] for result in content["results"]] == [kernels.OURS] * 4
    assert all(check["holds"] for result in content["results"] for check in result["agreements"])
    assert [target["status"] for target in content["targets"]] == ["not measured"] * 7
    assert str(tmp_path) not in content["facts"]["command"]
