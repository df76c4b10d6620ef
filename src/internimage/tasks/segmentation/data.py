"""Pictures with label maps for training and measuring segmenters."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from internimage.data.detection.coco import CocoSet, read_coco
from internimage.data.detection.files import find_coco
from internimage.data.label_maps import label_map_folders, pair_label_maps
from internimage.data.scenes import Scenes
from internimage.data.segmentation.augment import SegmentationAugmentation
from internimage.data.segmentation.dataset import Batch, SegmentationDataset, Source, collate
from internimage.data.segmentation.palettes import find_palette
from internimage.data.segmentation.rules import LabelRules, find_classes, find_colours
from internimage.data.segmentation.sources import CocoMaps, LabelMapPictures, SceneMaps, listed_pairs
from internimage.structures import IGNORED, Colour, LabelMap, Viewing
from internimage.tasks.base_data import BaseData, Split

log = logging.getLogger(__name__)
SCENES = "scenes"
# Enough for a demonstration and for a smoke test; `limit_train_batches` and its like take fewer.
_SIDE = 128
_SCENES: dict[Split, int] = {"train": 1000, "val": 200, "test": 200}


class SegmentationData(BaseData):
    """Pictures with label maps per split, objects with masks in COCO's format, or the scenes of the package.

    ``root`` holds ``images/train`` with label maps of the same names in ``labels/train``, and the same for ``val`` and
    perhaps ``test`` (`label_map_folders` knows other customs); or ``annotations/train.json`` with ``images/train``,
    whose objects become classes after a background; or it is the word ``scenes``. What says how label maps are meant
    (``classes``, ``ignored``, ``reduce_zero``, ``values``) is refused where there are none.

    Args:
        root: the folder, or ``scenes``.
        files: of each split the folders of pictures and of label maps, such as ``{"train": ["pictures", "maps"]}``, or
            one text file with a picture and its label map per line; paths relative to ``root``.
        preprocess: how pictures are shown to the network when they are measured; by default 512 pixels on the shorter
            side (scenes as large as they are).
        frame: shorthand for another ``preprocess.frame``, the shorter and the longer side in pixels.
        classes: names in the order of the label maps' values; how many there are; a file with a name per line; or a
            well-known set, such as ``ade20k``. By default those of ``classes.txt`` in ``root``, or numbers.
        ignored: values of label maps that are no class, left out in training and measuring.
        reduce_zero: the value 0 is no class either, and every other is one more than its class, as in ADE20K.
        values: the class index of each value, where label maps number otherwise, such as ``{7: 0, 8: 1}``; values that
            are not named are ignored.
        augmentation: see `SegmentationAugmentation`; used in training only.
        batch_size: pictures per step and device.
        num_workers: processes that read pictures; 0 reads in the training process.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        root: str,
        files: dict[str, list[str]] | None = None,
        preprocess: Viewing | None = None,
        frame: tuple[int, int] | None = None,
        classes: list[str] | int | str | None = None,
        ignored: list[int] | None = None,
        reduce_zero: bool = False,
        values: dict[int, int] | None = None,
        augmentation: SegmentationAugmentation | None = None,
        batch_size: int = 2,
        num_workers: int = 2,
    ) -> None:
        super().__init__(root, batch_size, num_workers)
        base = preprocess or (Viewing(frame=(_SIDE, _SIDE)) if root == SCENES else Viewing())
        self.preprocess = base if frame is None else replace(base, frame=tuple(frame))
        self.files = files or {}
        self.augmentation = augmentation or SegmentationAugmentation()
        self._classes, self._values = classes, values or {}
        self._ignored, self._reduce_zero = tuple(ignored or (IGNORED,)), reduce_zero
        of_maps = {"classes": classes, "ignored": ignored, "reduce_zero": reduce_zero, "values": values}
        self._of_maps = [name for name, value in of_maps.items() if value]
        self._sets: dict[Split, SegmentationDataset] = {}
        if root == SCENES:
            self._refuse_settings("the scenes have classes of their own", *(["files"] if files else []))
        if wrong := [name for name, paths in self.files.items() if name not in _SCENES or not 1 <= len(paths) <= 2]:
            raise ValueError(
                f"files needs [pictures, label maps] or [list] for train, val and perhaps test; wrong: {wrong}"
            )

    @cached_property
    def labels(self) -> LabelMap:
        """Class names, in the order of the labels."""
        return self.dataset("train").labels

    @cached_property
    def palette(self) -> tuple[Colour, ...]:
        """A colour per class."""
        return self.dataset("train").palette

    def dataset(self, split: Split) -> SegmentationDataset:
        """The pictures of one split; those for training are varied. Without test pictures ``test`` is ``val``."""
        if split not in self._sets:
            vary = self.augmentation if split == "train" else None
            self._sets[split] = SegmentationDataset(self._source(split), self.preprocess, vary)
        return self._sets[split]

    def _source(self, split: Split) -> Source:
        if self.root == SCENES:
            return SceneMaps(Scenes(split, _SCENES[split], size=(_SIDE, _SIDE)))
        found = self._find(split)
        if found is None and split == "test":
            log.warning("%s has no test pictures: the validation pictures stand in for them", self.root)
            found = self._find("val")
        if found is None:
            raise ValueError(
                f"{self.root} holds no {split} pictures with label maps: put them into images/{split} and "
                f"labels/{split}, or name their folders with data.init_args.files"
            )
        return found

    def _find(self, split: Split) -> Source | None:
        if places := self._places.get(split):
            return LabelMapPictures(places, self._rules, self._colours)
        # Objects of COCO's format count where there are no label maps at all.
        pair = None if self._places else find_coco(Path(self.root), split)
        if pair is None:
            return None
        self._refuse_settings(f"{self.root} holds no label maps, and its categories are the classes")
        # Every split counts the classes of the training's.
        labels = None if split == "train" else self._objects.labels
        return CocoMaps(self._objects if split == "train" else _checked(*pair, labels=labels))

    def _refuse_settings(self, reason: str, *more: str) -> None:
        """Raise ``ValueError`` for what is only meant for label maps; silence would look like consent."""
        if given := [*more, *self._of_maps]:
            raise ValueError(f"{reason}: leave {' and '.join(f'data.init_args.{name}' for name in given)} out")

    @cached_property
    def _objects(self) -> CocoSet:
        pair = find_coco(Path(self.root), "train")
        if pair is None:
            raise ValueError(f"{self.root} holds no annotations/train.json; name the files with data.init_args.files")
        return _checked(*pair)

    @cached_property
    def _places(self) -> dict[str, list[Path]]:
        """Of each split the folders of pictures and label maps, or a list of both."""
        if self.files:
            return {split: [Path(self.root) / path for path in paths] for split, paths in self.files.items()}
        return {split: list(pair) for split, pair in label_map_folders(self.root).items()}

    @cached_property
    def _rules(self) -> LabelRules:
        """What the values mean: of all splits what the label maps for training say."""
        maps = _label_maps(self._places.get("train", []))
        settings = {"ignored": self._ignored, "reduce_zero": self._reduce_zero}
        if self._values and self._classes is None:
            raise ValueError("values gives label maps other numbers: name the classes with data.init_args.classes, too")
        return LabelRules(
            find_classes(self.root, self._classes, maps=maps, **settings), **settings, values=self._values
        )

    @cached_property
    def _colours(self) -> tuple[Colour, ...]:
        """Those beside the names of the classes, or as the set of these names has them."""
        return find_colours(self.root, self._classes) or find_palette(self._rules.names)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """A batch moves as a whole."""
        return batch.to(device, non_blocking=True)


def _checked(annotations: Path, images: Path, labels: LabelMap | None = None) -> CocoSet:
    """The file, refused in words if training on it makes no sense."""
    found = read_coco(annotations, images, labels=labels)
    found.check()
    return found


def _label_maps(places: list[Path]) -> list[Path]:
    """Of a list, or of folders of pictures and label maps; none of no place."""
    pairs = listed_pairs(places[0]) if len(places) == 1 else pair_label_maps(*places).both if places else ()
    return [label_map for _, label_map in pairs]
