"""Which format a folder is in, and how it becomes COCO's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from internimage.data.class_folders import Split
from internimage.data.detection.files import SPLITS, check_folder, coco_files
from internimage.data.detection.formats.labelled import Labelled
from internimage.data.detection.formats.voc import read_voc, voc_files
from internimage.data.detection.formats.yolo import read_yolo, yolo_folders

Format = Literal["coco", "voc", "yolo"]


def detect_format(root: Path | str) -> Format:
    """The format of a folder's annotations; COCO's goes before the others, which it may have come from.

    Raises:
        ValueError: no such folder, none of the formats, or VOC's and YOLO's at once.
    """
    root = check_folder(root)
    if any(coco_files(root, split) for split in SPLITS):
        return "coco"
    is_voc, is_yolo = bool(voc_files(root)), bool(yolo_folders(root))
    if is_voc and is_yolo:
        raise ValueError(f"{root} holds XML files as Pascal VOC's and labels as YOLO's; keep one of them")
    if not is_voc and not is_yolo:
        known = "COCO's annotations/train.json, Pascal VOC's Annotations/*.xml, or YOLO's images/ with labels/"
        raise ValueError(f"{root} holds no annotations of a known format: {known}")
    return "voc" if is_voc else "yolo"


def voc_to_coco(root: Path | str, split: Split) -> dict[str, Any]:
    """One split of a Pascal VOC folder in COCO's format, image names relative to ``root``.

    Classes are those of all splits, sorted by name, with category ids from 1. Boxes from 1-based pixels become
    ``[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]``; difficult objects become crowd regions.

    Raises:
        ValueError: no such split, or files that can't be read: how many, and the first three with the reason.
    """
    root = check_folder(root)
    classes, pictures = read_voc(root, split)
    return _assemble(root, classes, pictures, first_id=1)


def yolo_to_coco(root: Path | str, split: Split) -> dict[str, Any]:
    """One split of a YOLO folder in COCO's format, image names relative to ``root``.

    Category ids are YOLO's class numbers, from 0. Polygons become segmentations.

    Raises:
        ValueError: no such split, no class names, or lines that can't be read: in how many files, and the first three.
    """
    root = check_folder(root)
    classes, pictures = read_yolo(root, split)
    return _assemble(root, classes, pictures, first_id=0)


def convert_to_coco(root: Path | str, output: Path | str) -> list[Path]:
    """Write ``annotations/train.json`` (and val, test: the splits there are) in ``output``; images stay where they are.

    Image names are relative to ``output``, which may be ``root``: `find_coco` finds both, and for `read_coco` the
    folder of the images is ``output``. Nothing is written if anything is wrong.

    Raises:
        ValueError: ``root`` is in COCO's format already or in none, files can't be read, or one that would be written
            is there.
    """
    root, output = check_folder(root), Path(output)
    found = detect_format(root)
    if found == "coco":
        raise ValueError(f"{root} is in COCO's format already; nothing to convert")
    splits: list[Split] = list(voc_files(root) if found == "voc" else yolo_folders(root))
    targets = {split: output / "annotations" / f"{split}.json" for split in splits}
    if there := [str(path) for path in targets.values() if path.exists()]:
        raise ValueError(f"{', '.join(there)} would be overwritten; move it away, or give another folder")
    convert: Callable[[Path, Split], dict[str, Any]] = voc_to_coco if found == "voc" else yolo_to_coco
    contents = {split: convert(root, split) for split in splits}
    for split, content in contents.items():
        for image in content["images"]:
            image["file_name"] = Path(os.path.relpath(root / image["file_name"], output)).as_posix()
        targets[split].parent.mkdir(parents=True, exist_ok=True)
        with targets[split].open("x", encoding="utf-8") as file:
            json.dump(content, file)
    return list(targets.values())


def _assemble(root: Path, classes: list[str], pictures: list[Labelled], first_id: int) -> dict[str, Any]:
    """COCO's lists, with ids of images and annotations from 1: an annotation 0 counts as none in COCO's evaluation."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, start=1):
        height, width = picture.size
        name = picture.path.relative_to(root).as_posix()
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for each in picture.objects:
            fields = {**each, "category_id": each["category_id"] + first_id}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fields})
    categories = [{"id": first_id + index, "name": name} for index, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}
