"""``internimage data check``: what lies at a path, and the check of its task."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from internimage.cli.data.classification import check_classes
from internimage.cli.data.detection import check_objects, check_objects_file
from internimage.cli.data.segmentation import Meant, check_label_maps, check_list, check_object_masks
from internimage.data.class_folders import SPLIT_FOLDERS, class_folders, find_split
from internimage.data.detection.files import SPLITS, check_folder, coco_files
from internimage.data.detection.formats import KNOWN, find_format
from internimage.data.label_maps import label_map_folders

Task = Literal["classification", "detection", "segmentation"]
_LABEL_MAPS = "images/train with label maps of the same names in labels/train"


def check(path: Path, task: Task | None, images: Path | None, meant: Meant | None = None, *, everything: bool) -> int:
    """Print what a set holds and what is wrong in it.

    Returns 0; 1 where something is to be mended by hand; 2 where training would refuse class folders as they are.

    Args:
        path: a folder, an annotation file in COCO's format, or a list of pictures and label maps.
        task: what the set is for; None takes the first task that it fits: detection, segmentation, classification.
        images: the folder of the pictures of an annotation file.
        meant: what the values of label maps mean, if that was said.
        everything: name every place, not the first three of each kind.

    Raises:
        ValueError: there is no such path, or nothing that is known.
    """
    meant = meant or Meant()
    if meant.is_said:
        if task not in (None, "segmentation"):
            raise ValueError(f"--classes, --ignore and --reduce_zero are for label maps, not for {task}")
        task = "segmentation"
    if path.is_file() and path.suffix.lower() == ".json":
        if task not in (None, "detection"):
            raise ValueError(f"{path} is an annotation file, which is for detection; give a folder for {task}")
        return check_objects_file(path, images, everything=everything)
    if path.is_file() and task == "segmentation":
        return check_list(path, meant, everything=everything)
    if path.suffix.lower() == ".json" and not path.exists():
        raise ValueError(f"there is no file {path}; check the path")
    if images is not None:
        raise ValueError("--images goes with an annotation file of COCO's format; a folder is looked through as it is")
    root = check_folder(path)
    format = find_format(root) if task in (None, "detection") else None
    if format is not None:
        status = check_objects(root, format, everything=everything)
        if task is None and _has_label_maps(root):
            print("there are label maps, too: --task segmentation looks at them")
        return status
    if task == "detection":
        raise ValueError(f"{root} holds no annotations of a known format: {KNOWN}{_others(root)}")
    folders = label_map_folders(root) if task in (None, "segmentation") else {}
    if folders:
        return check_label_maps(root, meant, everything=everything)
    if task == "segmentation":
        if find_format(root) == "coco":
            check_object_masks(root, meant)
            print("there are no label maps: they will be drawn from the masks of the objects, on a background")
            return check_objects(root, "coco", everything=everything)
        raise ValueError(f"{root} holds no pictures with label maps; put them into {_LABEL_MAPS} (or masks)")
    if task is None and not any(find_split(root, split) for split in SPLIT_FOLDERS):
        _refuse_unknown(root)
    return check_classes(root)


def _refuse_unknown(root: Path) -> None:
    """Raise ``ValueError`` with all that would fit, where there are not even class folders."""
    try:
        class_folders(root)
    except ValueError as error:
        others = f"for detection, {KNOWN}{_others(root)}; for segmentation, {_LABEL_MAPS}"
        raise ValueError(f"{error} ({others})") from error


def _has_label_maps(root: Path) -> bool:
    try:
        return bool(label_map_folders(root))
    except ValueError:
        return True


def _others(root: Path) -> str:
    """A word on annotation files whose names say no split, such as CVAT's."""
    known = {path for split in SPLITS for path in coco_files(root, split)}
    names = [
        path.relative_to(root).as_posix() for folder in (root, root / "annotations") for path in folder.glob("*.json")
    ]
    if known or not names:
        return ""
    return f"; {sorted(names)[0]} is named after no split: rename it, or give it as PATH with --images FOLDER"
