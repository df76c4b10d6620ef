"""What every format says of a picture, on its way to COCO's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Labelled:
    """One picture and its objects.

    Args:
        path: of the picture.
        size: (height, width) in pixels.
        objects: annotations in COCO's fields, without ``id`` and ``image_id``; ``category_id`` is the class index.
    """

    path: Path
    size: tuple[int, int]
    objects: tuple[dict[str, Any], ...]


def read_all(items: Iterable[Item], read: Callable[[Item], Labelled]) -> list[Labelled]:
    """``read`` of every item; where that fails, ``ValueError`` with the number of faults and the first three."""
    pictures: list[Labelled] = []
    faults: list[str] = []
    for item in items:
        try:
            pictures.append(read(item))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        number = "one file" if len(faults) == 1 else f"{len(faults):,} files"
        raise ValueError(f"{number} can't be converted: {'; '.join(faults[:3])}{'; ...' if len(faults) > 3 else ''}")
    return pictures
