"""Annotation files in COCO's format: read, checked, and mended where that is safe."""

from __future__ import annotations

import gc
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from internimage.data.detection.annotations import AnnotationReader, Entry, Finding, Findings, Instance
from internimage.data.detection.files import Listing, find_coco, picture_size
from internimage.data.detection.lvis import Frequency, Verified, file_name, frequencies, verified
from internimage.data.images import ImageReadError, read_image
from internimage.structures import LabelMap

__all__ = [
    "MENDED",
    "NEARER",
    "UNLISTED",
    "CocoSet",
    "Finding",
    "Instance",
    "Picture",
    "deep_check",
    "find_coco",
    "read_coco",
    "read_content",
]

UNLISTED = "image without annotations file entry"
"""The kind of finding that says which pictures lie there and are not listed."""

NEARER = "image in a nearer folder"
"""The kind of finding that says which pictures lie in the folder that their name ends with, without those before."""

MENDED = {
    "annotation of no image": "annotations of no listed image left out",
    "box a hair outside": "boxes clipped by no more than a pixel",
    "box from segmentation": "boxes taken from segmentations",
    "box outside": "boxes clipped to their pictures",
    "box without area": "boxes without area left out",
    "broken polygon left out": "objects with a broken polygon beside good ones",
    NEARER: "images taken from the last folder of their name",
    UNLISTED: "images in the folders that the file does not list",
    "image without size": "image sizes read from the files",
    "iscrowd missing": "annotations without iscrowd taken as no crowds",
    "same object twice": "repeated annotations left out",
}
"""What was mended, by kind of finding, in the words of one line of log."""


@dataclass(frozen=True)
class Picture:
    """One picture and its objects.

    Args:
        id: COCO's id of the image.
        path: of the file.
        size: (height, width) in pixels.
        instances: in the file's order, crowd regions included; there may be none.
        verified: which classes were looked for, in a federated set such as LVIS.
    """

    id: int
    path: Path
    size: tuple[int, int]
    instances: tuple[Instance, ...]
    verified: Verified | None = None

    @cached_property
    def shown(self) -> frozenset[int]:
        """The classes of its objects, without crowds."""
        return frozenset(each.label for each in self.instances if not each.is_crowd)


@dataclass(frozen=True)
class CocoSet:
    """The pictures of one annotation file.

    Args:
        path: of the annotation file.
        labels: the classes.
        category_ids: the file's category id of each class; -1 for a class that only the training set has.
        pictures: in the file's order, without what was refused.
        findings: what is wrong in the file, mended or not.
        unlisted: the images in the folders of the listed ones that the file does not list, sorted.
        frequencies: of each class how often training shows it, where the file says so: "r", "c" or "f".
    """

    path: Path
    labels: LabelMap
    category_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...] = ()
    unlisted: tuple[Path, ...] = ()
    frequencies: tuple[Frequency, ...] = ()

    def check(self) -> None:
        """Raise ``ValueError`` if something must be mended by hand: how many, the first three, and how to see all."""
        refused = [finding for finding in self.findings if not finding.is_fixed]
        if not refused:
            return
        number = "one thing" if len(refused) == 1 else f"{len(refused):,} things"
        shown = "; ".join(map(str, refused[:3]))
        raise ValueError(f"{self.path} has {number} to mend first: {shown}; `internimage data check PATH` lists all")

    def summary(self) -> str:
        """What was mended, for one line of log; empty where nothing was.

        >>> clipped = Finding("box outside", "a.json: annotation 1", "clipped", is_fixed=True)
        >>> CocoSet(Path("a.json"), LabelMap(("cat",)), (1,), (), (clipped, clipped)).summary()
        'boxes clipped to their pictures: 2'
        """
        counts = Counter[str]()
        for finding in self.findings:
            if finding.is_fixed:
                counts[finding.kind] += finding.count
        return ", ".join(f"{MENDED.get(kind, kind)}: {count:,}" for kind, count in counts.items())

    def image_counts(self) -> list[int]:
        """Of each class the number of pictures that show it."""
        counts = Counter(label for picture in self.pictures for label in picture.shown)
        return [counts[label] for label in range(len(self.labels))]


