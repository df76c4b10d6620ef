"""Two processes train one network: through the real program, as on a machine with two devices."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from internimage.data import export_samples

TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "internimage", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A deadlock between the processes must end the test, not the patience.
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def numbers(folder: Path, name: str) -> list[dict[str, float]]:
    with (folder / name / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_learn_and_measure_as_one(tmp_path: Path, processes: int) -> None:
    """The same pictures in each step, varied the same; of 31 to validate each counts once."""
    export_samples(tmp_path / "clothes/train", "train", 61)
    export_samples(tmp_path / "clothes/val", "test", 31)
    data = ["--data.init_args.root", "clothes", "--data.init_args.image_size", "28", "--ema", "null"]
    # Without normalisation over the batch, whose share each process would see alone.
    data += ["--model.init_args.model_options.head", "clip"]
    # What a step draws (mixing, dropped paths) differs from process to process.
    data += ["--data.init_args.augmentation.mixup", "0", "--data.init_args.augmentation.cutmix", "0"]
    whole = ["--trainer.limit_train_batches", "1.0", "--trainer.limit_val_batches", "1.0", "--trainer.logger", "false"]
    for name, count in (("one", 1), ("many", processes)):
        share = ["--data.init_args.batch_size", str(12 // count), "--trainer.devices", str(count)]
        how = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp" if count > 1 else "auto"]
        recipe = ["fit", "--config", "smoke/classification", "--run", name, *data, *whole, *share, *how]
        result = run(tmp_path, *recipe)
        assert result.returncode == 0, result.stderr
    one, many = numbers(tmp_path, "one"), numbers(tmp_path, "many")
    assert len(one) == len(many) == 2
    for row, other in zip(one, many, strict=True):
        assert other == pytest.approx(row, rel=1e-5)
        for key in ("val/accuracy", "val/accuracy_top5", "step", "lr"):
            assert other[key] == row[key], key


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_processes_measure_all_pictures(tmp_path: Path) -> None:
    """An odd number of scenes: padding gives one to both, and it counts once."""
    scenes = run(tmp_path, "data", "scenes", "drawn", "--train", "4", "--val", "5")
    assert scenes.returncode == 0, scenes.stderr
    data = ("--data.init_args.root", "drawn", "--data.init_args.frame", "[64,64]")
    recipe = ("fit", "--config", "smoke/detection", "--run", "run", *data, "--trainer.limit_val_batches", "1.0", *TWO)
    result = run(tmp_path, *recipe)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["weights: run/model.safetensors", "report:  run/report.html"]
    rows = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert len({row["image_id"] for row in rows}) == 5
    one = run(tmp_path, "validate", "--run", "run", "--trainer.devices", "1", "--trainer.strategy", "auto")
    assert one.returncode == 0, one.stderr
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        logged = max(float(row["val/map"]) for row in csv.DictReader(file))
    found = re.search(r"^val/map +([\d.]+)$", one.stdout, re.MULTILINE)
    assert found is not None
    assert float(found[1]) == pytest.approx(logged, abs=1e-3)


@pytest.mark.slow
def test_two_processes_count_every_pixel_once(tmp_path: Path) -> None:
    """Label maps of an odd number of scenes: the measures of two processes are those of one, to the last digit."""
    scenes = run(tmp_path, "data", "scenes", "drawn", "--train", "4", "--val", "5")
    assert scenes.returncode == 0, scenes.stderr
    data = ("--data.init_args.root", "drawn", "--data.init_args.frame", "[64,64]")
    recipe = (
        "fit",
        "--config",
        "smoke/segmentation",
        "--run",
        "run",
        *data,
        "--trainer.limit_val_batches",
        "1.0",
        *TWO,
    )
    result = run(tmp_path, *recipe)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"Of {5 * 128 * 128:,} pixels" in page, "the confusions of both processes are counted, none twice"
    measured: list[str] = []
    for processes in (("2", "ddp"), ("1", "auto")):
        devices = ("--trainer.devices", processes[0], "--trainer.strategy", processes[1])
        outcome = run(tmp_path, "validate", "--run", "run", *devices)
        assert outcome.returncode == 0, outcome.stderr
        measured.append("".join(re.findall(r"^val/.*$", outcome.stdout, re.MULTILINE)))
    assert "val/miou" in measured[0]
    assert measured[0] == measured[1]
