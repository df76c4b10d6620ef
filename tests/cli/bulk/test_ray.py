"""The same rows from a Ray cluster of two processes on this machine, through the program itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from internimage.inference.bulk import read_rows

LayOut = Callable[[Path, int], list[Path]]


def predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "internimage", "predict", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def rows(folder: Path, format: str) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob(f"*.{format}")) for row in read_rows(path)]


@pytest.mark.slow
def test_rows_are_those_of_one_process(lay_out: LayOut, classifier: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        paths = lay_out(Path("in"), 30)
        paths[5].unlink()
        paths[5].touch()
        common = ["in", "--weights", classifier, "--device", "cpu", "--format", "jsonl", "--batch_size", 4]
        common += ["--workers", 1]
        assert predict(*common, "--output", "one").returncode == 1
        on_ray = [*common, "--ray", "local", "--actors", 2, "--rows_per_file", 7, "--output", "out"]
        done = predict(*on_ray)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "29 of 30 images: out"), done
        assert "1 images could not be read" in done.stderr
        files = sorted(path.name for path in Path("out/predictions").iterdir())
        assert files == [f"{position:010d}.jsonl" for position in (0, 8, 16, 24)]
        assert rows(Path("out/predictions"), "jsonl") == rows(Path("one"), "jsonl")
        # A block that is missing is done again; the others stay.
        before = {path: path.stat().st_mtime_ns for path in Path("out/predictions").iterdir()}
        Path("out/predictions/0000000016.jsonl").unlink()
        assert predict(*on_ray, "--resume").returncode == 1
        assert rows(Path("out/predictions"), "jsonl") == rows(Path("one"), "jsonl")
        changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
        assert changed == ["0000000016.jsonl"]


def test_a_short_run_in_parquet(lay_out: LayOut, classifier: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        paths = lay_out(Path("in"), 6)
        common = ["in", "--weights", classifier, "--device", "cpu", "--workers", 0, "--output", "out"]
        done = predict(
            *common, "--format", "parquet", "--ray", "local", "--actors", 2, "--rows_per_file", 3, "--batch_size", 3
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "6 of 6 images: out"), done
        found = rows(Path("out/predictions"), "parquet")
        assert [row["image"] for row in found] == [str(path) for path in paths]
        state = json.loads(Path("out/predictions.state.json").read_text("utf-8"))
        assert state["finished"] == {"images": 6, "errors": 0}
