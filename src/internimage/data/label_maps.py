"""Label maps: pictures whose values are classes, one for each picture to segment.

Shape legend: H W picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.data.class_folders import SPLIT_FOLDERS, Split
from internimage.data.images import images_below, read_as

LabelValues = NDArray[np.uint8] | NDArray[np.uint16]
IGNORED = 255
"""The value that by custom marks pixels of no class, which training and measuring leave out."""

LABEL_FOLDERS = ("labels", "masks", "annotations")
"""The names of a folder of label maps, beside ``images``; capitals don't matter."""

# As ADE20K names its splits, beyond the names that every task knows.
_MORE_SPLITS = {"training": "train", "testing": "test"}
_NUMBERS = "write the number of each pixel's class (0, 1, 2, ...) into one channel of 8 or 16 bits, as PNG"


class UnfitLabelMapError(ValueError):
    """A picture that can be read and holds no class numbers.

    Args:
        kind: why, in one of a few fixed short phrases.
        text: the reason, and what to do.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Pairs:
    """The pictures of one folder and the label maps of another, by name.

    Args:
        both: (picture, label map), sorted by picture.
        without_map: pictures without a label map.
        without_picture: label maps without a picture.
        alike: files whose names differ from another in the same folder by their suffix only, so that what belongs to
            them is not clear; they are in none of the other lists.
    """

    both: tuple[tuple[Path, Path], ...]
    without_map: tuple[Path, ...]
    without_picture: tuple[Path, ...]
    alike: tuple[Path, ...]


def read_label_map(path: str | Path) -> LabelValues:
    """The classes of a picture's pixels, (H, W) of uint8 or uint16, as the file stores them.

    Of a picture with a palette these are the indices, not the colours; of one with a bit per pixel 0 and 1. The EXIF
    orientation is applied, as to the picture that the label map belongs to.

    Raises:
        ImageReadError: nothing there, damaged, or no class numbers: colours, transparency, fractions, negative values,
            or the blurred ones of a JPEG file.
    """
    return np.array(read_as(path, _single_channel))


def pair_label_maps(images: Path, labels: Path) -> Pairs:
    """Pictures and label maps whose paths below the two folders differ in their suffix only.

    Raises:
        ValueError: a folder can't be listed.
    """
    pictures, maps = _by_name(images), _by_name(labels)
    alike = [path for held in (pictures, maps) for paths in held.values() for path in paths if len(paths) > 1]
    both = [(pictures[name][0], maps[name][0]) for name in pictures if _is_clear(name, pictures, maps)]
    return Pairs(
        tuple(both),
        tuple(paths[0] for name, paths in pictures.items() if name not in maps and len(paths) == 1),
        tuple(paths[0] for name, paths in maps.items() if name not in pictures and len(paths) == 1),
        tuple(alike),
    )


def label_map_folders(root: Path) -> dict[Split, tuple[Path, Path]]:
    """(pictures, label maps) of each split that ``root`` holds; all is for training where it has no splits.

    Known are ``images/train`` with ``labels/train`` and ``train/images`` with ``train/labels``; ``masks`` or
    ``annotations`` may stand for ``labels``, and ``training`` for ``train``. Without splits, ``images`` with ``labels``.

    Raises:
        ValueError: several folders fit a split.
    """
    found: dict[Split, list[tuple[Path, Path]]] = {}
    images, maps = _folder(root, ("images",)), _folder(root, LABEL_FOLDERS)
    for split in SPLIT_FOLDERS:
        inside = [_pair(below) for below in _splits_in(root, split)]
        beside = [
            (each, other)
            for each in _splits_in(images, split)
            for other in _splits_in(maps, split)
        ]
        found[split] = [pair for pair in (*inside, *beside) if pair and any_images]
    return found
