"""Pascal VOC's annotations: one XML file per picture.

VOC counts pixels from 1 and a box includes its last pixel: (xmin, ymin, xmax, ymax) covers the pixels from xmin - 1 to
xmax - 1 counted from 0, which is the box x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax. (Detectron2 does the
same; mmdetection takes 1 off all four, so that its boxes are a pixel smaller.) An object marked ``difficult`` becomes
a crowd region: no object in training, and not counted in evaluation, as VOC's own rules have it.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

from internimage.data.class_folders import Split
from internimage.data.detection.files import SPLITS, check_folder, picture_size, split_folders
from internimage.data.detection.formats.labelled import Labelled, MisreadError, gather, read_files
from internimage.data.images import IMAGE_SUFFIXES

_Images = dict[str, list[Path]]
# Of several years: the lists of what is trained and measured on.
_JOINED: dict[Split, str] = {"train": "trainval", "val": "test"}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_files(root: Path, faults: list[MisreadError] | None = None) -> dict[Split, list[Path]]:
    """The XML files of each split that ``root`` holds; all are for training where it has no splits.

    A folder of several years, such as VOCdevkit with VOC2007 and VOC2012, is split as detectors are compared on VOC:
    what ``trainval.txt`` lists of every year is for training, what ``test.txt`` lists for validation.

    Args:
        root: the folder.
        faults: takes the files that a list of a split names and that are not there; without it, the first is an error.

    Raises:
        ValueError: ``root`` holds several VOC folders without such lists, or a list names a file that is not there.
    """
    missing: list[MisreadError] = []
    bases = _bases(check_folder(root))
    base, folder = bases[0], bases[0] / "Annotations"
    if len(bases) > 1:
        by_split: dict[Split, list[Path]] = {split: [] for split in SPLITS}
        for split, name in _JOINED.items():
            lists = [_listed(each / f"ImageSets/Main/{name}.txt", each / "Annotations", missing) for each in bases]
            by_split[split] = [path for paths in lists for path in paths]
        if not by_split["train"]:
            names = ", ".join(path.name for path in bases)
            raise ValueError(f"{root} holds several VOC folders: {names}; give one of them, or add their trainval.txt")
    elif folder.is_dir():
        by_split = {split: _listed(base / f"ImageSets/Main/{split}.txt", folder, missing) for split in SPLITS}
    else:
        folder = base
        by_split = {split: _xml_files(*split_folders(base, split)) for split in SPLITS}
    if missing and faults is None:
        raise missing[0]
    if faults is not None:
        faults += missing
    held: dict[Split, list[Path]] = {split: files for split in SPLITS if (files := by_split[split])}
    if not held and (files := _xml_files(folder)):
        return {"train": files}
    return held


def read_voc(root: Path, split: Split, faults: list[MisreadError] | None = None) -> tuple[list[str], list[Labelled]]:
    """The classes of all splits, sorted by name, and the pictures of one.

    Args:
        root: the folder.
        split: one that `voc_files` finds there.
        faults: takes what can't be read, in files of any split; without it, that is an error.

    Raises:
        ValueError: no such split, or files that can't be read: how many, and the first three with the reason.
    """
    files = voc_files(root, faults)
    if split not in files:
        raise ValueError(f"{root} has no split {split}; it has {', '.join(files) or 'no XML files'}")
    trees: dict[Path, ElementTree.Element] = {}
    names = set[str]()

    def parse(path: Path, own: list[MisreadError]) -> None:
        trees[path] = _parse(path)
        numbered = enumerate(trees[path].findall("object"), start=1)
        names.update(gather(numbered, lambda each: _text(each[1], "name", f"{path}: object {each[0]}"), own))

    read_files((path for paths in files.values() for path in paths), parse, faults)
    classes = sorted(names)
    images = _images(files)
    read = partial(_picture, trees=trees, images=images, index={name: at for at, name in enumerate(classes)})
    return classes, read_files((path for path in files[split] if path in trees), read, faults)


def unannotated_pictures(root: Path) -> list[Path]:
    """The pictures beside the annotated ones that have no XML file, sorted."""
    return sorted(
        path
        for folder, by_stem in _images(voc_files(root, [])).items()
        for stem, paths in by_stem.items()
        if not (folder / f"{stem}.xml").is_file()
        for path in paths
    )


def _bases(root: Path) -> list[Path]:
    """``root``, or the folders in it that are laid out as VOC's, such as VOC2012 in VOCdevkit."""
    if (root / "Annotations").is_dir():
        return [root]
    return sorted(path.parent for path in root.glob("*/Annotations") if path.is_dir()) or [root]


