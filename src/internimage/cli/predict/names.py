"""What the files of predictions are called, and which of them are there already."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PICTURES, MAPS, CLASSES, ROWS = "pictures", "maps", "classes.txt", "predictions.json"
FILES = (ROWS, "predictions.csv", "predictions.png", CLASSES, PICTURES, MAPS)


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


def remove_earlier(output: Path, images: Sequence[Path]) -> None:
    """Remove what an earlier prediction wrote, so that its pictures don't lie among those of this one.

    Other files in the same folders stay, and so do the images that are about to be looked at.
    """
    try:
        rows: Any = json.loads((output / ROWS).read_text(encoding="utf-8"))
        # A classifier's rows have "top", and no pictures.
        earlier = picture_names([Path(row["image"]) for row in rows if "top" not in row])
    except (OSError, ValueError, TypeError, KeyError):
        earlier = []
    if not earlier:
        # Nothing says that pictures would be ours; the other files are written anew.
        return
    kept = {image.resolve() for image in images}
    files = [output / name for name in FILES if name not in (PICTURES, MAPS)]
    for name in earlier:
        files += [output / PICTURES / name, (output / MAPS / name).with_suffix(".png")]
    for file in files:
        if file.resolve() not in kept:
            file.unlink(missing_ok=True)
    for folder in (output / PICTURES, output / MAPS):
        with contextlib.suppress(OSError):
            folder.rmdir()
