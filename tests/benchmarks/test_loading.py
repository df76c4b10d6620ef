"""Loading: a page of the right shape from a tiny set, and what is computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.loading import bottleneck, half_size_suffices, main

from internimage.data import export_samples


@pytest.mark.slow
def test_every_stage_and_loader_has_a_row(tmp_path: Path) -> None:
    export_samples(tmp_path / "set/train", "train", 40)
    export_samples(tmp_path / "set/val", "test", 10)
    assert main([str(tmp_path / "set"), "--rounds", "1", "--output", str(tmp_path / "results")]) == 0
    (numbers,) = (tmp_path / "results").glob("*_loading_cpu.json")
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert [row["workers"] for row in content["loaders"]] == [0, 0, 1, 1, 2, 2]
    assert all(rate > 0 for row in content["loaders"] for rate in row["rates"])
    assert len(content["stages"]) == 4
    assert str(tmp_path) not in numbers.read_text(encoding="utf-8")


def test_the_bottleneck_by_hand() -> None:
    stages = [("read: a file", 50.0), ("read: from a shard", 1.0), ("decode", 3.0), ("augment", 6.0), ("(half)", 9.0)]
    text = bottleneck([{"stage": name, "ms": ms} for name, ms in stages])
    assert text == "The slowest stage is `augment`: 60% of a picture's time."


def test_half_of_a_small_picture_never_suffices() -> None:
    assert half_size_suffices(400, 400) == 0
    assert 0.5 < half_size_suffices(4000, 4000) <= 1