def _xml_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob("*.xml"))


def _listed(path: Path, folder: Path, missing: list[MisreadError]) -> list[Path]:
    """The files that a list of picture names stands for; none where there is no list."""
    files: list[Path] = []
    lines = path.read_text("utf-8-sig", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        # A class's own list has a second column.
        if words := line.split():
            file = folder / f"{words[0]}.xml"
            if file.is_file():
                files.append(file)
            else:
                text = f"{path}, line {number}: there is no {file}; add it, or remove the line"
                missing.append(MisreadError("listed file missing", text))
    return files


def _images(files: dict[Split, list[Path]]) -> dict[Path, _Images]:
    """Pictures by their stem, for each folder of XML files."""
    found: dict[Path, _Images] = {}
    for folder in {path.parent for paths in files.values() for path in paths}:
        beside = [folder.parent / name for name in ("JPEGImages", "images", "Images")]
        homes = [home for home in beside if folder.name == "Annotations" and home.is_dir()] or [folder]
        by_stem = found.setdefault(folder, {})
        for path in homes[0].iterdir():
            if path.suffix.lower() in IMAGE_SUFFIXES:
                by_stem.setdefault(path.stem, []).append(path)
    return found


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        """Entities can fill the memory, or read other files."""
        raise ValueError("it has a DOCTYPE, which annotations never need; remove it")


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))
    except (ElementTree.ParseError, LookupError) as error:
        raise MisreadError("broken file", f"{path} is not valid XML: {error}") from error
    except ValueError as error:
        raise MisreadError("broken file", f"{path}: {error}") from error


def _picture(
    path: Path,
    faults: list[MisreadError],
    *,
    trees: dict[Path, ElementTree.Element],
    images: dict[Path, _Images],
    index: dict[str, int],
) -> Labelled:
    tree = trees[path]
    found = images[path.parent].get(path.stem, [])
    if len(found) > 1:
        found = [each for each in found if each.name == (tree.findtext("filename") or "").strip()] or found
    if len(found) != 1:
        held = f"several pictures: {', '.join(each.name for each in sorted(found))}" if found else "no picture"
        text = f"{path} has {held} of its name in the folder of the pictures; there must be one"
        raise MisreadError("picture missing or not clear", text)
    size = _size(tree) or picture_size(found[0])
    objects = gather(enumerate(tree.findall("object"), start=1), partial(_object, path=path, index=index), faults)
    places, fields = zip(*objects, strict=True) if objects else ((), ())
    return Labelled(found[0], size, fields, path, places)


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    try:
        height, width = (int(tree.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(numbered: tuple[int, ElementTree.Element], path: Path, index: dict[str, int]) -> tuple[str, dict[str, Any]]:
    """An object's place in its file, and its annotation."""
    number, node = numbered
    where = f"{path}: object {number}"
    name = _text(node, "name", where)
    xmin, ymin, xmax, ymax = (_number(node, f"bndbox/{key}", f"{where} ({name})") for key in _CORNERS)
    width, height = xmax - (xmin - 1), ymax - (ymin - 1)
    is_difficult = (node.findtext("difficult") or "0").strip() == "1"
    fields = {
        "category_id": index[name],
        "bbox": [xmin - 1, ymin - 1, width, height],
        "area": width * height,
        "iscrowd": int(is_difficult),
    }
    return f": object {number} ({name})", fields


def _text(node: ElementTree.Element, key: str, where: str) -> str:
    text = (node.findtext(key) or "").strip()
    if not text:
        text = f"{where} has no <{key.replace('/', '><')}>; add it, or remove the object"
        raise MisreadError("object without name or box", text)
    return text


def _number(node: ElementTree.Element, key: str, where: str) -> float:
    text = _text(node, key, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        reason = f"<{key.rpartition('/')[2]}> is {text!r:.40}, which is no finite number; correct it"
        raise MisreadError("coordinate is no number", f"{where}: {reason}")
    return value
