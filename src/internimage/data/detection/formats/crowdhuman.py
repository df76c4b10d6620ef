"""CrowdHuman's annotations: ``annotation_train.odgt`` and the like, one picture a line in JSON.

Of the three boxes of a person (full body, visible part, head) the full body's ``fbox`` is taken, as [x, y, width,
height]. What is no person (``tag`` of another kind, such as ``mask``) or has ``extra.ignore`` becomes a crowd region:
no object in training, and not counted in evaluation, as the set's own rules have it.

Source: arXiv:1805.00123; which boxes count, detection/tools/create_crowd_anno.py of the released code, 31c962d.
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, cast

from internimage.data.class_folders import Split
from internimage.data.detection.files import check_folder, picture_size
from internimage.data.detection.formats.labelled import Labelled, MisreadError, gather, read_files
from internimage.data.images import images_below

_FILES: dict[Split, str] = {split: f"annotation_{split}.odgt" for split in ("train", "val", "test")}
_HOMES, _IMAGES = ("annotations", "."), ("Images", "images")
PERSON = "person"


def crowdhuman_files(root: Path) -> dict[Split, Path]:
    """The file of each split that ``root`` or its folder ``annotations`` holds."""
    root = check_folder(root)
    found: dict[Split, list[Path]] = {
        split: [path for home in _HOMES if (path := root / home / name).is_file()] for split, name in _FILES.items()
    }
    return {split: paths[0] for split, paths in found.items() if paths}


def read_crowdhuman(
    root: Path, split: Split, faults: list[MisreadError] | None = None
) -> tuple[list[str], list[Labelled]]:
    """The one class, and the pictures of one split.

    Args:
        root: the folder, with the pictures in ``Images``, or in folders there.
        split: one that `crowdhuman_files` finds there.
        faults: takes what can't be read; without it, that is an error.

    Raises:
        ValueError: no such split, no folder of pictures, or lines that can't be read: how many, and the first three.
    """
    files = crowdhuman_files(root)
    if split not in files:
        raise ValueError(f"{root} has no split {split}; it has {', '.join(files) or 'no .odgt files'}")
    homes = [root / name for name in _IMAGES if (root / name).is_dir()]
    if not homes:
        raise ValueError(f"{root} has no folder Images with the pictures of {files[split]}; put them there")
    images = {path.stem: path for path in images_below(homes[0])}
    lines = files[split].read_bytes().splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [PERSON], read_files(numbered, partial(_picture, path=files[split], images=images), faults)


def _picture(numbered: tuple[int, bytes], faults: list[MisreadError], path: Path, images: dict[str, Path]) -> Labelled:
    number, line = numbered
    where = f"{path}, line {number}"
    try:
        raw: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MisreadError("broken file", f"{where} is not valid JSON: {error}") from error
    name, boxes = (raw.get("ID"), raw.get("gtboxes", [])) if isinstance(raw, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(boxes, list):
        raise MisreadError("line of another form", f"{where} must be an object with a text as ID and a list gtboxes")
    if name not in images:
        raise MisreadError("picture missing or not clear", f"{where}: there is no picture {name}.jpg below Images")
    objects = gather(enumerate(cast(list[Any], boxes), start=1), partial(_object, where=where), faults)
    places, fields = zip(*objects, strict=True) if objects else ((), ())
    return Labelled(images[name], picture_size(images[name]), fields, path, places)


def _object(numbered: tuple[int, Any], where: str) -> tuple[str, dict[str, Any]]:
    """An object's place in its file, and its annotation."""
    number, raw = numbered
    box = raw.get("fbox") if isinstance(raw, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(each) for each in box):
        reason = f"fbox must be [x, y, width, height] in finite numbers, got {box!r:.60}"
        raise MisreadError("coordinate is no number", f"{where}, box {number}: {reason}")
    _, _, width, height = box
    extra = raw.get("extra")
    is_ignored = raw.get("tag") != PERSON or (isinstance(extra, dict) and bool(extra.get("ignore")))
    area = max(width, 0) * max(height, 0)
    fields = {"category_id": 0, "bbox": [*box], "area": area, "iscrowd": int(is_ignored)}
    return f", {where.rpartition(', ')[2]}, box {number}", fields


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
