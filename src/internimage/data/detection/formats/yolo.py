"""YOLO's labels: one text file per picture, one object a line.

``class cx cy width height`` is a box, ``class x y x y x y ...`` a polygon, both in shares of the picture's width and
height. A picture without a label file, or with an empty one, has no objects.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml

from internimage.data.class_folders import Split
from internimage.data.detection.files import SPLITS, check_folder, picture_size, split_folders
from internimage.data.detection.formats.labelled import Labelled, MisreadError, gather, read_files
from internimage.data.images import images_below

# Rounding may leave the picture by a little; pixels instead of shares leave it by far.
_SLACK = 0.01


def yolo_folders(root: Path, left_out: list[Path] | None = None) -> dict[Split, tuple[Path, Path]]:
    """(images, labels) of each split that ``root`` holds; all is for training where it has no splits.

    Known are ``images/train`` with ``labels/train`` (a year may follow), ``train/images`` with ``train/labels``,
    ``images`` with ``labels``, and the folders that ``data.yaml`` names.

    Args:
        root: the folder.
        left_out: takes the folders of images that have no labels beside them.
    """
    root = check_folder(root)
    settings, _ = _settings(root)
    found: dict[Split, tuple[Path, Path]] = {}
    without: list[Path] = []
    for split in SPLITS:
        named = settings.get(split)
        folders = [root / named] if isinstance(named, str) and (root / named).is_dir() else []
        folders += split_folders(root / "images", split)
        folders += [folder / "images" for folder in split_folders(root, split) if (folder / "images").is_dir()]
        pairs = {folder.resolve(): (folder, labels) for folder in folders if (labels := _labels_of(folder, root))}
        if len(pairs) > 1:
            listed = ", ".join(str(folder.relative_to(root)) for folder, _ in pairs.values())
            raise ValueError(f"{root} holds several folders of {split} images: {listed}; keep one of them")
        if pairs:
            found[split] = next(iter(pairs.values()))
        elif folders:
            without.append(folders[0])
    if left_out is not None:
        left_out += without
    if not found and (labels := _labels_of(root / "images", root)):
        return {"train": (root / "images", labels)}
    return found


def unlabelled_folders(root: Path) -> list[Path]:
    """The folders of images that are named as a split and have no labels beside them."""
    left_out: list[Path] = []
    yolo_folders(root, left_out)
    return left_out


def read_yolo(root: Path, split: Split, faults: list[MisreadError] | None = None) -> tuple[list[str], list[Labelled]]:
    """The classes in their order, and the pictures of one split.

    Args:
        root: the folder.
        split: one that `yolo_folders` finds there.
        faults: takes what can't be read; without it, that is an error.

    Raises:
        ValueError: no such split, no class names, labels without a picture, or lines that can't be read: in how many
            files, and the first three with the reason.
    """
    folders = yolo_folders(root)
    if split not in folders:
        raise ValueError(f"{root} has no split {split}; it has {', '.join(folders) or 'no images with labels'}")
    names = _names(root)
    images, labels = folders[split]
    paths = images_below(images)
    pairs = {labels / path.relative_to(images).with_suffix(".txt"): path for path in paths}
    without = [path for path in sorted(labels.rglob("*.txt")) if path not in pairs and path.name != "classes.txt"]
    doubled = sorted(set(paths) - set(pairs.values()))
    if faults is not None:
        missing = f"has no picture in {images}; add it, or remove the labels"
        faults += [MisreadError("labels without a picture", f"{path} {missing}") for path in without]
        alike = "has the name of another but for its suffix; labels can't tell them apart"
        faults += [MisreadError("pictures of one name", f"{path} {alike}") for path in doubled]
    elif without:
        raise ValueError(f"{without[0]} has no picture in {images}; add it, or remove the labels ({len(without)} such)")
    elif doubled:
        raise ValueError(f"{images} holds pictures that differ in their suffix only; labels can't tell them apart")
    return names, read_files(pairs.items(), partial(_picture, num_classes=len(names)), faults)


def _labels_of(images: Path, root: Path) -> Path | None:
    """The folder of labels: as that of the images, with ``labels`` for the last ``images``."""
    parts = list(images.relative_to(root).parts) if images.is_relative_to(root) else []
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    folder = root.joinpath(*parts)
    # Label maps of another task are images, too.
    return folder if images.is_dir() and next(folder.rglob("*.txt"), None) else None


def _settings(root: Path) -> tuple[dict[str, Any], Path | None]:
    """What the YAML file with the class names says, and its path."""
    files = sorted((*root.glob("*.yaml"), *root.glob("*.yml")), key=lambda path: (path.stem != "data", path.name))
    for path in files:
        try:
            content: Any = yaml.safe_load(path.read_bytes())
        except yaml.YAMLError as error:
            if path.stem != "data":
                continue
            raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if isinstance(content, dict) and "names" in content:
            return cast(dict[str, Any], content), path
    return {}, None


def _names(root: Path) -> list[str]:
    settings, path = _settings(root)
    if path is None:
        files = [file for file in (root / "classes.txt", root / "labels/classes.txt") if file.is_file()]
        if not files:
            raise ValueError(f"{root} names no classes; add data.yaml with 'names: [cat, dog]', or classes.txt")
        lines = files[0].read_text("utf-8-sig", errors="replace").splitlines()
        return _checked([line.strip() for line in lines if line.strip()], files[0])
    if "kpt_shape" in settings:
        raise ValueError(f"{path} is of key points (kpt_shape), not of boxes or polygons")
    given: Any = settings["names"]
    if isinstance(given, dict):
        if sorted(given, key=str) != sorted(range(len(given)), key=str):
            raise ValueError(f"{path}: the keys of names must be 0 to {len(given) - 1}, got {list(given)!r:.80}")
        given = [given[number] for number in range(len(given))]
    if not isinstance(given, list):
        raise ValueError(f"{path}: names must be a list or numbered, got {given!r:.80}")
    names = [str(name) if type(name) in (int, float) else name for name in cast(list[Any], given)]
    if "nc" in settings and settings["nc"] != len(names):
        raise ValueError(f"{path} has {len(names)} names, but says nc: {settings['nc']}; make them agree")
    return _checked(names, path)


def _checked(names: list[Any], path: Path) -> list[str]:
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{path}: class names must be texts (YAML takes yes, no, on, off for others: quote them)")
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: class names must be unique, but {', '.join(doubles)} occurs more than once")
    return names


def _picture(pair: tuple[Path, Path], faults: list[MisreadError], num_classes: int) -> Labelled:
    path, image = pair
    size = picture_size(image)
    if not path.is_file():
        return Labelled(image, size, ())
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MisreadError("broken file", f"{path} is not a text file: {error}") from error
    numbered = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    objects = gather(numbered, partial(_object, path=path, num_classes=num_classes, size=size), faults)
    places, fields = zip(*objects, strict=True) if objects else ((), ())
    return Labelled(image, size, fields, path, places)


def _object(
    numbered: tuple[int, list[str]], path: Path, num_classes: int, size: tuple[int, int]
) -> tuple[str, dict[str, Any]]:
    """A line's place in its file, and its annotation."""
    number, words = numbered
    return f", line {number}", _annotation(words, f"{path}, line {number}", num_classes, size)


