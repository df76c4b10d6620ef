"""OpenImages' annotations: tables of boxes, one file per split, and one of the classes' names.

``annotations/class-descriptions-boxable.csv`` has a line per class, its machine name and its name.
``annotations/oidv6-train-annotations-bbox.csv``, ``validation-annotations-bbox.csv`` and ``test-annotations-bbox.csv``
have a line per box, in shares of the picture's width and height; pictures lie in ``train/``, ``validation/`` and
``test/``. A box around a group of objects (``IsGroupOf``) becomes a crowd region. Where
``validation-annotations-human-imagelabels-boxable.csv`` and its like are there, the classes that were looked for in
vain in a picture are kept as in LVIS's format. The hierarchy of the classes is not used.

Source: arXiv:1811.00982, and the files of V6.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from internimage.data.class_folders import Split
from internimage.data.detection.files import SPLITS, check_folder, picture_size, split_folders
from internimage.data.detection.formats.labelled import Labelled, MisreadError, gather, read_files
from internimage.data.images import images_below

_CLASSES = "class-descriptions-boxable.csv"
_BOXES, _LABELS = "annotations-bbox.csv", "annotations-human-imagelabels-boxable.csv"
_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "oidv6-train", "oidv7-train"),
    "val": ("validation", "val"),
    "test": ("test",),
}
_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = ("ImageID", "LabelName", *_CORNERS)


class _Box(NamedTuple):
    """A row of a table of boxes; of a training set's 15 million, texts and unused columns would fill 20 GB."""

    number: int
    label: int
    corners: tuple[float, float, float, float]
    is_group: bool


def openimages_files(root: Path) -> dict[Split, Path]:
    """The table of boxes of each split that ``root`` or its folder ``annotations`` holds; none without class names."""
    root = check_folder(root)
    if _find(root, _CLASSES) is None:
        return {}
    found: dict[Split, list[Path]] = {
        split: [path for name in _NAMES[split] if (path := _find(root, f"{name}-{_BOXES}"))] for split in SPLITS
    }
    return {split: paths[0] for split, paths in found.items() if paths}


def read_openimages(
    root: Path, split: Split, faults: list[MisreadError] | None = None
) -> tuple[list[str], list[Labelled]]:
    """The classes in their order, and the pictures of one split that have boxes.

    Args:
        root: the folder.
        split: one that `openimages_files` finds there.
        faults: takes what can't be read; without it, that is an error.

    Raises:
        ValueError: no such split, no pictures, tables of another form, or rows that can't be read: of how many
            pictures, and the first three.
    """
    files = openimages_files(root)
    if split not in files:
        raise ValueError(f"{root} has no split {split}; it has {', '.join(files) or 'no tables of boxes'}")
    if not (folders := split_folders(root, split)):
        raise ValueError(f"{root} has no folder with the pictures of {files[split]}; put them into {_NAMES[split][0]}/")
    names = _class_names(root)
    index = {machine: at for at, machine in enumerate(names)}
    images = {path.stem: path for path in images_below(folders[0])}
    boxes: dict[str, list[_Box | MisreadError]] = {}
    for number, row in _rows(files[split], _COLUMNS):
        boxes.setdefault(row["ImageID"], []).append(_box(row, number, files[split], index))
    read = partial(_picture, path=files[split], images=images, absent=_absent(root, split, index))
    # What is read already makes room for what comes of it.
    return list(names.values()), read_files(((name, boxes.pop(name)) for name in list(boxes)), read, faults)


def _find(root: Path, name: str) -> Path | None:
    return next((path for home in ("annotations", ".") if (path := root / home / name).is_file()), None)


def _class_names(root: Path) -> dict[str, str]:
    """Names by machine names, in the file's order."""
    path = _find(root, _CLASSES)
    assert path is not None
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    if lines and lines[0] == ["LabelName", "DisplayName"]:
        del lines[0]
    if wrong := [line for line in lines if len(line) != 2 or not all(line)]:
        raise ValueError(f"{path} must have a machine name and a name in each line, got {wrong[0]!r:.80}")
    names = dict(lines)
    if len(set(names.values())) < len(lines):
        raise ValueError(f"{path} names a class twice; each must have its own line and name")
    return names


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their line's number before them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        if lacking := [name for name in columns if name not in (table.fieldnames or ())]:
            raise ValueError(f"{path} has no column {' and no column '.join(lacking)}; it needs {', '.join(columns)}")
        for fields in table:
            yield table.line_num, fields


def _absent(root: Path, split: Split, index: dict[str, int]) -> dict[str, set[int]] | None:
    """Of each picture the classes that were looked for in vain; None where no file says it."""
    found = [path for name in _NAMES[split] if (path := _find(root, f"{name}-{_LABELS}"))]
    if not found:
        return None
    absent: dict[str, set[int]] = {}
    for _, row in _rows(found[0], ("ImageID", "LabelName", "Confidence")):
        if row["LabelName"] in index and row["Confidence"] in ("0", "0.0"):
            absent.setdefault(row["ImageID"], set()).add(index[row["LabelName"]])
    return absent


def _picture(
    item: tuple[str, list[_Box | MisreadError]],
    faults: list[MisreadError],
    path: Path,
    images: dict[str, Path],
    absent: dict[str, set[int]] | None,
) -> Labelled:
    name, boxes = item
    if name not in images:
        first = boxes[0]
        where = f"{path}, line {first.number}" if isinstance(first, _Box) else str(path)
        raise MisreadError(
            "picture missing or not clear", f"{where}: there is no picture {name!r:.60} in the split's folder"
        )
    size = picture_size(images[name])
    objects = gather(boxes, partial(_object, size=size), faults)
    places, fields = zip(*objects, strict=True) if objects else ((), ())
    lacking = None if absent is None else tuple(sorted(absent.get(name, ())))
    return Labelled(images[name], size, fields, path, places, lacking)


def _box(row: dict[str, str], number: int, path: Path, index: dict[str, int]) -> _Box | MisreadError:
    """A row, or why it is none: to be told with its picture."""
    where = f"{path}, line {number}"
    if (machine := row["LabelName"]) not in index:
        return MisreadError("unknown category id", f"{where}: {machine!r:.40} is not in {_CLASSES}; add it")
    try:
        x1, y1, x2, y2 = (_share(row[key], key, where) for key in _CORNERS)
    except MisreadError as error:
        return error.with_traceback(None)
    return _Box(number, index[machine], (x1, y1, x2, y2), (row.get("IsGroupOf") or "0").strip() == "1")


def _object(box: _Box | MisreadError, size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """A row's place in its file, and its annotation."""
    if isinstance(box, MisreadError):
        raise box
    (x1, y1, x2, y2), (height, width) = box.corners, size
    x, y, across, down = x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height
    fields = {
        "category_id": box.label,
        "bbox": [x, y, across, down],
        "area": max(across, 0) * max(down, 0),
        "iscrowd": int(box.is_group),
    }
    return f", line {box.number}", fields


def _share(text: str | None, key: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    # Rounding may leave the picture by a little; pixels instead of shares leave it by far.
    if not -0.01 <= value <= 1.01:
        kind = "coordinate outside 0 to 1" if math.isfinite(value) else "coordinate is no number"
        raise MisreadError(kind, f"{where}: {key} must be a share between 0 and 1, got {text!r:.40}")
    return value
