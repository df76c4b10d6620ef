"""Where pictures with label maps come from: folders and lists of files, objects of COCO's format, and scenes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from internimage.data.detection.coco import CocoSet, Instance, Picture
from internimage.data.detection.dataset import CocoPictures
from internimage.data.detection.rle import joined_mask
from internimage.data.images import read_image
from internimage.data.label_maps import pair_label_maps, read_label_map
from internimage.data.scenes import BACKGROUND, Scenes
from internimage.data.segmentation.dataset import Raw
from internimage.data.segmentation.palettes import find_palette
from internimage.data.segmentation.rules import LabelRules
from internimage.structures import IGNORED, Colour, LabelMap

log = logging.getLogger(__name__)
_BACKGROUND = "background"


class LabelMapPictures:
    """Pictures and label maps in files, each read when it is asked for.

    Args:
        places: the folder of the pictures and that of the label maps, which have the same names but for their
            suffixes; or one text file with a picture and its label map per line, relative to the file's folder.
        rules: what the label maps' values mean.
        palette: a colour per class; by default as `find_palette`.

    Raises:
        ValueError: label maps without a picture, files of one name, no pairs, or a list that can't be read.
    """

    def __init__(
        self, places: Sequence[Path | str], rules: LabelRules, palette: tuple[Colour, ...] | None = None
    ) -> None:
        if len(places) not in (1, 2):
            raise ValueError(f"give the folders of pictures and of label maps, or one list, got {len(places)} paths")
        first, last = Path(places[0]), Path(places[-1])
        self.pairs = listed_pairs(first) if len(places) == 1 else _folder_pairs(first, last)
        self.rules = rules
        self.palette = palette or find_palette(rules.names)
        self._folder = first.parent if len(places) == 1 else first

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        return self.rules.names

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Raw:
        """The picture at ``index``.

        Raises:
            ValueError: a file can't be read, the label map is of another size or has values of no class.
        """
        picture, label_map = self.pairs[index]
        image, values = read_image(picture), read_label_map(label_map)
        if (image.height, image.width) != values.shape:
            sizes = f"{values.shape[1]} x {values.shape[0]} pixels, but {picture} {image.width} x {image.height}"
            raise ValueError(f"{label_map} has {sizes}; give both the same size (label maps by nearest neighbour)")
        return Raw(image, self.rules.classes_of(values, label_map))

    def name(self, index: int) -> str:
        """The picture's path below its folder."""
        picture = self.pairs[index][0]
        return picture.relative_to(self._folder).as_posix() if picture.is_relative_to(self._folder) else str(picture)


class CocoMaps:
    """The pictures of an annotation file with the class of each pixel, drawn from the objects' masks.

    Later objects lie on earlier ones. Crowd regions are ignored where no object is; all else is ``background``, the
    first class.

    Args:
        coco: what the annotation file says.

    Raises:
        ValueError: an object has no mask, or a category is called ``background``.
    """

    def __init__(self, coco: CocoSet) -> None:
        self.coco = coco
        if _BACKGROUND in coco.labels:
            reason = f"its category {_BACKGROUND} has the name of all that is no object"
            raise ValueError(f"{coco.path}: {reason}; give it another name, or leave it out")
        self.labels = LabelMap((_BACKGROUND, *coco.labels))
        self.palette = find_palette(self.labels)
        self._pictures = CocoPictures(coco)
        every = (each for picture in coco.pictures for each in picture.instances)
        if lacking := [each for each in every if each.segmentation is None and not each.is_crowd]:
            first = f"objects without a mask: {len(lacking)} (the first is annotation {lacking[0].id})"
            raise ValueError(f"{coco.path}: {first}; label maps are drawn from masks, so add them")

    def __len__(self) -> int:
        return len(self.coco.pictures)

    def read(self, index: int) -> Raw:
        """The picture at ``index``.

        Raises:
            ValueError: the file can't be read, or is not of the annotated size.
            ImportError: faster-coco-eval is not installed.
        """
        picture, image = self.coco.pictures[index], self._pictures.read(index).image
        labels_HW = np.zeros((image.height, image.width), np.uint8)
        for crowd in picture.instances:
            if crowd.is_crowd:
                labels_HW[_region(picture, crowd)] = IGNORED
        objects = [each for each in picture.instances if not each.is_crowd]
        # What lies side by side in the file and is of one class needs no order.
        for label, alike in groupby(objects, lambda each: each.label):
            labels_HW[joined_mask(picture, list(alike))] = label + 1
        return Raw(image, labels_HW)

    def name(self, index: int) -> str:
        """The picture's file name."""
        return self.coco.pictures[index].path.name


