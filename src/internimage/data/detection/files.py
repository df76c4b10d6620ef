"""Where the files of a detection set lie, and how large its pictures are."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import get_args

from PIL import ExifTags, Image

from internimage.data.class_folders import SPLIT_FOLDERS, Split
from internimage.data.images import IMAGE_SUFFIXES, read_image

SPLITS: tuple[Split, ...] = get_args(Split)
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def find_coco(root: Path | str, split: Split) -> tuple[Path, Path] | None:
    """The annotation file of a split and the folder of its images, or None where ``root`` holds no such file.

    Known are ``annotations/train.json`` and ``annotations/instances_train2017.json`` (any year), both also in ``root``
    itself, with images in ``images/train``, ``train``, ``images``, ``root`` or the same with the year, and
    ``train/_annotations.coco.json`` beside its images. The first image that the file names decides between folders.

    Raises:
        ValueError: no such folder, several annotation files or image folders that fit, or no folder with images.
    """
    root = check_folder(root)
    if split not in SPLITS:
        raise ValueError(f"split must be train, val or test, got {split!r}")
    found = coco_files(root, split)
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{root} holds several annotation files for {split}: {_names(found, root)}; keep one of them")
    return found[0], _image_folder(root, found[0], split)


def coco_files(root: Path, split: Split) -> list[Path]:
    """The annotation files of a split that `find_coco` knows, sorted by path."""
    beside = [folder / "_annotations.coco.json" for folder in split_folders(root, split)]
    files = [path for folder in (root / "annotations", root) for path in _listed(folder) if path.suffix == ".json"]
    named = [path for path in files if is_split_name(path.stem.lower().removeprefix("instances_"), split)]
    return sorted(path for path in (*beside, *named) if path.is_file())


def split_folders(folder: Path, split: Split) -> list[Path]:
    """The folders in ``folder`` that are named as a split is."""
    return sorted(path for path in _listed(folder) if is_split_name(path.name, split) and path.is_dir())


def is_split_name(name: str, split: Split) -> bool:
    """Whether a file or folder name, without its suffix, stands for ``split``.

    >>> is_split_name("train2017", "train"), is_split_name("valid", "val"), is_split_name("trainval", "train")
    (True, True, False)
    """
    return re.sub(r"\d{4}$", "", name.lower()) in SPLIT_FOLDERS[split]


def check_folder(root: Path | str) -> Path:
    """``root`` as a path; raises ``ValueError`` where no folder is."""
    if not Path(root).is_dir():
        raise ValueError(f"there is no folder {root}; give the folder that holds pictures and annotations")
    return Path(root)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture once it is upright, from its header where that says it; raises `ImageReadError`."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size if turned else (image.height, image.width)
    # Whatever Pillow trips over, the full reading copes with it or says what it is.
    except Exception:
        image = read_image(path)
        return image.height, image.width


class Listing:
    """What the folders of the pictures hold: one listing each is faster than a question for every picture.

    Args:
        root: the folder that the names are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, set[str]] = {}

    def has(self, name: str) -> bool:
        """Whether there is a file ``name``, with slashes between its folders."""
        parent, _, base = name.rpartition("/")
        if parent not in self._names:
            self._names[parent] = _file_names(self.root / parent)
        # A file system may not care for capitals.
        return base in self._names[parent] or _is_file(self.root / name)

    def others(self, listed: Collection[str]) -> list[str]:
        """The images in the folders asked for that are not in ``listed``, sorted."""
        return sorted(
            path
            for parent, names in self._names.items()
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
            if (path := f"{parent}/{name}" if parent else name) not in listed
        )


def _image_folder(root: Path, annotations: Path, split: Split) -> Path:
    if annotations.name == "_annotations.coco.json":
        return annotations.parent
    named = (*split_folders(root / "images", split), *split_folders(root, split), root / "images")
    folders = [path for path in (*named, root) if path.is_dir()]
    first = _first_file_name(annotations)
    # One folder may go by two names.
    fitting = {path.resolve(): path for path in reversed(folders) if first and _is_file(path / first)}
    if len(fitting) > 1:
        candidates = _names(sorted(fitting.values()), root)
        raise ValueError(f"{first}, the first image of {annotations}, is in several folders: {candidates}; keep one")
    if fitting:
        return next(iter(fitting.values()))
    if folders[0] == root:
        raise ValueError(f"{root} has no folder images/{split} with the pictures of {annotations}; put them there")
    # A picture is missing, which the reading of the file reports with all others.
    return folders[0]


def _first_file_name(annotations: Path) -> str | None:
    """The first image that a file of perhaps a gigabyte names, without parsing it."""
    with annotations.open("rb") as file:
        if not file.read(1):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _FILE_NAME.search(content)
            text = found.group(1) if found else b'""'
    try:
        return json.loads(text) or None
    except ValueError:
        return None


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    # No such folder, or one that no file system can have.
    except (OSError, ValueError):
        return


def _file_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as listed:
            return {entry.name for entry in listed if entry.is_file()}
    except (OSError, ValueError):
        return set()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _names(paths: list[Path], root: Path) -> str:
    return ", ".join(path.relative_to(root).as_posix() if path != root else str(root) for path in paths)
