"""Pictures with boxes and masks for training and measuring detectors."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from internimage.data.detection.annotations import Instance
from internimage.data.detection.augment import DetectionAugmentation
from internimage.data.detection.coco import CocoSet, read_coco
from internimage.data.detection.dataset import Batch, CocoPictures, DetectionDataset, Source, collate
from internimage.data.detection.files import find_coco
from internimage.data.detection.lvis import repeats
from internimage.data.scenes import Scenes
from internimage.structures import Framing, LabelMap
from internimage.tasks.base_data import BaseData, Split
from internimage.tasks.detection.sampling import ClassAware, Repeated
from internimage.tasks.repeatable import Draw

log = logging.getLogger(__name__)
SCENES = "scenes"
# Enough for a demonstration and for a smoke test; `limit_train_batches` and its like take fewer.
_SIDE = 128
_SCENES: dict[Split, int] = {"train": 1000, "val": 200, "test": 200}


class DetectionData(BaseData):
    """Pictures and an annotation file in COCO's format per split, or the scenes that ship with the package.

    ``root`` holds ``annotations/train.json`` with ``images/train/``, or ``annotations/instances_train2017.json`` with
    ``train2017/``, or the like for ``val`` and perhaps ``test``; or it is the word ``scenes``. `internimage data coco`
    converts folders of Pascal VOC, YOLO, CrowdHuman and OpenImages.

    Args:
        root: the folder, or ``scenes``.
        files: annotation file and folder of images of each split, such as ``{"train": ["a.json", "images"]}``, for
            data that lies otherwise; paths relative to ``root``.
        preprocess: frame and normalisation; by default 800 x 1333 pixels with ImageNet's mean and deviation (scenes are
            taken as large as they are).
        frame: shorthand for another ``preprocess.frame``, the shorter and the longer side in pixels.
        masks: read instance masks too; None reads them where every object has one.
        augmentation: see `DetectionAugmentation`; used in training only.
        repeat_threshold: share of the training pictures below which a class is rare, such as 0.001: pictures of rare
            classes are then shown several times an epoch; see `repeats`.
        class_aware: draw a class for every training sample, all alike, and then one of its pictures; those without
            objects are not shown.
        batch_size: pictures per step and device.
        num_workers: processes that read pictures; 0 reads in the training process.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        root: str,
        files: dict[str, list[str]] | None = None,
        preprocess: Framing | None = None,
        frame: tuple[int, int] | None = None,
        masks: bool | None = None,
        augmentation: DetectionAugmentation | None = None,
        repeat_threshold: float | None = None,
        class_aware: bool = False,
        batch_size: int = 2,
        num_workers: int = 2,
    ) -> None:
        super().__init__(root, batch_size, num_workers)
        base = preprocess or (Framing((_SIDE, _SIDE)) if root == SCENES else Framing())
        self.files = files or {}
        self.preprocess = base if frame is None else replace(base, frame=tuple(frame))
        self.augmentation = augmentation or DetectionAugmentation()
        self.repeat_threshold, self.class_aware = repeat_threshold, class_aware
        self._asked_masks = masks
        self._sets: dict[Split, DetectionDataset] = {}
        if class_aware and repeat_threshold is not None:
            raise ValueError("class_aware and repeat_threshold both say how often a picture is shown; take one of them")
        if wrong := [name for name, pair in self.files.items() if name not in _SCENES or len(pair) != 2]:
            raise ValueError(f"files needs [annotations, images] for train, val and perhaps test; wrong: {wrong}")

    @cached_property
    def labels(self) -> LabelMap:
        """Class names, in the order of the labels."""
        return self.dataset("train").labels

    @cached_property
    def masks(self) -> bool:
        """Whether there are instance masks to learn."""
        if self.root == SCENES:
            return self._asked_masks is not False
        if self._asked_masks:
            _check_masks(self._train)
        return not _lacking_masks(self._train) if self._asked_masks is None else self._asked_masks

    def dataset(self, split: Split) -> DetectionDataset:
        """The pictures of one split; those for training are varied. Without test pictures ``test`` is ``val``."""
        if split not in self._sets:
            vary = self.augmentation if split == "train" else None
            self._sets[split] = DetectionDataset(self._source(split), self.preprocess, vary)
        return self._sets[split]

    def image_counts(self) -> list[int]:
        """Of each class the number of training pictures that show it."""
        counts = Counter(label for labels in self._shown() for label in labels)
        return [counts[label] for label in range(len(self.labels))]

    def draw(self) -> Draw | None:
        """As ``repeat_threshold`` or ``class_aware`` has it."""
        if self.repeat_threshold is not None:
            return Repeated(repeats(self._shown(), self.repeat_threshold))
        return ClassAware(self._shown()) if self.class_aware else None

    def _shown(self) -> list[frozenset[int]]:
        """Of each training picture the classes that it shows."""
        if self.root != SCENES:
            return [picture.shown for picture in self._train.pictures]
        source = self.dataset("train").source
        return [frozenset(source.read(index).labels.tolist()) for index in range(len(source))]

    def _source(self, split: Split) -> Source:
        if self.root == SCENES:
            return Scenes(split, _SCENES[split], size=(_SIDE, _SIDE))
        if split == "train":
            return CocoPictures(self._train, with_masks=self.masks)
        found = self._find(split)
        if found is None and split == "test":
            log.warning("%s has no test pictures: the validation pictures stand in for them", self.root)
            found = self._find("val")
        if found is None:
            raise ValueError(f"{self.root} has no {split} split; name its file with data.init_args.files")
        pictures = _checked(*found, labels=self._train.labels)
        if self.masks:
            _check_masks(pictures)
        return CocoPictures(pictures, with_masks=self.masks)

    @cached_property
    def _train(self) -> CocoSet:
        found = self._find("train")
        if found is None:
            raise ValueError(
                f"{self.root} holds no annotations/train.json with images/train in COCO's format; give another folder, "
                "name the files with data.init_args.files, or convert with `internimage data coco FOLDER OUTPUT`"
            )
        return _checked(*found)

    def _find(self, split: Split) -> tuple[Path, Path] | None:
        root = Path(self.root)
        if split in self.files:
            annotations, images = self.files[split]
            return root / annotations, root / images
        return find_coco(root, split)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """A batch moves as a whole."""
        return batch.to(device, non_blocking=True)


def _checked(annotations: Path, images: Path, *, labels: LabelMap | None = None) -> CocoSet:
    """The file, refused in words if training on it makes no sense; what was mended is said once."""
    found = read_coco(annotations, images, labels=labels)
    found.check()
    if mended := found.summary():
        log.info("%s: %s", annotations, mended)
    return found


def _lacking_masks(found: CocoSet) -> list[Instance]:
    """Objects without a mask; crowds need none."""
    every = (each for picture in found.pictures for each in picture.instances)
    return [each for each in every if each.segmentation is None and not each.is_crowd]


def _check_masks(found: CocoSet) -> None:
    if lacking := _lacking_masks(found):
        raise ValueError(
            f"{found.path}: objects without a mask: {len(lacking)} (the first is annotation {lacking[0].id}); "
            "set data.init_args.masks to false for boxes alone"
        )