class SceneMaps:
    """Scenes of the shipped images, with the background as the last class.

    Args:
        scenes: the scenes of one split.

    >>> source = SceneMaps(Scenes("val", 10))
    >>> source.labels[10], source.read(0).labels.shape, source.name(0)
    ('background', (128, 128), 'val_00000')
    """

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes
        self.labels = LabelMap((*scenes.labels, "background"))
        self.palette = find_palette(self.labels)

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, index: int) -> Raw:
        """The scene at ``index``."""
        raw = self.scenes.read(index)
        assert raw.masks is not None
        labels_HW = np.full(raw.masks.shape[1:], BACKGROUND, np.uint8)
        for mask_HW, label in zip(raw.masks, raw.labels, strict=True):
            labels_HW[mask_HW] = label
        return Raw(raw.image, labels_HW)

    def name(self, index: int) -> str:
        """As the scene's file is called when it is written."""
        return self.scenes.name(index)


def listed_pairs(file: Path) -> tuple[tuple[Path, Path], ...]:
    """The pictures and label maps that a text file names, two per line, with a tab between them where a name has
    spaces; relative to the file's folder.

    Raises:
        ValueError: the file can't be read, a line is not two names, or a file is not there: which line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the list {file}: {error}") from error
    pairs: list[tuple[Path, Path]] = []
    for number, line in enumerate(lines, 1):
        names = [name.strip() for name in line.split("\t")] if "\t" in line else line.split()
        if not names:
            continue
        if len(names) != 2:
            fix = "write a picture and its label map, with a tab between them if a name has spaces"
            raise ValueError(f"{file}, line {number}: {line!r:.80} is not two names; {fix}")
        picture, label_map = (file.parent / name for name in names)
        for path in (picture, label_map):
            if not path.is_file():
                raise ValueError(f"{file}, line {number}: there is no file {path}")
        pairs.append((picture, label_map))
    if not pairs:
        raise ValueError(f"{file} names no pictures; write a picture and its label map per line")
    return tuple(pairs)


def _folder_pairs(pictures: Path, maps: Path) -> tuple[tuple[Path, Path], ...]:
    found = pair_label_maps(pictures, maps)
    no_picture = f"has no picture of its name in {pictures}; add it, or remove the label map"
    _refuse(found.without_picture, no_picture)
    _refuse(found.alike, "has the name of another file but for its suffix; keep one of them")
    if not found.both:
        raise ValueError(f"{pictures} and {maps} hold no picture and label map of the same name")
    if found.without_map:
        log.warning("%s: %d pictures have no label map and are not used", pictures, len(found.without_map))
    return found.both


def _region(picture: Picture, crowd: Instance) -> NDArray[np.bool_] | tuple[slice, slice]:
    """The pixels of a crowd region: those of its mask, or of its box where it has none."""
    if crowd.segmentation is not None:
        return joined_mask(picture, [crowd])
    x1, y1, x2, y2 = crowd.box
    return slice(int(y1), int(np.ceil(y2))), slice(int(x1), int(np.ceil(x2)))


def _refuse(paths: Sequence[Path], reason: str) -> None:
    if paths:
        more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
        raise ValueError(f"{paths[0]}{more} {reason}; `internimage data check PATH` lists all")
