"""Pictures with objects as a detector takes them: where they come from, one sample, and a batch.

Shape legend: N images, R objects of one image, H W picture or input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from internimage.data.detection.coco import CocoSet
from internimage.data.detection.images import Look, Seen, look_at, normalize, pad_batch
from internimage.data.detection.masks import resize_masks
from internimage.data.detection.rle import instance_masks
from internimage.data.images import read_image
from internimage.structures import Framing, LabelMap, Placement, View


class Raw(NamedTuple):
    """A picture and its objects, in the picture's own pixels.

    Args:
        image: of mode RGB.
        boxes: (R, 4) of float32: x1, y1, x2, y2.
        labels: (R,) of int64, class indices from 0.
        masks: (R, H, W) of bool, or None where there are boxes alone.
    """

    image: Image.Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None = None


class Source(Protocol):
    """Where pictures come from: `CocoPictures`, or anything else with these four."""

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Raw:
        """The picture at ``index``, the same each time."""
        ...

    def name(self, index: int) -> str:
        """What it is called."""
        ...


Vary = Callable[[Raw, Framing, Callable[[], Raw]], Raw]
"""Makes a training input of a picture; the third argument reads another picture, drawn at random."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture as a detector takes it.

    Args:
        image: (3, H, W) of float32, normalised.
        boxes: (R, 4) of float32: x1, y1, x2, y2 in pixels of the input, each of positive area; crowds are left out.
        labels: (R,) of int64.
        masks: (R, H, W) of bool, or None.
        placement: where the input came from; a varied picture counts as a picture of its own.
        index: of the picture in its set.
        others: the picture in further views, for evaluation.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    placement: Placement
    index: int
    others: tuple[Seen, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as a detector takes them, all in pixels of the same padded input.

    Args:
        images: (N, 3, H, W) of float32, padded with zeros at the right and at the bottom to multiples of 32.
        boxes: of each image (R, 4).
        labels: of each image (R,).
        masks: of each image (R, H, W), padded like the images; or None.
        placements: of each image.
        indices: of the pictures in their set.
        others: further looks at the pictures, for evaluation; they stay where they are until their turn comes.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    masks: list[Tensor] | None
    placements: list[Placement]
    indices: list[int]
    others: tuple[Look, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def looks(self) -> tuple[Look, ...]:
        """All looks at the pictures, the batch itself first."""
        return (Look(self.images, self.placements), *self.others)

    def to(self, device: torch.device | str, **settings: Any) -> Batch:
        """The batch on another device; ``settings`` as for `torch.Tensor.to`, such as ``non_blocking``."""
        return self._map(lambda tensor: tensor.to(device, **settings))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies while it computes."""
        others = tuple(replace(look, images=look.images.pin_memory()) for look in self.others)
        return replace(self._map(Tensor.pin_memory), others=others)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        boxes, labels = ([change(each) for each in listed] for listed in (self.boxes, self.labels))
        masks = None if self.masks is None else [change(each) for each in self.masks]
        return replace(self, images=change(self.images), boxes=boxes, labels=labels, masks=masks)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of any sizes as one batch, with masks only if all have them."""
    images = pad_batch([sample.image for sample in samples])
    masks = [_padded(sample.masks, images) for sample in samples if sample.masks is not None]
    return Batch(
        images,
        [sample.boxes for sample in samples],
        [sample.labels for sample in samples],
        masks if len(masks) == len(samples) else None,
        [sample.placement for sample in samples],
        [sample.index for sample in samples],
        tuple(Look.of(seen) for seen in zip(*(sample.others for sample in samples), strict=True)),
    )


def _padded(masks_RHW: Tensor, images_NCHW: Tensor) -> Tensor:
    right, below = (images_NCHW.shape[axis] - masks_RHW.shape[axis] for axis in (-1, -2))
    return functional.pad(masks_RHW, (0, right, 0, below))


class CocoPictures:
    """The pictures of an annotation file, each read when it is asked for; crowds are left out.

    Args:
        coco: what the annotation file says.
        with_masks: also draw the objects' masks.
    """

    def __init__(self, coco: CocoSet, *, with_masks: bool = False) -> None:
        self.coco = coco
        self.with_masks = with_masks

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        return self.coco.labels

    def __len__(self) -> int:
        return len(self.coco.pictures)

    def name(self, index: int) -> str:
        """The picture's file name."""
        return self.coco.pictures[index].path.name

    def read(self, index: int) -> Raw:
        """The picture at ``index``.

        Raises:
            ValueError: the file cannot be read, or is not of the annotated size.
        """
        picture = self.coco.pictures[index]
        image = read_image(picture.path)
        if (image.height, image.width) != tuple(picture.size):
            sizes = f"{image.width} x {image.height} pixels, annotated as {picture.size[1]} x {picture.size[0]}"
            fix = "correct the annotations, or the rotation (EXIF) of the file"
            raise ValueError(f"{picture.path} (image {picture.id} of {self.coco.path}) has {sizes}; {fix}")
        instances = [instance for instance in picture.instances if not instance.is_crowd]
        boxes = np.array([instance.box for instance in instances], np.float32).reshape(-1, 4)
        labels = np.array([instance.label for instance in instances], np.int64)
        return Raw(image, boxes, labels, instance_masks(picture, instances) if self.with_masks else None)


class DetectionDataset(Dataset[Sample]):
    """Pictures as a detector takes them.

    Args:
        source: where they come from.
        framing: how large, and normalised how.
        augmentation: how training pictures are varied, a `DetectionAugmentation`; None prepares each picture exactly
            as prediction does.

    Attributes:
        views: how pictures that are not varied are looked at, in the first place as the samples' own input, which is
            not mirrored; the framing alone unless set.
    """

    def __init__(self, source: Source, framing: Framing | None = None, augmentation: Vary | None = None) -> None:
        self.source = source
        self.framing = framing or Framing()
        self.augmentation = augmentation
        self.views: Sequence[View] = (View(self.framing),)

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """What a picture is called."""
        return self.source.name(index)

    def __getitem__(self, index: int) -> Sample:
        raw = clipped(self.source.read(index))
        if self.augmentation is None:
            return _as_predicted(raw, self.views, index)
        return _as_varied(self.augmentation(raw, self.framing, self._another), self.framing, index)

    def _another(self) -> Raw:
        return clipped(self.source.read(int(torch.randint(len(self.source), ()))))


def clipped(raw: Raw) -> Raw:
    """The same picture, its boxes cut at its borders; objects whose boxes have no area left are dropped."""
    boxes = np.asarray(raw.boxes, np.float32).reshape(-1, 4)
    boxes = np.clip(boxes, 0, np.tile(np.array(raw.image.size, np.float32), 2))
    return keep(raw._replace(boxes=boxes), (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))


def keep(raw: Raw, kept: NDArray[np.bool_]) -> Raw:
    """The same picture with these of its objects."""
    masks = raw.masks if raw.masks is None or kept.all() else raw.masks[kept]
    return Raw(raw.image, raw.boxes[kept], raw.labels[kept], masks)


def _as_predicted(raw: Raw, views: Sequence[View], index: int) -> Sample:
    (image_CHW, placement, _), *others = (look_at(raw.image, view) for view in views)
    boxes = torch.from_numpy(raw.boxes * np.tile(np.array(placement.scale_xy, np.float32), 2))
    masks = None if raw.masks is None else torch.from_numpy(resize_masks(raw.masks, placement.size))
    return Sample(image_CHW, boxes, torch.from_numpy(raw.labels), masks, placement, index, tuple(others))


def _as_varied(raw: Raw, framing: Framing, index: int) -> Sample:
    image_CHW = normalize(torch.from_numpy(np.array(raw.image)).permute(2, 0, 1), framing)
    size = (raw.image.height, raw.image.width)
    masks = None if raw.masks is None else torch.from_numpy(raw.masks)
    boxes, labels = torch.from_numpy(raw.boxes), torch.from_numpy(raw.labels)
    return Sample(image_CHW, boxes, labels, masks, Placement(size, size), index)
