"""Label maps: pictures whose values are classes, one for each picture to segment.

Shape legend: H W picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.data.class_folders import Split
from internimage.data.detection.annotations import Finding
from internimage.data.detection.files import SPLITS, check_folder, split_folders
from internimage.data.images import ImageReadError, images_below, read_as, read_image

LabelValues = NDArray[np.uint8] | NDArray[np.uint16]

LABEL_FOLDERS = ("labels", "masks", "annotations", "gtfine")
"""What a folder of label maps may be called, beside ``images``, with capitals or not."""

# Cityscapes has names of its own for its pictures and for the one of its several maps that holds class numbers, to
# which COCO-Stuff's are alike.
_PICTURE_FOLDERS = ("images", "leftimg8bit")
_PICTURE_END, _MAP_END = "_leftImg8bit", "_labelTrainIds"
_MORE_OF_MAP_END = "_gtFine"
# As ADE20K calls its splits, beyond the names that every task knows.
_MORE_SPLITS = {"training": "train", "testing": "test"}
_MOST_COLOURS = 1000
_COLOURS_FIX = "`internimage data labels FOLDER OUTPUT --palette FILE` makes these of its colours"
_FIX = "write the number of each pixel's class (0, 1, 2, ...) into a PNG file of one channel"


class _UnfitError(ValueError):
    """A picture that can be read, but holds no class numbers; ``kind`` as of a `Finding`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Pairs:
    """The pictures of one folder and the label maps of another, matched by name.

    Args:
        both: (picture, label map), sorted by the picture's path.
        without_map: the pictures that have no label map.
        without_picture: the label maps that have no picture.
        alike: files of one folder whose names differ in their suffix only, so that it is not clear what belongs to
            them; none of these is in the other lists.
    """

    both: tuple[tuple[Path, Path], ...]
    without_map: tuple[Path, ...]
    without_picture: tuple[Path, ...]
    alike: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Contents:
    """What pairs of pictures and label maps hold.

    Args:
        num_pixels: (65536,) of int64, the number of pixels of each value.
        sizes: how many pairs there are of each (height, width).
        findings: files that can't be used, all of them to be mended by hand.
    """

    num_pixels: NDArray[np.int64]
    sizes: Counter[tuple[int, int]]
    findings: tuple[Finding, ...]


def read_label_map(path: str | Path) -> LabelValues:
    """The class of each pixel, (H, W) of uint8 or uint16, as the file stores it.

    Of a picture with a palette these are the indices, not the colours; of one with one bit per pixel they are 0 and 1.
    The EXIF orientation is applied, as `read_image` applies it to pictures.

    Raises:
        ImageReadError: nothing there, not an image, damaged, or without class numbers: in colour, with transparency,
            fractions, values beyond 65535, or a JPEG file, which blurs them.
    """
    return np.array(read_as(path, _class_numbers))


def pair_label_maps(images: Path, labels: Path) -> Pairs:
    """Pictures and label maps whose paths below their folders differ in the suffix only; none is opened.

    Cityscapes' ``x_leftImg8bit.png`` and ``x_gtFine_labelTrainIds.png`` are a pair, too, and so are COCO-Stuff's
    ``x.jpg`` and ``x_labelTrainIds.png``; where there are such label maps, others beside them do not count.

    Raises:
        ValueError: a folder can't be listed.
    """
    pictures, maps = _by_name(images), _by_name(labels)
    alike = [path for held in (pictures, maps) for paths in held.values() if len(paths) > 1 for path in paths]
    single = {name: paths[0] for name, paths in pictures.items() if len(paths) == 1}
    single_maps = {name: paths[0] for name, paths in maps.items() if len(paths) == 1}
    return Pairs(
        tuple((path, single_maps[name]) for name, path in single.items() if name in single_maps),
        tuple(path for name, path in single.items() if name not in maps),
        tuple(path for name, path in single_maps.items() if name not in pictures),
        tuple(alike),
    )


def label_map_folders(root: Path | str, left_out: list[Path] | None = None) -> dict[Split, tuple[Path, Path]]:
    """(pictures, label maps) of each split that ``root`` holds; all is for training where it has no splits.

    Known are ``images/train`` with ``labels/train``, ``train/images`` with ``train/labels``, and ``images`` with
    ``labels``; for `LABEL_FOLDERS` and the names of splits that stand for these, too; and Cityscapes' ``leftImg8bit``
    with ``gtFine``.

    Args:
        root: the folder.
        left_out: takes the folders of pictures that have no label maps beside them.

    Raises:
        ValueError: no such folder, or several that fit.
    """
    root = check_folder(root)
    found: dict[Split, tuple[Path, Path]] = {}
    without: list[Path] = []
    for split in SPLITS:
        fitting: list[tuple[Path, Path]] = []
        for images, candidates in _candidates(root, split):
            maps = [folder for folder in candidates if images_below(folder)]
            fitting += [(images, folder) for folder in maps]
            if left_out is not None and not maps and images_below(images):
                without.append(images)
        if len(fitting) > 1:
            listed = ", ".join(f"{a.relative_to(root)} with {b.relative_to(root)}" for a, b in fitting)
            raise ValueError(f"{root} holds several folders of {split} pictures or label maps: {listed}; keep one pair")
        if fitting:
            found[split] = fitting[0]
    if not found:
        maps = [folder for folder in _named(root, LABEL_FOLDERS) if images_below(folder)]
        if len(maps) > 1:
            listed = ", ".join(folder.name for folder in maps)
            raise ValueError(f"{root} holds several folders of label maps: {listed}; keep one of them")
        images = _named(root, _PICTURE_FOLDERS)
        return {"train": (images[0], maps[0])} if images and maps else {}
    if left_out is not None:
        left_out += without
    return found