def read_coco(annotations: Path | str, images: Path | str, *, labels: LabelMap | None = None) -> CocoSet:
    """Read an annotation file, and look whether its pictures are there; none of these is opened.

    Small faults are mended: boxes are clipped to their pictures; boxes without area, repeated objects and annotations
    of no listed image are left out; a missing box comes from the segmentation, a missing ``iscrowd`` is 0, a missing
    image size comes from the file. Everything else that is wrong is left out, and `CocoSet.check` refuses to go on.

    Args:
        annotations: the JSON file.
        images: the folder that its file names are relative to.
        labels: the classes of the training set, so that indices agree whatever this file's category ids are; by
            default the file's own, by ascending category id.

    Raises:
        ValueError: no such file or folder, not JSON, not in COCO's format, no classes, or no images.
    """
    path, folder = Path(annotations), Path(images)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} with the images of {path}")
    with _collector_paused():
        return read_content(_load(path), path, folder, labels=labels)


def read_content(
    data: Mapping[str, Any],
    path: Path,
    folder: Path,
    *,
    labels: LabelMap | None = None,
    places: Sequence[str] | None = None,
) -> CocoSet:
    """What `read_coco` makes of a file's content, for annotations converted from another format.

    Args:
        data: lists of ``images``, ``annotations`` and ``categories``.
        path: of the annotations.
        folder: as for `read_coco`.
        labels: as for `read_coco`.
        places: of each annotation, where its own file has it, such as ``a.xml: object 2``; by default the name of
            ``path`` and the annotation's id and image.

    Raises:
        ValueError: no classes.
    """
    findings = Findings(path.name if places is None else "")
    named = _categories(data["categories"], findings)
    if not named:
        raise ValueError(f"{path} has no categories; list at least one, such as {{'id': 1, 'name': 'cat'}}")
    if labels is None:
        labels = LabelMap(tuple(dict.fromkeys(named.values())))
    label_of = _label_indices(named, labels, findings)
    entries, unlisted = _entries(data["images"], folder, findings)
    reader = AnnotationReader(entries, label_of, findings, places)
    instances: dict[int, list[Instance]] = {number: [] for number in entries}
    for index, raw in enumerate(data["annotations"]):
        if (found := reader.read(raw, index)) is not None:
            instances[found[0]].append(found[1])
    pictures = tuple(
        Picture(number, folder / entry.name, entry.size, tuple(instances[number]), entry.verified)
        for number, entry in entries.items()
        if entry.size is not None
    )
    category_of = {label: category_id for category_id, label in reversed(label_of.items())}
    category_ids = tuple(category_of.get(label, -1) for label in range(len(labels)))
    beside = tuple(folder / name for name in unlisted)
    frequency_of = frequencies(data["categories"], label_of, len(labels))
    return CocoSet(path, labels, category_ids, pictures, findings.all(), beside, frequency_of)


def deep_check(found: CocoSet) -> list[Finding]:
    """Read every picture: those that can't be read, and those of another size than the annotation file says.

    Boxes refer to the upright picture, as every viewer shows it, so the size must be that after the EXIF rotation.
    """
    findings = Findings(found.path.name)
    for picture in found.pictures:
        where = f"image {picture.id} ({picture.path.name})"
        try:
            image = read_image(picture.path)
        except ImageReadError as error:
            findings.refuse("unreadable image", where, str(error))
            continue
        size = (image.height, image.width)
        if size != picture.size:
            findings.refuse("image of another size", where, _size_difference(picture, size))
    return list(findings.all())


def _size_difference(picture: Picture, size: tuple[int, int]) -> str:
    (height, width), (said_height, said_width) = size, picture.size
    text = f"the file is {width} x {height} pixels, but the annotations say {said_width} x {said_height}"
    if size == picture.size[::-1]:
        turned = "an EXIF rotation is applied, so that boxes must refer to the upright picture"
        return f"{text}: either these are swapped, or {turned}; correct the sizes, or annotate it upright"
    return f"{text}; boxes would not fit: use the pictures that were annotated"


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Python's garbage collector would look through millions of lists again and again: half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load(path: Path) -> dict[str, Any]:
    try:
        data: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read the annotation file {path}: {error.strerror}") from error
    # Invalid JSON, invalid text, a number of 5,000 digits, or brackets 10,000 deep.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    keys = ("images", "annotations", "categories")
    lists = cast(dict[str, Any], data) if isinstance(data, dict) else {}
    if missing := [key for key in keys if not isinstance(lists.get(key), list)]:
        raise ValueError(f"{path} is not in COCO's format: it has no list of {', no list of '.join(missing)}")
    if not lists["images"]:
        raise ValueError(f"{path} lists no images")
    return lists


