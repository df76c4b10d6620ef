"""A run that was killed, stopped or cut goes on, and ends as if nothing had happened; other inputs are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

Program = Callable[..., Any]
LayOut = Callable[[Path, int], list[Path]]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
COUNT = 400


def options(classifier: Path, format: str) -> list[str]:
    more = ["--rows_per_file", "60"] if format == "parquet" else []
    given = ["--weights", str(classifier), "--device", "cpu", "--batch_size", "4", "--workers", "2"]
    return [*given, "--format", format, *more]


def begin(arguments: Sequence[object]) -> subprocess.Popen[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "internimage", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process: subprocess.Popen[str], output: Path, format: str) -> None:
    """Until some rows are whole, and more are to come."""
    while process.poll() is None:
        time.sleep(0.005)
        if format == "parquet" and list(output.glob("predictions.parquet/.*.partial")):
            if list(output.glob("predictions.parquet/*.parquet")):
                return
        elif (output / "predictions.jsonl").exists() and (output / "predictions.jsonl").stat().st_size:
            return
    raise AssertionError(process.communicate())


def content(output: Path, format: str) -> Any:
    if format == "jsonl":
        return (output / "predictions.jsonl").read_bytes()
    return pyarrow.parquet.read_table(output / "predictions.parquet").to_pylist()


@pytest.mark.parametrize(
    ("format", "how"),
    [
        ("jsonl", signal.SIGTERM),
        ("parquet", signal.SIGKILL),
        # Each way to end and each format is above.
        pytest.param("jsonl", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("parquet", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_ended_goes_on(
    program: Program, lay_out: LayOut, classifier: Path, format: str, how: signal.Signals
) -> None:
    lay_out(Path("in"), COUNT)
    given = ["predict", "in", *options(classifier, format)]
    assert program(*given, "--output", "whole").status == 0
    process = begin([*given, "--output", "out"])
    wait_for_rows(process, Path("out"), format)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert "images: the same command with --resume goes on" in err
        written = content(Path("out"), format)
        rows = written.count(b"\n") if format == "jsonl" else len(written)
        assert f"stopped after {rows} images" in err
        assert 0 < rows < COUNT
        assert rows % 4 == 0
    else:
        assert process.returncode == -signal.SIGKILL
    outcome = program(*given, "--output", "out", "--resume")
    assert (outcome.status, outcome.out) == (0, f"{COUNT} of {COUNT} images: out\n")
    assert content(Path("out"), format) == content(Path("whole"), format)
    assert not list(Path("out").rglob("*.partial"))


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_cut_line_is_repaired(program: Program, lay_out: LayOut, classifier: Path, cut: int) -> None:
    lay_out(Path("in"), 10)
    given = ["predict", "in", *options(classifier, "jsonl"), "--output", "out"]
    assert program(*given).status == 0
    file = Path("out/predictions.jsonl")
    whole = file.read_bytes()
    # As a crash leaves it: the run has not finished.
    state = Path("out/predictions.state.json")
    state.write_text(state.read_text("utf-8").replace("finished", "unfinished"), encoding="utf-8")
    file.write_bytes(whole[:-cut])
    assert program(*given, "--resume").status == 0
    assert file.read_bytes() == whole


def test_more_images_at_the_end_are_added(program: Program, lay_out: LayOut, classifier: Path) -> None:
    paths = lay_out(Path("in"), 10)
    for format in ("jsonl", "parquet"):
        given = ["predict", *options(classifier, format), "--output", f"few_{format}"]
        assert program(*given, *paths[:6]).status == 0
        assert program(*given, *paths, "--resume").out == f"10 of 10 images: few_{format}\n"
        assert program(*given[:-1], f"all_{format}", *paths).status == 0
        assert content(Path(f"few_{format}"), format) == content(Path(f"all_{format}"), format)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_other_inputs_are_refused(program: Program, lay_out: LayOut, classifier: Path, format: str) -> None:
    paths = lay_out(Path("in"), 10)
    given = ["predict", *options(classifier, format), "--output", "out", "in"]
    assert program(*given).status == 0
    before = content(Path("out"), format)
    paths[3].rename("in/first/0.jpg")
    message = program(*given, "--resume").refusal()
    assert "the rows in out hold in/first/00000.jpg, but now in/first/0.jpg is in its place" in message
    assert "begin anew with --overwrite, or choose another --output" in message
    Path("in/first/0.jpg").rename(paths[3])
    paths[9].unlink()
    assert "hold in/second/00009.jpg, but now there is no such image" in program(*given, "--resume").refusal()
    assert content(Path("out"), format) == before


def test_other_settings_are_refused(program: Program, lay_out: LayOut, classifier: Path, segmenter: Path) -> None:
    lay_out(Path("in"), 3)
    given = ["predict", "in", "--device", "cpu", "--output", "out", "--resume"]
    mine, format = ["--weights", classifier], ["--format", "jsonl"]
    # Nothing is there: --resume begins.
    assert program(*given, *mine, *format).status == 0
    assert "was begun with top 5, now it is 3" in program(*given, *mine, *format, "--top", 3).refusal()
    assert "was begun with format jsonl, now it is parquet" in program(*given, *mine, "--format", "parquet").refusal()
    assert "was begun with batch_size 32" in program(*given, *format, "--weights", segmenter).refusal()
    Path("out/predictions.state.json").unlink()
    assert "without predictions.state.json nothing can go on" in program(*given, *mine, *format).refusal()
