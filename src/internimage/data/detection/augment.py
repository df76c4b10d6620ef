"""How training pictures of a detector are varied, through torchvision; only training imports this module.

All random numbers come from ``torch``. Pictures are resized without antialiasing, as prediction resizes them, though
one in six values is rounded the other way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from internimage.data.detection.copy_paste import paste
from internimage.data.detection.dataset import Raw, keep
from internimage.data.detection.images import fitted_size
from internimage.data.detection.masks import mask_boxes, resize_masks
from internimage.structures import Framing

# Of the released recipe, for a frame whose shorter side is 800.
_SHORTER = 800
_SIDES_BEFORE_CROP = (400, 500, 600)
_SIDES_OF_CROP = (384, 600)
# Less of an object is no example of it.
_SMALLEST_SIDE = 1.0


@dataclass(frozen=True)
class DetectionAugmentation:
    """How training pictures are varied; the defaults are the released recipe for 12 epochs.

    Boxes and masks follow the picture. A crop cuts a box at its border, to what is left of the mask where there are
    masks; an object of which less than one pixel is left is dropped, and a picture without objects still trains.

    Source: ``detection/configs/coco`` of the official code; large-scale jitter and copy-paste: arXiv:2012.07177.

    Args:
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip, for pictures without an up and down.
        scales: lengths of the shorter side in pixels, of which each picture gets one; by default the frame's.
        scale_range: smallest and largest length of the shorter side, of which each picture gets any; in place of
            ``scales``.
        crop: of every second picture a random window is taken, 384 to 600 pixels a side where the picture's shorter
            side is 400, 500 or 600, and then resized as the others; for a frame whose shorter side is not 800, in
            proportion.
        jitter: smallest and largest scale of large-scale jitter, such as ``(0.1, 2.0)``: the picture is fitted into a
            square of ``jitter_size`` times a random scale, cut at random to ``jitter_size`` or padded with the mean
            colour; or None.
        jitter_size: height and width in pixels of every input, where there is ``jitter``.
        color_jitter: strength of random brightness, contrast and saturation, 0 or more.
        copy_paste: probability that objects of another picture are pasted; needs masks.

    >>> DetectionAugmentation.released_3x().scales
    (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """

    hflip: float = 0.5
    vflip: float = 0.0
    scales: tuple[int, ...] = ()
    scale_range: tuple[int, int] | None = None
    crop: bool = False
    jitter: tuple[float, float] | None = None
    jitter_size: int = 1024
    color_jitter: float = 0.0
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        object.__setattr__(self, "jitter", None if self.jitter is None else tuple(self.jitter))
        for name in ("hflip", "vflip", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], got {getattr(self, name)}")
        if self.color_jitter < 0:
            raise ValueError(f"color_jitter must be 0 or more, got {self.color_jitter}")
        if any(side < 1 for side in self.scales):
            raise ValueError(f"scales must be lengths in pixels, 1 or more; got {self.scales}")
        if self.scale_range is not None:
            object.__setattr__(self, "scale_range", tuple(self.scale_range))
            if self.scales or len(self.scale_range) != 2 or not 1 <= self.scale_range[0] <= self.scale_range[1]:
                raise ValueError(
                    f"scale_range must be two rising lengths in pixels, without scales; got {self.scale_range}"
                )
        if self.jitter_size < 1:
            raise ValueError(f"jitter_size must be a length in pixels, 1 or more; got {self.jitter_size}")
        if self.jitter is not None:
            if len(self.jitter) != 2 or not 0 < self.jitter[0] <= self.jitter[1]:
                raise ValueError(f"jitter must be two rising positive scales, such as 0.1, 2.0; got {self.jitter}")
            if self.scales or self.scale_range or self.crop:
                raise ValueError("jitter decides the size of every picture; leave out scales and crop")

    @classmethod
    def released_3x(cls) -> DetectionAugmentation:
        """The released recipe for 36 epochs: eleven scales, and a crop before in every second picture."""
        return cls(scales=tuple(range(480, 801, 32)), crop=True)

    def __call__(self, raw: Raw, framing: Framing, another: Callable[[], Raw]) -> Raw:
        """A training input of the picture, not yet normalised.

        Args:
            raw: the picture and its objects.
            framing: how large inputs are, and the colour of padding.
            another: reads another picture of the set, drawn at random.

        Raises:
            ValueError: a scale is larger than the frame's longer side, or copy-paste meets a picture without masks.
        """
        varied = self._vary(raw, framing)
        if torch.rand(()) < self.copy_paste:
            varied = paste(varied, self._vary(another(), framing))
        return varied

    def _vary(self, raw: Raw, framing: Framing) -> Raw:
        picture = _open(raw)
        if self.color_jitter:
            picture = v2.ColorJitter(*[self.color_jitter] * 3)(picture)
        picture = v2.RandomHorizontalFlip(self.hflip)(picture)
        picture = v2.RandomVerticalFlip(self.vflip)(picture)
        if self.jitter is not None:
            return _close(_jitter(picture, self.jitter, self.jitter_size, framing))
        if self.crop and torch.rand(()) < 0.5:
            picture = _crop(picture, framing)
        longest, sides = framing.frame[1], self.scale_range or self.scales
        if sides and max(sides) > longest:
            raise ValueError(f"scales must not exceed the frame's longer side, {longest}; got {max(sides)}")
        shorter = _integer(*self.scale_range) if self.scale_range else _choose(self.scales or framing.frame[:1])
        return _close(_resize(picture, fitted_size(_size(picture), (shorter, longest))))


class _Picture(NamedTuple):
    """A picture of torchvision's tensors; the labels are a plain one, which its transforms leave alone."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None


def _open(raw: Raw) -> _Picture:
    size = (raw.image.height, raw.image.width)
    boxes = tv_tensors.BoundingBoxes(torch.tensor(raw.boxes), format="XYXY", canvas_size=size)  # pyright: ignore[reportCallIssue]
    masks = None if raw.masks is None else tv_tensors.Mask(torch.tensor(raw.masks))
    return _Picture(functional.to_image(raw.image), boxes, torch.tensor(raw.labels), masks)


def _close(picture: _Picture) -> Raw:
    """The picture with the objects of which something is left."""
    boxes, masks = picture.boxes, picture.masks
    kept = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST_SIDE).all(1)
    if masks is not None:
        kept &= masks.flatten(1).any(1)
    image = Image.fromarray(picture.image.permute(1, 2, 0).contiguous().numpy())
    raw = Raw(image, boxes.numpy(), picture.labels.numpy(), None if masks is None else masks.numpy())
    return keep(raw, kept.numpy())