def _categories(raw: list[Any], findings: Findings) -> dict[int, str]:
    """Names by category id, in ascending order of the ids; of duplicate ids the first."""
    named: dict[int, str] = {}
    for index, each in enumerate(raw):
        number, name = (each.get("id"), each.get("name")) if isinstance(each, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str) or not name:
            text = f"a category must have a whole number as id and a text as name, got {each!r:.80}"
            findings.refuse("category", f"categories[{index}]", text)
        elif number in named:
            text = f"{named[number]!r} and {name!r} have the same id; give each category its own"
            findings.refuse("category id twice", f"category {number}", text)
        else:
            named[number] = name
    for name, count in Counter(named.values()).items():
        if count > 1:
            ids = ", ".join(str(number) for number in sorted(named) if named[number] == name)
            text = f"several categories have the name {name!r}; rename or merge them"
            findings.refuse("category name twice", f"categories {ids}", text)
    return dict(sorted(named.items()))


def _label_indices(named: dict[int, str], labels: LabelMap, findings: Findings) -> dict[int, int]:
    """Class index of each category id, -1 for a category that ``labels`` does not know."""
    indices = {name: index for index, name in enumerate(labels)}
    for number, name in named.items():
        if name not in indices:
            known = ", ".join(labels.names[:10]) + (", ..." if len(labels) > 10 else "")
            text = f"the training set has no class {name!r}; its classes are {known}"
            findings.refuse("unknown category", f"category {number}", text)
    return {number: indices.get(name, -1) for number, name in named.items()}


def _entries(raw: list[Any], folder: Path, findings: Findings) -> tuple[dict[int, Entry], list[str]]:
    """The file's pictures by id, in its order; and the names of those beside them that it does not list."""
    entries: dict[int, Entry] = {}
    held = Listing(folder)
    owners: dict[str, int] = {}
    for index, each in enumerate(raw):
        number, name = (each.get("id"), file_name(each)) if isinstance(each, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str) or not name or "\0" in name:
            text = f"an image must have a whole number as id and a text as file_name, got {each!r:.80}"
            findings.refuse("image", f"images[{index}]", text)
            continue
        where = f"image {number} ({name})"
        if number in entries:
            other = "it is listed twice" if entries[number].name == name else f"{entries[number].name} has the same id"
            findings.refuse("image id twice", where, f"{other}; list each image once, with an id of its own")
            continue
        size = None
        plain = posixpath.normpath(name)
        if (nearer := posixpath.join(*plain.split("/")[-2:])) != plain and not held.has(plain) and held.has(nearer):
            findings.fold(NEARER, where, f"there is no such file, but {folder / nearer}; taken instead")
            name = plain = nearer
        if (owner := owners.setdefault(plain, number)) != number:
            text = f"image {owner} is the same file; list it once, with all its annotations"
            findings.refuse("image file twice", where, text)
        elif not held.has(plain):
            text = f"there is no file {folder / name}; correct file_name, the folder of the images, or remove the entry"
            findings.refuse("missing image", where, text)
        else:
            size = _size(each, folder / name, where, findings)
        entries[number] = Entry(name, size, verified(each, where, findings))
    if unlisted := held.others(owners):
        text = "the file does not list this image; it is not used"
        findings.fold(UNLISTED, unlisted[0], text, len(unlisted))
    return entries, unlisted


def _size(raw: dict[str, Any], path: Path, where: str, findings: Findings) -> tuple[int, int] | None:
    height, width = raw.get("height"), raw.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    try:
        height, width = picture_size(path)
    except ImageReadError as error:
        findings.refuse("unreadable image", where, str(error))
        return None
    text = f"its width and height are not whole numbers above 0; read from the file: {width} x {height}"
    findings.fix("image without size", where, text)
    return height, width
