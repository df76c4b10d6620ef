"""What the pictures of predictions are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PICTURES = "pictures"


def picture_names(paths: Sequence[Path]) -> list[str]:
    """A file name for the picture of each image; images of one name in several folders are numbered.

    >>> picture_names([Path("a/x.png"), Path("b/x.jpg"), Path("y.bmp")])
    ['x.jpg', 'x_2.jpg', 'y.jpg']
    """
    taken: set[str] = set()
    names: list[str] = []
    for path in paths:
        number, stem = 1, path.stem
        while stem in taken:
            number += 1
            stem = f"{path.stem}_{number}"
        taken.add(stem)
        names.append(f"{stem}.jpg")
    return names
