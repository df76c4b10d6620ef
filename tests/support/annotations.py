"""Annotation files made by hand: a small one in COCO's format, and changes to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from internimage.data.detection.coco import CocoSet, read_coco
from internimage.structures import LabelMap

IMAGES = [
    {"id": 3, "file_name": "a.jpg", "width": 40, "height": 30},
    {"id": 1, "file_name": "b.jpg", "width": 20, "height": 10},
]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]
TRIANGLE = [1, 2, 11, 2, 11, 22]


def annotation(number: int = 17, **changes: Any) -> dict[str, Any]:
    """A dog in a.jpg; a change to None removes the field."""
    fields = {"id": number, "image_id": 3, "category_id": 7, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0}
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def write_coco(folder: Path, *annotations: Any, **parts: Any) -> Path:
    """``train.json`` in ``folder``, with the pictures that it lists in ``folder/images``; gives the file's path.

    Args:
        folder: a new or existing folder.
        annotations: the file's annotations.
        parts: other ``images`` or ``categories``, or any other top-level value.
    """
    content = {"images": IMAGES, "annotations": list(annotations), "categories": CATEGORIES, **parts}
    for each in IMAGES:
        path = folder / "images" / str(each["file_name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (int(each["width"]), int(each["height"]))).save(path)
    path = folder / "train.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(folder: Path, *annotations: Any, labels: LabelMap | None = None, **parts: Any) -> CocoSet:
    """What `read_coco` makes of such a file."""
    return read_coco(write_coco(folder, *annotations, **parts), folder / "images", labels=labels)
