"""`python -m benchmarks.transfer` trains both ways and says what came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import transfer

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]


@pytest.mark.slow
def test_a_row_for_each_beginning(tmp_path: Path) -> None:
    small = ["--counts", "[25]", "--rates", "[1e-3]", "--seeds", "1", "--epochs", "3"]
    assert transfer.main([*small, "--output", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*_transfer_cpu.json")
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["count"], row["weights"], row["rate"]) for row in rows] == [
        (25, None, 1e-3),
        (25, transfer.DEFAULT_WEIGHTS, 1e-3),
    ]
    assert all(0 <= row["test"][0] <= 1 for row in rows)
    page = file.with_suffix(".md").read_text(encoding="utf-8")
    assert "| 25 | nothing | 0.001 |" in page


def test_training_and_validation_images_are_others(tmp_path: Path) -> None:
    root = transfer.write_set(tmp_path / "set", 30)
    images = {name: {path.name for path in (root / name).rglob("*.png")} for name in ("train", "val", "test")}
    assert [len(names) for names in images.values()] == [30, 500, 1000]
    assert not images["train"] & images["val"]