def _annotation(words: list[str], where: str, num_classes: int, size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    if len(words) < 5 or len(words) % 2 == 0:
        wanted = "'class cx cy width height' or 'class x y x y x y ...'"
        raise MisreadError("line of another form", f"{where} has {len(words)} values, but must be {wanted}")
    if not words[0].isdecimal() or int(words[0]) >= num_classes:
        text = f"{where}: the class must be a number from 0 to {num_classes - 1}, got {words[0]!r:.40}"
        raise MisreadError("unknown category id", text)
    shares = [_share(word, where) for word in words[1:]]
    category = {"category_id": int(words[0]), "iscrowd": 0}
    if len(shares) == 4:
        center_x, center_y, box_width, box_height = shares
        box = [(center_x - box_width / 2) * width, (center_y - box_height / 2) * height]
        box += [box_width * width, box_height * height]
        return {**category, "bbox": box, "area": box[2] * box[3]}
    xs, ys = [x * width for x in shares[0::2]], [y * height for y in shares[1::2]]
    polygon = [value for point in zip(xs, ys, strict=True) for value in point]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {**category, "bbox": box, "area": _area(xs, ys), "segmentation": [polygon]}


def _share(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise MisreadError("coordinate is no number", f"{where}: {word!r:.40} is no number; correct it") from None
    if not -_SLACK <= value <= 1 + _SLACK:
        text = f"{where}: {word:.40} is no share between 0 and 1; divide pixels by the picture's size"
        raise MisreadError("coordinate outside 0 to 1" if math.isfinite(value) else "coordinate is no number", text)
    return value


def _area(xs: list[float], ys: list[float]) -> float:
    """Of a polygon, by the shoelace formula."""
    corners = list(zip(xs, ys, strict=True))
    following = corners[1:] + corners[:1]
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(corners, following, strict=True))) / 2
