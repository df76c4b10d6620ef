"""How training pictures of a segmenter are varied; only training imports this module.

All random numbers come from ``torch``. Pictures are resized without antialiasing, as prediction resizes them, though
one in five values is rounded the other way.

Shape legend: H W picture, crop or window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from internimage.data.detection.images import fitted_size
from internimage.data.segmentation.dataset import Raw
from internimage.structures import IGNORED, Viewing

# As the released recipe: a window in which one class is all is drawn anew so often.
_TRIES = 10
# Of the released recipe, the strongest change of values from 0 to 255, and of the hue as a share of its circle.
_BRIGHTNESS = 32.0
_FACTORS = (0.5, 1.5)
_HUE = 18 / 180
_LEVELS = np.arange(256)


@dataclass(frozen=True)
class SegmentationAugmentation:
    """How training pictures are varied; the defaults are the released recipe for ADE20K.

    Each picture is resized at random, a random window of it is taken, flipped and its colours are changed; what the
    picture leaves of the crop is padded at the right and at the bottom with the mean colour, in the label map with
    ``IGNORED``. Labels follow the picture, each pixel taken from the one that its centre lies in.

    Source: ``segmentation/configs/_base_/datasets`` of the official code, and the transforms of MMSegmentation 0.27.

    Args:
        scale: smallest and largest factor of ``base``; the picture is made as large as the product allows.
        crop: height and width in pixels of every input.
        base: the shorter and the longer side in pixels that ``scale`` multiplies; by default the frame in which
            pictures are shown later, or the picture's own size where there is none.
        most_of_one_class: a window is drawn anew, up to ten times, where one class takes this share of its pixels that
            are not ignored, or more; 1 takes every window.
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip, for pictures without an up and down.
        photometric: change brightness (by up to 32 of 255), contrast and saturation (times 0.5 to 1.5) and hue (by up
            to a tenth of its circle), each in every second picture.

    >>> vary = SegmentationAugmentation(crop=(64, 96))
    >>> raw = vary(Raw(Image.new("RGB", (60, 40)), np.zeros((40, 60), np.uint8)), Viewing(frame=None))
    >>> raw.image.size, raw.labels.shape
    ((96, 64), (64, 96))
    """

    scale: tuple[float, float] = (0.5, 2.0)
    crop: tuple[int, int] = (512, 512)
    base: tuple[int, int] | None = None
    most_of_one_class: float = 0.75
    hflip: float = 0.5
    vflip: float = 0.0
    photometric: bool = True

    def __post_init__(self) -> None:
        for name in ("scale", "crop", "base"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else tuple(given))
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two rising positive factors, such as 0.5, 2.0; got {self.scale}")
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise ValueError(f"crop must be a height and a width in pixels, 1 or more; got {self.crop}")
        if self.base is not None and (len(self.base) != 2 or not 1 <= self.base[0] <= self.base[1]):
            raise ValueError(f"base must be the shorter and then the longer side in pixels; got {self.base}")
        if not 0 < self.most_of_one_class <= 1:
            raise ValueError(f"most_of_one_class must be a share above 0, up to 1; got {self.most_of_one_class}")
        for name in ("hflip", "vflip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], got {getattr(self, name)}")

    def __call__(self, raw: Raw, viewing: Viewing) -> Raw:
        """A training input of the picture, of the crop's size.

        Args:
            raw: the picture and its label map.
            viewing: how pictures are shown later: the frame, and the mean colour for padding.
        """
        pixels_HWC, labels_HW = self._window(raw, self._resized((raw.image.height, raw.image.width), viewing))
        for probability, axis in ((self.hflip, 1), (self.vflip, 0)):
            if torch.rand(()) < probability:
                pixels_HWC, labels_HW = np.flip(pixels_HWC, axis), np.flip(labels_HW, axis)
        image = Image.fromarray(np.ascontiguousarray(pixels_HWC))
        image = distort(image) if self.photometric else image
        return _padded(Raw(image, np.ascontiguousarray(labels_HW)), self.crop, viewing)

    def _resized(self, size: tuple[int, int], viewing: Viewing) -> tuple[int, int]:
        """(height, width) of the whole picture, as it would be before the crop."""
        factor = _uniform(*self.scale)
        shorter, longer = self.base or viewing.frame or (min(size), max(size))
        return fitted_size(size, (max(int(shorter * factor), 1), max(int(longer * factor), 1)))

    def _window(self, raw: Raw, resized: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pixels and labels of a random window of the resized picture; what is outside is never resized."""
        size = raw.labels.shape
        window = (min(self.crop[0], resized[0]), min(self.crop[1], resized[1]))
        height, width = (max(round(part * old / new), 1) for part, old, new in zip(window, size, resized, strict=True))

        def draw() -> tuple[int, int, NDArray[np.uint8]]:
            top, left = _integer(size[0] - height), _integer(size[1] - width)
            return top, left, nearest(raw.labels[top : top + height, left : left + width], window)

        top, left, labels_HW = draw()
        for _ in range(_TRIES):
            if _is_mixed(labels_HW, self.most_of_one_class):
                break
            top, left, labels_HW = draw()
        pixels_HWC = np.array(raw.image.crop((left, top, left + width, top + height)))
        if pixels_HWC.shape[:2] != window:
            pixels_NCHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None]
            resized_NCHW = functional.interpolate(pixels_NCHW, window, mode="bilinear", align_corners=False)
            pixels_HWC = resized_NCHW[0].permute(1, 2, 0).numpy()
        return pixels_HWC, labels_HW


