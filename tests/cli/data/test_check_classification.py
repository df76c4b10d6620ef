"""`internimage data check` of class folders: folders and files that are wrong are named at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Program = Callable[..., Any]


@pytest.fixture
def folder(clothes: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(clothes, tmp_path / "shop"))


def test_mixed_faults(program: Program, folder: Path) -> None:
    """Folders that training refuses do not hide damaged images, in any split."""
    (folder / "train/Cap").mkdir()
    (folder / "val/Bag").rename(folder / "val/Sack")
    damaged = [folder / "train/Coat/cut.png", folder / "val/Dress/empty.jpg"]
    damaged[0].write_bytes(b"\x89PNG\r\n\x1a\n1234")
    damaged[1].touch()
    (folder / "train/Coat/a.heic").touch()
    Image.new("L", (28, 28)).save(folder / "val/loose.png")
    outcome = program("data", "check", "shop")
    assert outcome.status == 2
    lines = outcome.err.splitlines()
    assert lines[0] == "internimage: shop/train has class folders without images: Cap; fill or remove them"
    assert lines[1].endswith("classes asked for; missing: Bag, Cap; unexpected: Sack")
    assert [str(path.relative_to(folder.parent)) in line for path, line in zip(damaged, lines[2:], strict=True)] == [
        True
    ] * 2
    assert outcome.out.splitlines() == [
        "shop: classification, one folder per class",
        "",
        "train       41 images, in folders that training refuses",
        "val         22 images, in folders that training refuses",
        "1 files were skipped for their suffix (.heic)",
        "1 images lie beside the class folders and are not used, such as shop/val/loose.png",
        "training refuses the folders as they are",
        "2 images can't be read: mend or remove them",
    ]


def test_folders_without_splits_are_refused_once(program: Program, folder: Path) -> None:
    for path in (folder / "train/Bag").iterdir():
        path.unlink()
    (folder / "train/Coat/empty.jpg").touch()
    outcome = program("data", "check", "shop/train")
    assert outcome.status == 2
    assert outcome.err.splitlines() == [
        "internimage: shop/train has class folders without images: Bag; fill or remove them",
        "internimage: cannot read shop/train/Coat/empty.jpg: it is empty (0 bytes)",
    ]
    assert "train       37 images, in folders that training refuses\ntraining refuses the folders" in outcome.out
