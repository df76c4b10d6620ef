"""From a picture to a detector's input: fitted into a frame, normalised, padded, with OpenCV's rounding.

The released detectors were trained and measured on pictures that OpenCV resized in 11-bit fixed point; Pillow's and
PyTorch's resizing differ from it in every eighth value.

Shape legend: H W picture, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from internimage.structures import Framing, Placement, View

_BITS = 11
_DIVISOR = 32


def prepare(image: Image.Image, framing: Framing | None = None) -> tuple[Tensor, Placement]:
    """A picture of mode RGB as a detector takes it, (3, H, W) in float32, and where it came from.

    Args:
        framing: how large, and normalised how; by default as the released detectors.

    >>> tensor, placement = prepare(Image.new("RGB", (64, 48)))
    >>> tuple(tensor.shape), placement.scale_xy
    ((3, 800, 1067), (16.671875, 16.666666666666668))
    """
    if image.mode != "RGB":
        raise ValueError(f"a detector takes RGB, got an image of mode {image.mode}; read_image converts it")
    framing = framing or Framing()
    original = (image.height, image.width)
    size = fitted_size(original, framing.frame)
    pixels_HWC = torch.from_numpy(resize_bilinear(np.asarray(image), *size))
    return normalize(pixels_HWC.permute(2, 0, 1), framing), Placement.fit(original, size)


class Seen(NamedTuple):
    """A picture in one view: the input (3, H, W) in float32, where it came from, and whether it is mirrored."""

    image: Tensor
    placement: Placement
    mirrored: bool


def look_at(image: Image.Image, view: View) -> Seen:
    """A picture of mode RGB as one view shows it to a detector; see `prepare`."""
    return Seen(*prepare(ImageOps.mirror(image) if view.mirrored else image, view.framing), view.mirrored)


@dataclass(frozen=True, eq=False)
class Look:
    """One view of each picture of a batch.

    Args:
        images: (N, 3, H, W) of float32, padded with zeros at the right and at the bottom to multiples of 32.
        placements: of each image.
        mirrored: whether the pictures are seen from left to right.
    """

    images: Tensor
    placements: list[Placement]
    mirrored: bool = False

    @classmethod
    def of(cls, pictures: Sequence[Seen]) -> Look:
        """Pictures in the same view, at least one."""
        return cls(
            pad_batch([each.image for each in pictures]), [each.placement for each in pictures], pictures[0].mirrored
        )


def normalize(pixels_CHW: Tensor, framing: Framing) -> Tensor:
    """Pixels from 0 to 255 as the network takes them, float32."""
    mean_C11, std_C11 = (255 * torch.tensor(each).view(3, 1, 1) for each in (framing.mean, framing.std))
    return (pixels_CHW.float() - mean_C11) / std_C11


def pad_batch(images: Sequence[Tensor]) -> Tensor:
    """Inputs (C, H, W) of any sizes as one batch, zeros at the right and at the bottom, sides multiples of 32."""
    height, width = (-(-max(image.shape[axis] for image in images) // _DIVISOR) * _DIVISOR for axis in (1, 2))
    batch_NCHW = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for image_CHW, row_CHW in zip(images, batch_NCHW, strict=True):
        row_CHW[:, : image_CHW.shape[1], : image_CHW.shape[2]] = image_CHW
    return batch_NCHW


def fitted_size(size: tuple[int, int], frame: tuple[int, int] = Framing().frame) -> tuple[int, int]:
    """(height, width) as large as the frame's shorter and longer side allow, at the picture's own ratio.

    Source: ``rescale_size`` of mmcv 1.7, image/geometric.py.

    >>> fitted_size((480, 640)), fitted_size((300, 1200))
    ((800, 1067), (333, 1333))
    """
    scale = min(max(frame) / max(size), min(frame) / min(size))
    height, width = size
    # A sliver of a picture keeps one pixel.
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resize_bilinear(pixels_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """8-bit pixels at another size as OpenCV's ``INTER_LINEAR`` gives them, bit for bit; no antialiasing.

    Source: ``resizeGeneric_`` with ``VResizeLinear`` for 8 bits, OpenCV 5.0.0; verified on its outputs.
    """
    left, right, left_weight, right_weight = _taps(pixels_HWC.shape[1], width, is_row=True)
    upper, lower, upper_weight, lower_weight = _taps(pixels_HWC.shape[0], height, is_row=False)
    wide = pixels_HWC.astype(np.int32)
    wide = wide[:, left] * left_weight[:, None] + wide[:, right] * right_weight[:, None]
    wide >>= 4
    tall = (wide[upper] * upper_weight[:, None, None] >> 16) + (wide[lower] * lower_weight[:, None, None] >> 16)
    return np.clip(tall + 2 >> 2, 0, 255).astype(np.uint8)


def _taps(
    size: int, new_size: int, *, is_row: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]:
    """Of each new pixel, the two old ones around it, and their weights of 11 bits."""
    centers = ((np.arange(new_size) + 0.5) * (size / new_size) - 0.5).astype(np.float32)
    first = np.floor(centers).astype(np.intp)
    second_weight = centers - first
    if is_row:
        # Along a row the pixel at the edge counts whole; along a column it is taken twice, and rounded twice.
        second_weight[(first < 0) | (first >= size - 1)] = 0
    before, after = (np.rint(each * 2**_BITS).astype(np.int32) for each in (1 - second_weight, second_weight))
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), before, after
