"""Which format a folder is in, and how it becomes COCO's."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from internimage.data.class_folders import Split
from internimage.data.detection.files import SPLITS, check_folder, coco_files
from internimage.data.detection.formats.crowdhuman import crowdhuman_files, read_crowdhuman
from internimage.data.detection.formats.labelled import MisreadError
from internimage.data.detection.formats.openimages import openimages_files, read_openimages
from internimage.data.detection.formats.voc import read_voc, voc_files
from internimage.data.detection.formats.yolo import read_yolo, unlabelled_folders, yolo_folders
from internimage.data.detection.lvis import Verified

log = logging.getLogger(__name__)
Other = Literal["voc", "yolo", "crowdhuman", "openimages"]
"""The formats that are converted."""

Format = Literal["coco"] | Other
KNOWN = (
    "COCO's annotations/train.json, Pascal VOC's Annotations/*.xml, YOLO's images/ with labels/, "
    "CrowdHuman's annotation_train.odgt, or OpenImages' class-descriptions-boxable.csv"
)
"""The formats, for messages."""

_SIGNS: dict[Other, str] = {
    "voc": "XML files as Pascal VOC's",
    "yolo": "labels as YOLO's",
    "crowdhuman": ".odgt files as CrowdHuman's",
    "openimages": "tables as OpenImages'",
}
_READ = {"voc": read_voc, "yolo": read_yolo, "crowdhuman": read_crowdhuman, "openimages": read_openimages}
# Its own numbers; the other formats have none.
_FIRST_IDS = {"yolo": 0}


def find_format(root: Path | str) -> Format | None:
    """The format of a folder's annotations, or None; COCO's goes before the others, which it may have come from.

    Raises:
        ValueError: no such folder, or several of the others at once.
    """
    root = check_folder(root)
    if any(coco_files(root, split) for split in SPLITS):
        return "coco"
    found: list[Other] = [each for each in get_args(Other) if splits_of(root, each, [])]
    if len(found) > 1:
        raise ValueError(f"{root} holds {' and '.join(_SIGNS[each] for each in found)}; keep one of them")
    return found[0] if found else None


def detect_format(root: Path | str) -> Format:
    """The format of a folder's annotations; COCO's goes before the others, which it may have come from.

    Raises:
        ValueError: no such folder, none of the formats, or several at once.
    """
    if (found := find_format(root)) is None:
        raise ValueError(f"{root} holds no annotations of a known format: {KNOWN}")
    return found


def voc_to_coco(root: Path | str, split: Split) -> dict[str, Any]:
    """One split of a Pascal VOC folder in COCO's format, image names relative to ``root``.

    Classes are those of all splits, sorted by name, with category ids from 1. Boxes from 1-based pixels become
    ``[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]``; difficult objects become crowd regions.

    Raises:
        ValueError: no such split, or files that can't be read: how many, and the first three with the reason.
    """
    return convert_split(check_folder(root), "voc", split).content


def yolo_to_coco(root: Path | str, split: Split) -> dict[str, Any]:
    """One split of a YOLO folder in COCO's format, image names relative to ``root``.

    Category ids are YOLO's class numbers, from 0. Polygons become segmentations.

    Raises:
        ValueError: no such split, no class names, or lines that can't be read: in how many files, and the first three.
    """
    _warn_of_left_out(check_folder(root))
    return convert_split(Path(root), "yolo", split).content


@dataclass(frozen=True)
class Converted:
    """One split in COCO's format.

    Args:
        content: lists of ``images``, ``annotations`` and ``categories``; image names are relative to the set's folder.
        places: of each annotation, where it came from, such as ``labels/a.txt, line 3``.
        without_file: the pictures that no file says anything of.
    """

    content: dict[str, Any]
    places: tuple[str, ...]
    without_file: tuple[Path, ...]


def convert_split(root: Path, found: Other, split: Split, faults: list[MisreadError] | None = None) -> Converted:
    """One split of a folder in COCO's format.

    Args:
        root: the folder.
        found: its format.
        split: one that it has.
        faults: takes what can't be read, and the rest is converted; without it, that is an error.

    Raises:
        ValueError: no such split, no class names, or files that can't be read: how many, and the first three.
    """
    classes, pictures = _READ[found](root, split, faults)
    first_id = _FIRST_IDS.get(found, 1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    places: list[str] = []
    # An annotation 0 counts as none in COCO's evaluation.
    for image_id, picture in enumerate(pictures, start=1):
        height, width = picture.size
        name = picture.path.relative_to(root).as_posix()
        image: dict[str, Any] = {"id": image_id, "file_name": name, "width": width, "height": height}
        if picture.absent is not None:
            image |= Verified(tuple(first_id + each for each in picture.absent)).fields()
        images.append(image)
        for place, each in zip(picture.places, picture.objects, strict=True):
            fields = {**each, "category_id": each["category_id"] + first_id}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fields})
            places.append(f"{picture.source}{place}")
    categories = [{"id": first_id + index, "name": name} for index, name in enumerate(classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return Converted(content, tuple(places), tuple(each.path for each in pictures if each.source is None))


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
    splits = splits_of(root, found)
    targets = {split: output / "annotations" / f"{split}.json" for split in splits}
    if there := [str(path) for path in targets.values() if path.exists()]:
        raise ValueError(f"{', '.join(there)} would be overwritten; move it away, or give another folder")
    if found == "yolo":
        _warn_of_left_out(root)
    contents = {split: convert_split(root, found, split).content for split in splits}
    for split, content in contents.items():
        for image in content["images"]:
            image["file_name"] = Path(os.path.relpath(root / image["file_name"], output)).as_posix()
        targets[split].parent.mkdir(parents=True, exist_ok=True)
        # A full disk or Ctrl-C must not leave half a file under the name of a whole one.
        partial = targets[split].with_suffix(".json.partial")
        try:
            partial.write_text(json.dumps(content), encoding="utf-8")
            partial.replace(targets[split])
        finally:
            partial.unlink(missing_ok=True)
    return list(targets.values())


def splits_of(root: Path, found: Other, faults: list[MisreadError] | None = None) -> list[Split]:
    """The splits that a folder of this format holds; ``faults`` as for `voc_files`."""
    if found == "voc":
        return list(voc_files(root, faults))
    if found == "yolo":
        return list(yolo_folders(root))
    return list(crowdhuman_files(root) if found == "crowdhuman" else openimages_files(root))


def _warn_of_left_out(root: Path) -> None:
    for folder in unlabelled_folders(root):
        log.warning("%s has no labels beside it: left out", folder)
