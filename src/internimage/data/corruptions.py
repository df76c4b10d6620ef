"""Shifts, turns and damages of pictures, each in five severities, for measuring what they do to a network.

The idea of kinds of corruption times severities is that of Hendrycks and Dietterich (arXiv:1903.12261). The severities
are ours, and so are the results not comparable with theirs: lengths are shares of the picture's side, so that a picture
of 32 pixels is changed as one of 224 is. Only JPEG's blocks have 8 pixels in any picture.

Pictures are (C, H, W), float32 in [0, 1]. All is deterministic: what is random is drawn anew, in the same way, for each
number of a picture, and which way a picture is changed follows from its number as well.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

SEVERITIES = 5

# (picture, strength, its number) -> picture.
Change = Callable[[Tensor, float, int], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One way to change a picture.

    Args:
        name: such as ``gaussian_noise``.
        unit: what the strengths are.
        strengths: one for each severity, from 1 to 5.
        change: does it.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    change: Change

    def __call__(self, picture_CHW: Tensor, severity: int, number: int) -> Tensor:
        """The changed picture, rounded to 256 levels as a file would hold it.

        Args:
            picture_CHW: float32 in [0, 1]; one or three channels.
            severity: from 1 to 5.
            number: of the picture, from 0: decides about directions and random numbers.

        Raises:
            ValueError: a severity that there is not.
        """
        if not 1 <= severity <= len(self.strengths):
            raise ValueError(f"severity must be from 1 to {len(self.strengths)}, got {severity}")
        changed_CHW = self.change(picture_CHW, self.strengths[severity - 1], number)
        return changed_CHW.clamp(0, 1).mul(255).round().div(255)


def _translate(picture_CHW: Tensor, share: float, number: int) -> Tensor:
    """By whole pixels to the right, left, down or up; the picture's mirror image comes in at the other side."""
    height, width = picture_CHW.shape[-2:]
    x, y = ((1, 0), (-1, 0), (0, 1), (0, -1))[number % 4]
    dx, dy = x * round(share * width), y * round(share * height)
    padded = _mirrored(picture_CHW)
    return T.crop(padded, height // 2 - dy, width // 2 - dx, height, width)


def _rotate(picture_CHW: Tensor, degrees: float, number: int) -> Tensor:
    turned = T.rotate(
        _mirrored(picture_CHW), degrees if number % 2 == 0 else -degrees, interpolation=InterpolationMode.BILINEAR
    )
    return T.center_crop(turned, list(picture_CHW.shape[-2:]))


def _zoom(picture_CHW: Tensor, factor: float, _: int) -> Tensor:
    """About the middle."""
    height, width = picture_CHW.shape[-2:]
    padded = _mirrored(picture_CHW)
    # A resized picture is smoothed where it shrinks, an affine map would alias.
    size = [math.ceil(side * factor) for side in padded.shape[-2:]]
    return T.center_crop(T.resize(padded, size, InterpolationMode.BILINEAR, antialias=True), [height, width])


def _mirrored(picture_CHW: Tensor) -> Tensor:
    """With half of its height and width added on every side, as mirrors there would show it."""
    height, width = picture_CHW.shape[-2:]
    return T.pad(picture_CHW, [width // 2, height // 2], padding_mode="symmetric")


def _gaussian_noise(picture_CHW: Tensor, deviation: float, number: int) -> Tensor:
    return picture_CHW + deviation * torch.randn(picture_CHW.shape, generator=_random("gaussian_noise", number))


def _shot_noise(picture_CHW: Tensor, photons: float, number: int) -> Tensor:
    return torch.poisson(picture_CHW.clamp(0, 1) * photons, generator=_random("shot_noise", number)) / photons


def _impulse_noise(picture_CHW: Tensor, share: float, number: int) -> Tensor:
    """Values become 0 or 1, half of them each."""
    draw = torch.rand(picture_CHW.shape, generator=_random("impulse_noise", number))
    return torch.where(draw < share, (draw < share / 2).to(picture_CHW), picture_CHW)


def _gaussian_blur(picture_CHW: Tensor, share: float, _: int) -> Tensor:
    sigma = share * _side(picture_CHW)
    return T.gaussian_blur(picture_CHW, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma, sigma])


def _defocus_blur(picture_CHW: Tensor, share: float, _: int) -> Tensor:
    """A point becomes a disc."""
    radius = share * _side(picture_CHW)
    x_WW, y_WW = _grid(math.ceil(radius))
    return _blurred(picture_CHW, (radius + 0.5 - torch.hypot(x_WW, y_WW)).clamp(0, 1))


def _motion_blur(picture_CHW: Tensor, share: float, number: int) -> Tensor:
    """A point becomes a straight line, of any direction."""
    half = share * _side(picture_CHW) / 2
    angle = math.pi * float(torch.rand((), generator=_random("motion_blur", number)))
    x_WW, y_WW = _grid(math.ceil(half))
    along = x_WW * math.cos(angle) + y_WW * math.sin(angle)
    across = y_WW * math.cos(angle) - x_WW * math.sin(angle)
    return _blurred(picture_CHW, (1 - across.abs()).clamp(min=0) * (half + 0.5 - along.abs()).clamp(0, 1))


def _blurred(picture_CHW: Tensor, kernel_WW: Tensor) -> Tensor:
    reach, channels = len(kernel_WW) // 2, len(picture_CHW)
    weight = (kernel_WW / kernel_WW.sum()).expand(channels, 1, -1, -1)
    return F.conv2d(T.pad(picture_CHW, [reach], padding_mode="symmetric")[None], weight, groups=channels)[0]


def _grid(reach: int) -> tuple[Tensor, Tensor]:
    """x and y from -reach to reach, in pixels, each (W, W)."""
    steps_W = torch.arange(-reach, reach + 1, dtype=torch.float32)
    y_WW, x_WW = torch.meshgrid(steps_W, steps_W, indexing="ij")
    return x_WW, y_WW


def _brightness(picture_CHW: Tensor, strength: float, number: int) -> Tensor:
    """Brighter or darker by the same factor."""
    return T.adjust_brightness(picture_CHW, 1 + strength if number % 2 == 0 else 1 / (1 + strength))


def _contrast(picture_CHW: Tensor, factor: float, _: int) -> Tensor:
    return T.adjust_contrast(picture_CHW, factor)


def _saturation(picture_CHW: Tensor, strength: float, number: int) -> Tensor:
    """Paler, at last grey, or more colourful."""
    return T.adjust_saturation(picture_CHW, 1 - strength if number % 2 == 0 else 1 + 2 * strength)


def _pixelate(picture_CHW: Tensor, share: float, _: int) -> Tensor:
    size = list(picture_CHW.shape[-2:])
    small = T.resize(picture_CHW, [max(1, round(share * side)) for side in size], antialias=True)
    return T.resize(small, size, InterpolationMode.NEAREST)


def _jpeg(picture_CHW: Tensor, quality: float, _: int) -> Tensor:
    levels_HWC = picture_CHW.mul(255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1)
    stored = io.BytesIO()
    Image.fromarray(levels_HWC.numpy()).save(stored, "JPEG", quality=int(quality))
    with Image.open(stored) as image:
        return T.to_dtype(T.pil_to_tensor(image), torch.float32, scale=True)


def _side(picture_CHW: Tensor) -> int:
    return min(picture_CHW.shape[-2:])


def _random(name: str, number: int) -> torch.Generator:
    # Python's own hash differs from process to process.
    return torch.Generator().manual_seed(zlib.crc32(f"{name} {number}".encode()))


CORRUPTIONS: dict[str, Corruption] = {
    name: Corruption(name, unit, strengths, change)
    for name, unit, strengths, change in (
        ("translation", "share of the side", (1 / 16, 1 / 8, 3 / 16, 1 / 4, 5 / 16), _translate),
        ("rotation", "degrees", (9, 18, 27, 36, 45), _rotate),
        ("zoom_in", "factor", (1.15, 1.3, 1.5, 1.75, 2.0), _zoom),
        ("zoom_out", "factor", (0.87, 0.77, 0.67, 0.57, 0.5), _zoom),
        ("gaussian_noise", "deviation, of 1", (0.02, 0.04, 0.07, 0.1, 0.15), _gaussian_noise),
        ("shot_noise", "photons at white", (400, 150, 60, 30, 15), _shot_noise),
        ("impulse_noise", "share of the values", (0.01, 0.02, 0.04, 0.07, 0.12), _impulse_noise),
        ("gaussian_blur", "sigma, share of the side", (0.012, 0.018, 0.026, 0.036, 0.05), _gaussian_blur),
        ("defocus_blur", "radius, share of the side", (0.025, 0.035, 0.047, 0.063, 0.08), _defocus_blur),
        ("motion_blur", "length, share of the side", (0.09, 0.125, 0.16, 0.22, 0.28), _motion_blur),
        ("brightness", "factor - 1, up or down", (0.2, 0.4, 0.7, 1.0, 1.5), _brightness),
        ("contrast", "factor", (0.75, 0.6, 0.48, 0.38, 0.3), _contrast),
        ("saturation", "share less, or twice that more", (0.2, 0.4, 0.6, 0.8, 1.0), _saturation),
        ("pixelate", "share of the side that is left", (0.75, 0.6, 0.5, 0.4, 0.3), _pixelate),
        ("jpeg", "quality", (60, 40, 25, 15, 8), _jpeg),
    )
}
"""All of them, by their names, geometry first."""
