"""`internimage data`: what is skipped is told, and nothing is written where something would be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full"], "full is not empty; give the path of a new or empty folder"),
        (["file"], "file is a file; give the path of a new or empty folder"),
        (["new", "--val", 1001], "count must be between 1 and 1000, the number of test images, got 1001"),
        (["new", "--val", 0], "count must be between 1 and 1000"),
        (["new", "--train", 0], "count must be between 1 and 5000"),
    ],
)
def test_samples_are_written_whole_or_not_at_all(program: Program, arguments: list[Any], message: str) -> None:
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    Path("file").touch()
    assert message in program("data", "samples", *arguments).refusal()
    assert not Path("new").exists()
    assert [path.name for path in Path("full").iterdir()] == ["thesis.tex"]


def test_check_counts_what_it_skipped(program: Program, clothes: Path) -> None:
    folder = Path(shutil.copytree(clothes, "folder"))
    assert "skipped" not in program("data", "check", folder).out
    for name in ("train/Bag/a.HEIC", "train/Bag/deep/b.heic", "val/Coat/notes.txt", "val/Coat/.hidden", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    outcome = program("data", "check", folder)
    assert outcome.status == 0
    assert "3 files were skipped for their suffix (.heic, .txt)" in outcome.out
    assert program("data", "check", folder / "train").out.count("2 files were skipped for their suffix (.heic)") == 1
