"""Figures of runs, drawn anew."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image, ImageChops


def figures_alone(run: Path, folder: Path) -> Path:
    """A folder with what a run's figures are drawn from, and nothing else of the run."""
    folder.mkdir()
    for name in ("metrics.csv", "evaluation.npz"):
        shutil.copy(run / name, folder / name)
    return folder


def differing(drawn: Path, before: Path) -> list[str]:
    """Names of the pictures that are not in both folders with the same pixels."""
    names = {path.name for folder in (drawn, before) for path in folder.glob("*.png")}
    return sorted(name for name in names if not _same(drawn / name, before / name))


def _same(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return False
    with Image.open(one) as first, Image.open(other) as second:
        return (
            first.size == second.size
            and not ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getbbox()
        )
