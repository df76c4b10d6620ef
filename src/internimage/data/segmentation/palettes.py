"""Names and colours of classes: those of well-known sets, those in a file, and colours that are easily told apart."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from internimage.structures import IGNORED, MOST_CLASSES, Colour, LabelMap

KNOWN = ("ade20k", "cityscapes", "coco_stuff", "nyu_depth_v2", "pascal_context_59")
"""Sets whose classes are known by name."""

IGNORED_COLOUR: Colour = (224, 224, 192)
"""Of pixels of no class, as Pascal VOC shows them."""

_BACKGROUND: Colour = (0, 0, 0)
_HEADER = ["name", "r", "g", "b"]
_COLOURED = re.compile(r"\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(.*))?$")
# Of colours that show on photographs: OKLab's lightness.
_LIGHTNESS = (0.4, 0.95)
# Okabe and Ito, Color Universal Design, 2008: the first ones, without black.
_FIRST: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
# Linear RGB as seen without L and without M cones: Machado, Oliveira, Fernandes 2009, severity 1.
_SEEN = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
# From linear RGB to OKLab: Ottosson 2020.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Such eyes tell fewer colours apart: their differences count more, or they would choose alone.
_WEIGHTS = np.array([1.0, 1.6, 1.6])


class Listed(NamedTuple):
    """Classes as a file lists them.

    Args:
        labels: the names, numbered where the file has colours alone.
        palette: a colour per class, or None.
    """

    labels: LabelMap
    palette: tuple[Colour, ...] | None


def read_classes(source: str | Path) -> Listed:
    """The classes of a well-known set, or those that a text file lists, in the order of their numbers.

    A file has one class per line, ``name`` or ``128 64 128 name`` (spaces or tabs), or is a table with commas whose
    first line is ``name,r,g,b``.

    Raises:
        ValueError: neither, or a line that can't be read.

    >>> read_classes("cityscapes").labels[:3], read_classes("cityscapes").palette[0]
    (('road', 'sidewalk', 'building'), (128, 64, 128))
    """
    path = Path(source)
    if str(source) in KNOWN:
        lines = (
            resources.files("internimage.data.segmentation")
            .joinpath(f"known/{source}.txt")
            .read_text(encoding="utf-8")
            .splitlines()
        )
    elif path.is_file():
        lines = _lines(path)
    else:
        raise ValueError(f"there is no file {path} of class names, and the sets known by name are {', '.join(KNOWN)}")
    if not lines:
        raise ValueError(f"{path} names no classes; write one per line")
    if len(lines) > MOST_CLASSES + 1:
        raise ValueError(f"{path} has {len(lines)} lines; a label map can tell {MOST_CLASSES} classes apart")
    rows = _table(lines) if lines[0].replace(" ", "").lower().split(",") == _HEADER else [_row(line) for line in lines]
    return _listed(rows, path)


def read_palette(source: str | Path) -> tuple[LabelMap, tuple[Colour, ...]]:
    """Names and colours of a well-known set, or of a file as for `read_classes`.

    Raises:
        ValueError: as for `read_classes`, or there are no colours.
    """
    listed = read_classes(source)
    if listed.palette is None:
        with_colours = ", ".join(name for name in KNOWN if read_classes(name).palette)
        fix = f"write lines such as `128 64 128 road`; with colours there are {with_colours}, too"
        raise ValueError(f"{source} lists names without colours; {fix}")
    return listed.labels, listed.palette


def find_palette(labels: LabelMap, given: str | Path | None = None) -> tuple[Colour, ...]:
    """A colour for each class.

    Args:
        labels: the classes.
        given: a well-known set or a file of classes with colours; by default the colours of the well-known set that
            has exactly these classes, or else `spread_palette` with black for ``background``.

    Raises:
        ValueError: what was given has colours of other classes, or none.
    """
    if given is not None:
        names, palette = read_palette(given)
        if len(names) != len(labels):
            raise ValueError(f"{given} has colours of {len(names)} classes, but there are {len(labels)}")
        return palette
    for name in KNOWN:
        known = read_classes(name)
        if known.labels == labels and known.palette:
            return known.palette
    spread = iter(spread_palette(len(labels)))
    return tuple(_BACKGROUND if name == "background" else next(spread) for name in labels)


def spread_palette(num_classes: int) -> tuple[Colour, ...]:
    """Colours that are told apart as easily as that many can be, by red-blind and green-blind eyes, too.

    The first are the same for any number of classes. None is black, white or the colour of ignored pixels.

    >>> spread_palette(2)
    ((230, 159, 0), (86, 180, 233))
    """
    if not 0 <= num_classes <= MOST_CLASSES:
        raise ValueError(f"there can be {MOST_CLASSES} classes, got {num_classes}")
    return _spread()[:num_classes]


def label_image(labels_HW: ArrayLike, palette: tuple[Colour, ...]) -> Image.Image:
    """A label map as a picture that shows colours and holds class numbers: mode P, to be saved as PNG.

    Args:
        labels_HW: (H, W) integers: class indices and 255 for pixels of no class.
        palette: a colour per class.

    >>> label_image([[0, 1], [1, 255]], ((0, 0, 0), (128, 0, 0))).convert("RGB").getpixel((1, 0))
    (128, 0, 0)
    """
    given = np.asarray(labels_HW)
    if given.ndim != 2 or given.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers of shape (H, W), got {given.dtype} of shape {given.shape}")
    wrong = np.unique(given[(given != IGNORED) & ((given < 0) | (given >= len(palette)))])
    if len(wrong):
        raise ValueError(f"labels must lie in [0, {len(palette)}) or be {IGNORED}, got {wrong[:5].tolist()}")
    image = Image.fromarray(given.astype(np.uint8))
    colours = (*palette, *[_BACKGROUND] * (IGNORED - len(palette)), IGNORED_COLOUR)
    image.putpalette([value for colour in colours for value in colour])
    return image


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the class names in {path}: {error}; write them as text in UTF-8") from error
    if empty := [str(number) for number, line in enumerate(lines, 1) if not line.strip()]:
        raise ValueError(f"{path} has empty lines ({', '.join(empty[:5])}); every line is a class")
    return lines


def _table(lines: list[str]) -> list[list[str]]:
    return [[*row[1:4], row[0]] for row in csv.reader(lines[1:], skipinitialspace=True)]


def _row(line: str) -> list[str]:
    """Three numbers and a name, or the name alone."""
    found = _COLOURED.match(line)
    return [line.strip()] if found is None else [part.strip() for part in found.groups("")]


def _listed(rows: list[list[str]], path: Path) -> Listed:
    coloured = [len(row) == len(_HEADER) for row in rows]
    if any(coloured) and not all(coloured):
        raise ValueError(f"{path} has {sum(coloured)} lines with a colour and {len(rows) - sum(coloured)} without")
    names = tuple(row[-1] or f"class {index}" for index, row in enumerate(rows))
    try:
        labels = LabelMap(names)
        palette = tuple(_colour(row) for row in rows) if all(coloured) else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if len(labels) > MOST_CLASSES:
        raise ValueError(f"{path} has {len(labels)} classes; a label map can tell {MOST_CLASSES} apart")
    return Listed(labels, palette)


def _colour(row: list[str]) -> Colour:
    if not all(part.strip().isdecimal() and int(part) < 256 for part in row[:3]):
        raise ValueError(f"a colour must be three whole numbers from 0 to 255, got {', '.join(row[:3])}")
    red, green, blue = (int(part) for part in row[:3])
    return red, green, blue


@cache
def _spread() -> tuple[Colour, ...]:
    """Each colour as far as possible from all before it, by the eye for which it is nearest."""
    levels = np.linspace(0, 255, 16).round().astype(int)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lightness = _as_seen(candidates)[0, :, 0]
    candidates = candidates[(lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1])]
    seen = _as_seen(candidates)
    taken: list[Colour] = [_BACKGROUND, (255, 255, 255), IGNORED_COLOUR, *_FIRST]
    distances = np.min([_distances(seen, _as_seen(np.array([each]))) for each in taken], 0)
    for _ in range(MOST_CLASSES - len(_FIRST)):
        best = int(distances.argmax())
        red, green, blue = candidates[best].tolist()
        taken.append((red, green, blue))
        distances = np.minimum(distances, _distances(seen, seen[:, best : best + 1]))
    return tuple(taken[3:])


def _as_seen(colours: NDArray[np.int_]) -> NDArray[np.float64]:
    """(3, R, 3): coordinates in which distances are differences, for each kind of eyes."""
    values = colours / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    views = np.clip(linear @ _SEEN.transpose(0, 2, 1), 0, 1)
    return np.cbrt(views @ _TO_CONES.T) @ _TO_LAB.T


def _distances(seen: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.linalg.norm(seen - other, axis=-1) * _WEIGHTS[:, None]).min(0)
