"""Two processes train one network: through the real program, as on a machine with two devices."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "internimage", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A deadlock between the processes must end the test, not the patience.
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_two_processes_leave_one_run(tmp_path: Path) -> None:
    """Only the first one prepares the folder, writes and prints; both take part in every sum."""
    recipe = ("fit", "--config", "smoke/classification", "--run", "run", "--trainer.limit_val_batches", "1.0", *TWO)
    result = run(tmp_path, *recipe)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["weights: run/model.safetensors", "report:  run/report.html"]
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["step"]) for row in rows] == [3, 6]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "500 validation images" in page, "the confusions of both processes are counted"
    again = run(tmp_path, *recipe, "--overwrite")
    assert again.returncode == 0, again.stderr
    resumed = run(tmp_path, "fit", "--run", "run", "--resume", "--trainer.max_epochs", "3")
    assert resumed.returncode == 0, resumed.stderr
    tested = run(tmp_path, "test", "--run", "run", "--trainer.devices", "1")
    assert tested.returncode == 0, tested.stderr
