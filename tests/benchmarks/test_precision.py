"""What other runtimes and fewer bits cost, on a few of the shipped images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.precision import OURS, as_markdown, main

from internimage import create_model, save_checkpoint
from internimage.data import SAMPLE_LABELS, SAMPLE_PREPROCESS


@pytest.mark.slow
def test_a_table_of_every_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = create_model("internimage_femto", num_classes=10, in_chans=1)
    path = save_checkpoint(model, tmp_path / "w.safetensors", labels=SAMPLE_LABELS, preprocess=SAMPLE_PREPROCESS)
    assert main([str(path), "--limit", "20", "--output", str(tmp_path / "results")]) == 0
    (numbers,) = (tmp_path / "results").glob("*_precision_cpu.json")
    rows = {row["name"]: row for row in json.loads(numbers.read_text(encoding="utf-8"))["rows"]}
    assert rows[OURS]["images"] == 20
    assert rows["onnxruntime, float32"]["relative_rms"] < 1e-5 < rows["OpenVINO, int8"]["relative_rms"]
    assert rows["OpenVINO, int8"]["megabytes"] < 0.5 * rows["OpenVINO, float32"]["megabytes"]
    assert numbers.with_suffix(".md").read_text(encoding="utf-8") in capsys.readouterr().out
    assert str(tmp_path) not in numbers.read_text(encoding="utf-8")


def test_the_table_by_hand() -> None:
    first = {"name": "a", "accuracy": 0.5, "same_class": 1.0, "relative_rms": 0.0, "megabytes": None}
    second = {"name": "b", "accuracy": 0.4875, "same_class": 0.975, "relative_rms": 0.0123, "megabytes": 2.04}
    assert as_markdown({"date": "2026-11-27T00:00"}, [first, second]).splitlines()[-2:] == [
        "| a | 50.00% |  |  |  |  |",
        "| b | 48.75% | -1.25 | 97.50% | 1.2e-02 | 2.0 |",
    ]
