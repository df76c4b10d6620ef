"""Time and memory of a picture that is seen through windows, on one that is hardly larger than a window."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.large_image import as_markdown, main, picture


@pytest.mark.slow
def test_a_row_per_height(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--side", "256", "--window", "96", "--classes", "3", "--output", str(tmp_path / "results")]) == 0
    (numbers,) = (tmp_path / "results").glob("*_large_image_cpu.json")
    rows = json.loads(numbers.read_text(encoding="utf-8"))["rows"]
    assert [row["picture"] for row in rows] == ["64 x 256", "256 x 256"]
    assert all(0 < row["before_mib"] <= row["peak_mib"] for row in rows)
    assert all(row["seconds"] > 0 for row in rows)
    assert numbers.with_suffix(".md").read_text(encoding="utf-8") in capsys.readouterr().out
    assert str(tmp_path) not in numbers.read_text(encoding="utf-8")


def test_the_picture_repeats_itself_and_is_not_flat() -> None:
    pixels = np.asarray(picture(300, 4000))
    assert pixels.shape == (300, 4000, 3)
    assert np.array_equal(pixels[:44], pixels[256:])
    assert np.array_equal(pixels[:, :1952], pixels[:, 2048:])
    assert pixels.std() > 20


def test_the_table_by_hand() -> None:
    row = {"picture": "2 x 1", "pixels_mib": 3.2, "seconds": 4.4, "before_mib": 900.0, "peak_mib": 1000.6}
    assert as_markdown({"date": "2026-11-28T00:00"}, [row]).splitlines()[-1] == "| 2 x 1 | 3 | 4 | 900 | 1001 | 101 |"
