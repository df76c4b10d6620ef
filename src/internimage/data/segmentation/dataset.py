"""Pictures with label maps as a segmenter takes them: where they come from, one sample, and a batch.

Shape legend: H W picture or crop, h w input.
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
from torch.utils.data import Dataset

from internimage.data.detection.images import fitted_size, resize_bilinear
from internimage.structures import Colour, LabelMap, Viewing


class Raw(NamedTuple):
    """A picture and the class of each of its pixels.

    Args:
        image: of mode RGB.
        labels: (H, W) of uint8 at the picture's size: class indices, and `IGNORED` (255) for pixels of no class.
    """

    image: Image.Image
    labels: NDArray[np.uint8]


class Source(Protocol):
    """Where pictures come from: `LabelMapPictures`, `CocoMaps`, `SceneMaps`, or anything else with these five."""

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        ...

    @property
    def palette(self) -> tuple[Colour, ...]:
        """A colour per class."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Raw:
        """The picture at ``index``, the same each time."""
        ...

    def name(self, index: int) -> str:
        """What a person calls the picture at ``index``: the path of its file, or the like."""
        ...


Vary = Callable[[Raw, Viewing], Raw]
"""Makes a training input of a picture, such as a `SegmentationAugmentation`."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture as a segmenter takes it.

    Args:
        image: (3, h, w) of uint8, RGB; it is normalised where the network is.
        labels: (H, W) of uint8, 255 where it is ignored: in training of the image's size, otherwise of the picture's
            own.
        index: of the picture in its set.
    """

    image: Tensor
    labels: Tensor
    index: int


# Not frozen: Lightning's 16-bit precisions refuse batches that are.
@dataclass(eq=False)
class Batch:
    """Samples, each of a size of its own.

    Args:
        images: of each picture (3, h, w) of uint8.
        labels: of each picture (H, W) of uint8.
        indices: of the pictures in their set.
    """

    images: list[Tensor]
    labels: list[Tensor]
    indices: list[int]

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str, **settings: Any) -> Batch:
        """The batch on another device; ``settings`` as for `torch.Tensor.to`, such as ``non_blocking``."""
        return self._map(lambda tensor: tensor.to(device, **settings))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies while it computes."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        images, labels = ([change(each) for each in listed] for listed in (self.images, self.labels))
        return replace(self, images=images, labels=labels)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of any sizes as one batch."""
    return Batch(
        [sample.image for sample in samples],
        [sample.labels for sample in samples],
        [sample.index for sample in samples],
    )


class SegmentationDataset(Dataset[Sample]):
    """Pictures as a segmenter takes them.

    Args:
        source: where they come from.
        viewing: how large.
        augmentation: how training pictures are varied, a `SegmentationAugmentation`; None prepares each picture
            exactly as prediction does, and leaves its label map at the picture's size.
    """

    def __init__(self, source: Source, viewing: Viewing | None = None, augmentation: Vary | None = None) -> None:
        self.source = source
        self.viewing = viewing or Viewing()
        self.augmentation = augmentation

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        return self.source.labels

    @property
    def palette(self) -> tuple[Colour, ...]:
        """A colour per class."""
        return self.source.palette

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """What a picture is called."""
        return self.source.name(index)

    def __getitem__(self, index: int) -> Sample:
        raw = self.source.read(index)
        if self.augmentation is None:
            return Sample(view(raw.image, self.viewing), torch.from_numpy(raw.labels), index)
        varied = self.augmentation(raw, self.viewing)
        return Sample(_as_tensor(np.array(varied.image)), torch.from_numpy(varied.labels), index)


def view(image: Image.Image, viewing: Viewing) -> Tensor:
    """A picture of mode RGB as a segmenter sees it, (3, h, w) of uint8: fitted into the frame, then stretched to the
    next multiple; both as OpenCV's bilinear resizing gives them.

    >>> view(Image.new("RGB", (640, 480)), Viewing(frame=(512, 2048), multiple=32)).shape
    torch.Size([3, 512, 704])
    """
    if image.mode != "RGB":
        raise ValueError(f"a segmenter takes RGB, got an image of mode {image.mode}; read_image converts it")
    size = (image.height, image.width)
    fitted = size if viewing.frame is None else fitted_size(size, viewing.frame)
    stretched = tuple(-(-side // viewing.multiple) * viewing.multiple for side in fitted)
    pixels_HWC = np.array(image)
    for height, width in (fitted, stretched):
        if pixels_HWC.shape[:2] != (height, width):
            pixels_HWC = resize_bilinear(pixels_HWC, height, width)
    return _as_tensor(pixels_HWC)


def _as_tensor(pixels_HWC: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()