def _crop(picture: _Picture, framing: Framing) -> _Picture:
    """A random window, as every second picture of the released recipe is cut."""
    share = framing.frame[0] / _SHORTER
    shorter = max(round(_choose(_SIDES_BEFORE_CROP) * share), 1)
    resized = fitted_size(_size(picture), (shorter, max(shorter, framing.frame[1])))
    low, high = (max(round(side * share), 1) for side in _SIDES_OF_CROP)
    return _cut(picture, resized, [_integer(min(low, side), min(high, side)) for side in resized])


def _jitter(picture: _Picture, scales: tuple[float, float], side: int, framing: Framing) -> _Picture:
    """Large-scale jitter: fitted into a square of a random size, then cut or padded to that of the input."""
    square = max(round(side * float(torch.empty(()).uniform_(*scales))), 1)
    resized = fitted_size(_size(picture), (square, square))
    height, width = (min(each, side) for each in resized)
    picture = _resize(_cut(picture, resized, [height, width]), (height, width))
    color, padding = [float(round(255 * value)) for value in framing.mean], [0, 0, side - width, side - height]
    image, boxes = functional.pad(picture.image, padding, fill=color), functional.pad(picture.boxes, padding)
    masks = None if picture.masks is None else functional.pad(picture.masks, padding)
    return _Picture(image, boxes, picture.labels, masks)


def _cut(picture: _Picture, resized: tuple[int, int], window: list[int]) -> _Picture:
    """Of a picture, a random window of such a height and width as it would have were the picture ``resized`` before.

    To cut first spares a second resizing, in which masks would lose their edges.
    """
    size = _size(picture)
    height, width = (max(round(part * old / new), 1) for part, old, new in zip(window, size, resized, strict=True))
    top, left = _integer(0, size[0] - height), _integer(0, size[1] - width)
    corner = (top, left, height, width)
    image, boxes = functional.crop(picture.image, *corner), functional.crop(picture.boxes, *corner)
    if picture.masks is None:
        return _Picture(image, boxes, picture.labels, None)
    masks = functional.crop(picture.masks, *corner)
    is_cut = ((boxes + torch.tensor([left, top, left, top]) - picture.boxes).abs() > 1e-3).any(1)
    boxes[is_cut] = torch.from_numpy(mask_boxes(masks[is_cut].numpy()))
    return _Picture(image, boxes, picture.labels, masks)


def _resize(picture: _Picture, size: tuple[int, int]) -> _Picture:
    image = functional.resize(picture.image, list(size), antialias=False)
    boxes, masks = functional.resize(picture.boxes, list(size)), picture.masks
    # torchvision's masks take four times as long.
    masks = None if masks is None else tv_tensors.Mask(torch.from_numpy(resize_masks(masks.numpy(), size)))
    return _Picture(image, boxes, picture.labels, masks)


def _size(picture: _Picture) -> tuple[int, int]:
    return picture.image.shape[-2], picture.image.shape[-1]


def _choose(values: tuple[int, ...]) -> int:
    return values[_integer(0, len(values) - 1)]


def _integer(low: int, high: int) -> int:
    """One of low, ..., high."""
    return int(torch.randint(low, high + 1, ()))
