"""From a PIL image to a network's input, with Pillow and numpy only.

Equal bit for bit to torchvision's ``Resize``, ``CenterCrop``, ``ToTensor`` and ``Normalize`` on PIL images.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from internimage.structures import Preprocess

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
# Longer strips are cropped while they are resized: whole, one of 1 x 100,000 pixels would become 15 GB.
MAX_RESIZED_ASPECT = 32


def to_tensor(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """The network's input: float32 of shape (C, size, size), cropped by `crop_image` and normalised.

    Raises:
        ValueError: the image is not RGB (for three channels) or L (for one); see `read_image`.

    >>> to_tensor(Image.new("L", (40, 30)), Preprocess(size=28, mean=(0.5,), std=(0.5,))).shape
    torch.Size([1, 28, 28])
    """
    return normalize_image(crop_image(image, preprocess), preprocess)


def normalize_image(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """A picture of any size, of mode RGB or L, as numbers: float32 of shape (C, H, W), normalised."""
    pixels_HWC = torch.from_numpy(np.array(image)).view(image.height, image.width, -1)
    values_CHW = pixels_HWC.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    mean_C11, std_C11 = _statistics(preprocess)
    return values_CHW.sub_(mean_C11).div_(std_C11)


def crop_image(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """What the network sees of ``image``, before normalisation: resized, and the middle ``size x size`` pixels.

    A picture more than 32 times as long as wide, or as wide as long, is cropped while it is resized, which rounds
    some pixels differently.

    Raises:
        ValueError: the image is not RGB (for three channels) or L (for one); see `read_image`.
    """
    check_mode(image, preprocess)
    scaled, box = _resized_and_cropped(image.size, preprocess)
    resampling = RESAMPLING[preprocess.interpolation]
    if max(scaled) > MAX_RESIZED_ASPECT * min(scaled):
        size = preprocess.size
        return image.resize((size, size), resampling, box=crop_box(image.size, preprocess))
    resized = image if image.size == scaled else image.resize(scaled, resampling)
    return resized.crop(box)


def crop_box(size: tuple[int, int], preprocess: Preprocess) -> tuple[float, float, float, float]:
    """The part of a picture of ``size`` (width, height) that `crop_image` keeps: x1, y1, x2, y2 in its own pixels.

    >>> crop_box((451, 300), Preprocess(size=32, crop_ratio=1.0))
    (75.16666666666667, 0.0, 375.83333333333337, 300.0)
    """
    scaled, box = _resized_and_cropped(size, preprocess)
    across, down = size[0] / scaled[0], size[1] / scaled[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _resized_and_cropped(
    size: tuple[int, int], preprocess: Preprocess
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Width and height after resizing, and the box that is cropped from that."""
    short, side = int(preprocess.size / preprocess.crop_ratio), preprocess.size
    width, height = size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    left, top = (round((length - side) / 2) for length in scaled)
    return scaled, (left, top, left + side, top + side)


def denormalize(tensor_CHW: Tensor, preprocess: Preprocess) -> Image.Image:
    """The picture behind a network's input, values clipped to [0, 255]: the inverse of `to_tensor` after its crop.

    Args:
        tensor_CHW: one image of any height and width and any float type, on any device.
        preprocess: whose ``mean`` and ``std`` the image was normalised with.
    """
    if tensor_CHW.ndim != 3 or tensor_CHW.shape[0] != preprocess.in_chans:
        raise ValueError(f"expected one image of shape ({preprocess.in_chans}, H, W), got {tuple(tensor_CHW.shape)}")
    mean_C11, std_C11 = _statistics(preprocess)
    values_CHW = tensor_CHW.detach().to("cpu", torch.float32) * std_C11 + mean_C11
    pixels_HWC = values_CHW.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels_HWC[..., 0].copy() if preprocess.in_chans == 1 else pixels_HWC)


def check_mode(image: Image.Image, preprocess: Preprocess) -> None:
    """Raise ``ValueError`` unless ``image`` is RGB (for three channels) or L (for one)."""
    mode = "RGB" if preprocess.in_chans == 3 else "L"
    if image.mode != mode:
        fix = f"read it with read_image(..., in_chans={preprocess.in_chans})"
        raise ValueError(f"the network takes images of mode {mode}, got mode {image.mode}; {fix}")


def _statistics(preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    mean_C11 = torch.tensor(preprocess.mean, dtype=torch.float32).view(-1, 1, 1)
    return mean_C11, torch.tensor(preprocess.std, dtype=torch.float32).view(-1, 1, 1)
