"""What the values of label maps mean: which is which class, which are none, and what the classes are called."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from internimage.data.label_maps import LabelValues, read_label_map
from internimage.data.segmentation.palettes import read_classes
from internimage.structures import IGNORED, MOST_CLASSES, Colour, LabelMap

log = logging.getLogger(__name__)
CLASSES_FILE = "classes.txt"
"""In a set's folder, one class name per line, with or without a colour."""

_VALUES = 2**16
_SHOWN = 5


@dataclass(frozen=True)
class LabelRules:
    """What the values of label maps mean.

    Args:
        names: the classes; the first has the value 0.
        ignored: values of pixels of no class.
        reduce_zero: the value 0 is no class, and every other one more than its class, as in ADE20K.
        values: the class index of each value, where label maps number otherwise; several values may be one class, and
            those that are not named are ignored. Empty for values that are the indices.

    >>> rules = LabelRules(LabelMap(("wall", "building")), reduce_zero=True)
    >>> rules.classes_of(np.array([[0, 1, 2, 255]], np.uint8)).tolist()
    [[255, 0, 1, 255]]
    """

    names: LabelMap
    ignored: tuple[int, ...] = (IGNORED,)
    reduce_zero: bool = False
    # A mapping has no hash; rules that differ in it alone share theirs.
    values: Mapping[int, int] = field(default_factory=dict[int, int], hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignored", tuple(self.ignored))
        if not 1 <= len(self.names) <= MOST_CLASSES:
            raise ValueError(f"a label map can tell 1 to {MOST_CLASSES} classes apart, got {len(self.names)}")
        if wrong := [value for value in self.ignored if type(value) is not int or not 0 <= value < _VALUES]:
            raise ValueError(f"ignored must list values from 0 to {_VALUES - 1}, got {wrong}")
        if self.values and self.reduce_zero:
            raise ValueError("values says what each value means; leave reduce_zero out")
        for value, index in self.values.items():
            if not 0 <= value < _VALUES or not 0 <= index < len(self.names):
                raise ValueError(f"values gives {value} the class {index}, but there are {len(self.names)} classes")

    def classes_of(self, values: LabelValues, place: Path | str = "the label map") -> NDArray[np.uint8]:
        """(H, W) of uint8: class indices and `IGNORED`, for a label map's values.

        Raises:
            ValueError: values of no class, which are named with their numbers of pixels, and ``place``.
        """
        classes = self._classes[values]
        if classes.min(initial=0) < 0:
            raise ValueError(f"{place}: {self.complaint(np.bincount(values.ravel()))}")
        return classes.astype(np.uint8)

    def class_of(self, value: int) -> int | None:
        """The class index of one value, `IGNORED`, or None for no class.

        >>> LabelRules(LabelMap(("sky",))).class_of(1) is None
        True
        """
        index = int(self._classes[value])
        return None if index < 0 else index

    def unknown(self, num_pixels: NDArray[np.int64]) -> dict[int, int]:
        """Of the values that occur those of no class, each with its number of pixels.

        Args:
            num_pixels: the number of pixels of each value from 0.
        """
        unknown = np.flatnonzero((num_pixels > 0) & (self._classes[: len(num_pixels)] < 0))
        return {int(value): int(num_pixels[value]) for value in unknown}

    def fault(self, num_pixels: NDArray[np.int64]) -> tuple[str, str] | None:
        """What is wrong with a label map of so many pixels of each value, as a kind and a text; None for nothing."""
        if self.unknown(num_pixels):
            return "label map with unknown values", self.complaint(num_pixels)
        if (self._classes[np.flatnonzero(num_pixels)] == IGNORED).all():
            text = "all its pixels are ignored, so that it teaches nothing; correct it, or remove it and its picture"
            return "label map of ignored pixels", text
        return None

    def complaint(self, num_pixels: NDArray[np.int64]) -> str:
        """What to say of the values of no class: which, in how many pixels, and what to do."""
        unknown = self.unknown(num_pixels)
        listed = [f"value {value} in {count:,} pixels" for value, count in list(unknown.items())[:_SHOWN]]
        if len(unknown) > _SHOWN:
            listed.append(f"{len(unknown) - _SHOWN} more such values up to {max(unknown)}")
        first, last = int(self.reduce_zero), len(self.names) - 1 + int(self.reduce_zero)
        classes = f"{len(self.names)} classes have the values {first} to {last}"
        fix = "correct the label map, name a class for each value, or list values of no class as ignored"
        return f"{', '.join(listed)}, but the {classes}; {fix}"

    @cached_property
    def _classes(self) -> NDArray[np.int16]:
        """The class of each value, -1 for none."""
        if self.values:
            table = np.full(_VALUES, IGNORED, np.int16)
            table[list(self.values)] = list(self.values.values())
            table[list(self.ignored)] = IGNORED
            return table
        table = np.full(_VALUES, -1, np.int16)
        first = int(self.reduce_zero)
        table[:first] = IGNORED
        table[first : first + len(self.names)] = np.arange(len(self.names))
        table[list(self.ignored)] = IGNORED
        return table


def find_classes(
    root: Path | str,
    given: Sequence[str] | str | int | None = None,
    *,
    maps: Sequence[Path] = (),
    ignored: Sequence[int] = (IGNORED,),
    reduce_zero: bool = False,
) -> LabelMap:
    """The class names of a set of label maps.

    Args:
        root: the set's folder.
        given: the names; how many classes there are; a well-known set; or a file as for `read_classes`, relative to
            ``root``. By default those of ``classes.txt`` in ``root``, or else as many numbers as ``maps`` need.
        maps: label maps that are read where there are no names, to find the largest value.
        ignored: as for `LabelRules`.
        reduce_zero: as for `LabelRules`.

    Raises:
        ValueError: no such file or set, or neither names nor label maps with classes.

    >>> find_classes(".", ["sky", "road"]), find_classes(".", 2).names
    (LabelMap(names=('sky', 'road')), ('class 0', 'class 1'))
    """
    if isinstance(given, int):
        return LabelMap.numbered(given)
    if given is not None and not isinstance(given, str):
        return LabelMap(tuple(given))
    if (source := _source(root, given)) is not None:
        return read_classes(source).labels
    largest = max((_largest(path, ignored) for path in maps), default=-1)
    num_classes = largest + 1 - int(reduce_zero)
    fix = f"name the classes in {Path(root) / CLASSES_FILE}, one per line"
    if num_classes < 1:
        raise ValueError(f"there are no class names and no label maps with classes; {fix}")
    if num_classes > MOST_CLASSES:
        reason = f"the label maps hold values up to {largest}, but there can be {MOST_CLASSES} classes"
        raise ValueError(f"{reason}; list values of no class as ignored, or {fix}")
    log.info("%s has no %s: %d classes are numbered", root, CLASSES_FILE, num_classes)
    return LabelMap.numbered(num_classes)


def find_colours(root: Path | str, given: Sequence[str] | str | int | None = None) -> tuple[Colour, ...] | None:
    """The colours that stand beside the class names which `find_classes` finds; None where there are none.

    Raises:
        ValueError: no such file or set.
    """
    source = _source(root, given) if given is None or isinstance(given, str) else None
    return None if source is None else read_classes(source).palette


def _source(root: Path | str, given: str | None) -> str | Path | None:
    """The file of class names, or the well-known set."""
    path = Path(root) / (CLASSES_FILE if given is None else given)
    return path if path.is_file() else given


def _largest(path: Path, ignored: Sequence[int]) -> int:
    values = set(np.unique(read_label_map(path)).tolist()) - set(ignored)
    return max(values, default=-1)
