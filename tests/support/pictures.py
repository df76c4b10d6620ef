"""Pictures with rectangles for objects, a set of given ones, and the figures of runs, drawn anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageChops

from internimage.data.detection.dataset import Raw
from internimage.structures import LabelMap
from internimage.visualization.classification import MIN_CELL
from internimage.visualization.evaluation import classification


def rectangles(size: tuple[int, int], *boxes: tuple[int, int, int, int], with_masks: bool = True) -> Raw:
    """Random grey pixels below 100 with rectangles of 200, 201, ... on them, of the classes 0, 1, ...; size (h, w)."""
    pixels = np.random.default_rng(0).integers(0, 100, (*size, 3), np.uint8)
    masks = np.zeros((len(boxes), *size), bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        masks[number, y1:y2, x1:x2] = True
        pixels[y1:y2, x1:x2] = 200 + number
    listed = np.array(boxes, np.float32).reshape(-1, 4)
    return Raw(Image.fromarray(pixels), listed, np.arange(len(boxes)), masks if with_masks else None)


@dataclass
class Listed:
    """A source of these pictures."""

    pictures: Sequence[Raw]
    labels: LabelMap = field(default_factory=lambda: LabelMap(("a", "b", "c")))

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> Raw:
        return self.pictures[index]


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


@contextmanager
def small_pictures(*, drawn: bool = True) -> Iterator[None]:
    """Pages and figures are made as ever, at a fifth of their size: drawing is most of the time of a short training.

    Where pictures are looked at they are drawn whole: in the tests of ``visualization`` and of ``visualize``.

    Args:
        drawn: whether what is in a figure is drawn, too, or its files are empty sheets.
    """
    save = Figure.savefig

    def save_small(figure: Figure, file: Any, **options: Any) -> None:
        figure.set_layout_engine("none")
        save(figure if drawn else Figure(figure.get_size_inches()), file, **options | {"dpi": 30})

    with patch.object(Figure, "savefig", save_small), patch.object(classification, "_CELL", MIN_CELL):
        yield