def read_pairs(
    pairs: Sequence[tuple[Path, Path]], examine: Callable[[NDArray[np.int64]], tuple[str, str] | None] | None = None
) -> Contents:
    """Read every picture and every label map, whole.

    Args:
        pairs: pictures and label maps.
        examine: says of a label map, by the number of its pixels of each value from 0, what is wrong with it: kind and
            text of a `Finding`, or None.
    """
    num_pixels = np.zeros(2**16, np.int64)
    sizes = Counter[tuple[int, int]]()
    findings: list[Finding] = []
    for picture, label_map in pairs:
        size = shape = None
        try:
            image = read_image(picture)
            size = (image.height, image.width)
        except ImageReadError as error:
            findings.append(Finding("unreadable image", "", str(error), is_fixed=False))
        try:
            values = read_label_map(label_map)
            shape = values.shape
        except ImageReadError as error:
            kind = error.__cause__.kind if isinstance(error.__cause__, _UnfitError) else "unreadable label map"
            findings.append(Finding(kind, "", str(error), is_fixed=False))
            continue
        if size is not None and size != shape:
            text = f"it is {shape[1]} x {shape[0]} pixels, but {picture} is {size[1]} x {size[0]}"
            fix = "give both the same size (label maps by nearest neighbour), upright"
            findings.append(Finding("label map of another size", str(label_map), f"{text}; {fix}", is_fixed=False))
        elif size is not None:
            sizes[size] += 1
            counts = np.bincount(values.ravel())
            num_pixels[: len(counts)] += counts
            if examine is not None and (fault := examine(counts)) is not None:
                findings.append(Finding(fault[0], str(label_map), fault[1], is_fixed=False))
    return Contents(num_pixels, sizes, tuple(findings))


def _class_numbers(image: Image.Image) -> Image.Image:
    if image.format == "JPEG":
        raise _UnfitError("label map as JPEG", f"it is a JPEG file, which blurs values along edges; {_FIX}")
    if image.mode in ("L", "P"):
        return image
    if image.mode == "1":
        return Image.fromarray(np.asarray(image, np.uint8))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 2**16:
            reason = f"its values reach from {values.min()} to {values.max()}, not 0 to 65535"
            raise _UnfitError("label map with other values", f"{reason}; {_FIX}")
        return Image.fromarray(values.astype(np.uint16))
    if image.mode == "F":
        raise _UnfitError("label map of fractions", f"its values are floating-point numbers; {_FIX}")
    colours = cast(list[tuple[int, tuple[int, ...]]] | None, image.convert("RGB").getcolors(_MOST_COLOURS))
    if colours and all(len(set(channels)) == 1 for _, channels in colours):
        raise _UnfitError("label map of several channels", f"it has {len(image.getbands())} channels, not 1; {_FIX}")
    number = f"{len(colours)} colours" if colours else f"more than {_MOST_COLOURS:,} colours"
    reason = f"it is in colour ({image.mode}, {number}), not class numbers; {_COLOURS_FIX}"
    raise _UnfitError("label map in colour", reason)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    paths = images_below(folder)
    named: dict[str, list[Path]] = {}
    for path in [path for path in paths if path.stem.endswith(_MAP_END)] or paths:
        stem = path.stem.removesuffix(_PICTURE_END)
        if stem.endswith(_MAP_END):
            stem = stem.removesuffix(_MAP_END).removesuffix(_MORE_OF_MAP_END)
        named.setdefault((path.relative_to(folder).parent / stem).as_posix(), []).append(path)
    return named


def _candidates(root: Path, split: Split) -> Iterator[tuple[Path, list[Path]]]:
    """Folders that may hold a split's pictures, each with those that may hold its label maps."""
    for home in _split_folders(root, split):
        for images in _named(home, _PICTURE_FOLDERS):
            yield images, _named(home, LABEL_FOLDERS)
    maps = [folder for home in _named(root, LABEL_FOLDERS) for folder in _split_folders(home, split)]
    for home in _named(root, _PICTURE_FOLDERS):
        for images in _split_folders(home, split):
            yield images, maps


def _split_folders(folder: Path, split: Split) -> list[Path]:
    more = [path for name, meant in _MORE_SPLITS.items() if meant == split for path in _named(folder, (name,))]
    return [*split_folders(folder, split), *more]


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.lower() in names and path.is_dir())