def nearest(labels_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels at another (height, width), each pixel taken from the one that its centre lies in.

    >>> nearest(np.array([[1, 2, 3]], np.uint8), (2, 1)).tolist()
    [[2], [2]]
    """
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp).clip(max=old - 1)
        for old, new in zip(labels_HW.shape, size, strict=True)
    )
    return labels_HW.take(rows, axis=0).take(columns, axis=1)


def distort(image: Image.Image) -> Image.Image:
    """The picture with brightness, contrast, saturation and hue changed at random, each with probability 0.5.

    Contrast comes before or after the colours, at random.
    """
    contrast_first = _heads()
    values = _rounded(_LEVELS)
    if _heads():
        values = _rounded(values + _uniform(-_BRIGHTNESS, _BRIGHTNESS))
    contrast = _uniform(*_FACTORS) if _heads() else 1.0
    if contrast_first:
        values = _rounded(values * contrast)
    image = _map(image, values)
    image = _change_colours(image)
    return image if contrast_first else _map(image, _rounded(_LEVELS * contrast))


def _change_colours(image: Image.Image) -> Image.Image:
    saturation = _uniform(*_FACTORS) if _heads() else 1.0
    turn = round(_uniform(-_HUE, _HUE) * len(_LEVELS)) if _heads() else 0
    if saturation == 1 and turn == 0:
        return image
    tables = ((_LEVELS + turn) % len(_LEVELS), _rounded(_LEVELS * saturation), _LEVELS)
    return image.convert("HSV").point(np.concatenate(tables).astype(int).tolist()).convert("RGB")


def _map(image: Image.Image, values: NDArray[np.floating[Any]]) -> Image.Image:
    """Each of the 256 values of a channel replaced by another."""
    return image if (values == _LEVELS).all() else image.point(3 * values.astype(int).tolist())


def _rounded(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    return np.rint(values).clip(0, 255)


def _padded(raw: Raw, crop: tuple[int, int], viewing: Viewing) -> Raw:
    height, width = raw.labels.shape
    if (height, width) == crop:
        return raw
    red, green, blue = (round(255 * value) for value in viewing.mean)
    image = Image.new("RGB", (crop[1], crop[0]), (red, green, blue))
    image.paste(raw.image)
    labels_HW = np.full(crop, IGNORED, np.uint8)
    labels_HW[:height, :width] = raw.labels
    return Raw(image, labels_HW)


def _is_mixed(labels_HW: NDArray[np.uint8], most: float) -> bool:
    """Whether no class takes the share ``most`` of the pixels that are not ignored, and there are two classes."""
    if most == 1:
        return True
    counts = np.bincount(labels_HW.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum())


def _heads() -> bool:
    return bool(torch.rand(()) < 0.5)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def _integer(most: int) -> int:
    """One of 0, ..., most."""
    return int(torch.randint(most + 1, ()))
