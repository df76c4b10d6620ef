"""What every format says of a picture, on its way to COCO's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from internimage.data.images import ImageReadError

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Labelled:
    """One picture and its objects.

    Args:
        path: of the picture.
        size: (height, width) in pixels.
        objects: annotations in COCO's fields, without ``id`` and ``image_id``; ``category_id`` is the class index.
        source: the file that says so, or None where a picture without objects has none.
        places: of each object in ``source``, such as ``, line 3``.
        absent: indices of the classes that were looked for in vain, in a federated set.
    """

    path: Path
    size: tuple[int, int]
    objects: tuple[dict[str, Any], ...]
    source: Path | None = None
    places: tuple[str, ...] = ()
    absent: tuple[int, ...] | None = None


class MisreadError(ValueError):
    """Something in a file that can't be converted.

    Args:
        kind: what it is, in one of a few fixed short phrases, as of a `Finding`.
        text: file, place, what is wrong, and what to do.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def gather(items: Iterable[Item], read: Callable[[Item], Found], faults: list[MisreadError]) -> list[Found]:
    """``read`` of every item; where that fails, the reason goes to ``faults`` instead."""
    found: list[Found] = []
    for item in items:
        try:
            found.append(read(item))
        except (MisreadError, ImageReadError) as error:
            faults.append(_as_misread(error))
    return found


def read_files(
    files: Iterable[Item], read: Callable[[Item, list[MisreadError]], Found], faults: list[MisreadError] | None = None
) -> list[Found]:
    """``read`` of every file.

    Args:
        files: one for each picture.
        read: reads one; takes a list for what it has to leave out.
        faults: takes what can't be read; without it, that is an error.

    Raises:
        ValueError: ``faults`` is None, and something can't be read: in how many files, and the first three reasons.
    """
    listed: list[MisreadError] = []
    num_bad = 0
    found: list[Found] = []
    for file in files:
        own: list[MisreadError] = []
        try:
            found.append(read(file, own))
        except (MisreadError, ImageReadError) as error:
            own.append(_as_misread(error))
        num_bad += bool(own)
        listed += own
    if faults is not None:
        faults += listed
    elif listed:
        number = "one file" if num_bad == 1 else f"{num_bad:,} files"
        shown = "; ".join(map(str, listed[:3]))
        raise ValueError(f"{number} can't be converted: {shown}; `internimage data check PATH` lists all")
    return found


def _as_misread(error: MisreadError | ImageReadError) -> MisreadError:
    return error if isinstance(error, MisreadError) else MisreadError("unreadable image", str(error))
