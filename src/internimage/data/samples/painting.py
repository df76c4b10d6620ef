"""Items and backgrounds of composed pictures, as colours in [0, 1].

Shape legend: H W a scene's pixels, h w an item's.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from internimage.data.samples.cutouts import Cutouts

_MOST_TURN = 20
_SHADOW = 0.45

_Shares = NDArray[np.floating[Any]]


class Item(NamedTuple):
    """An item as it lies in its scene.

    Args:
        colors: (h, w, 3), in [0, 1].
        alpha: (h, w), its opacity, in [0, 1].
        mask: (h, w), the pixels that are its own: at least half of each.
        label: its class.
        place: the scene's rows and columns that it takes.
    """

    colors: NDArray[np.float32]
    alpha: NDArray[np.float32]
    mask: NDArray[np.bool_]
    label: int
    place: tuple[slice, slice]


def draw_item(source: Cutouts, number: int, side: float, rng: np.random.Generator) -> Item:
    """An item in a random turn and colour, at the upper left; its sample image would be ``side`` pixels large."""
    image, opacity = source.images[number], source.opacity[number]
    x1, y1, x2, y2 = Image.fromarray(opacity).getbbox() or (0, 0, 1, 1)
    # Two pixels around it keep its border soft.
    layers_HWC = np.zeros((y2 - y1 + 4, x2 - x1 + 4, 2), np.uint8)
    layers_HWC[2:-2, 2:-2, 0], layers_HWC[2:-2, 2:-2, 1] = image[y1:y2, x1:x2], opacity[y1:y2, x1:x2]
    turned = _turn(Image.fromarray(layers_HWC), side / image.shape[0], rng)
    x1, y1, x2, y2 = turned.getchannel("A").getbbox() or (0, 0, 1, 1)
    values_HWC = np.asarray(turned)[y1:y2, x1:x2]
    colors = _palette(image[opacity == 255], rng).take(values_HWC[..., 0], axis=0)
    alpha = values_HWC[..., 1] * np.float32(1 / 255)
    return Item(colors, alpha, alpha >= 0.5, int(source.labels[number]), (slice(y2 - y1), slice(x2 - x1)))


def _turn(image: Image.Image, scale: float, rng: np.random.Generator) -> Image.Image:
    """The image at another scale, turned by up to 20 degrees, and perhaps mirrored."""
    angle, flip = math.radians(rng.uniform(-_MOST_TURN, _MOST_TURN)), 1 - 2 * int(rng.integers(2))
    cos, sin, (width, height) = math.cos(angle), math.sin(angle), image.size
    new_width, new_height = (
        math.ceil((along * cos + across * abs(sin)) * scale) for along, across in ((width, height), (height, width))
    )
    a, b, d, e = flip * cos / scale, flip * sin / scale, -sin / scale, cos / scale
    # From new pixels to old ones, middle to middle.
    c, f = (width - a * new_width - b * new_height) / 2, (height - d * new_width - e * new_height) / 2
    size = (new_width, new_height)
    return image.transform(size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)


def _palette(values: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour for each of the 256 grey values, (256, 3): dark for bright ones, around one tint for common ones."""
    hue, saturation, brightness = rng.random(), rng.uniform(0.3, 0.8), rng.uniform(0.55, 0.9)
    stops = (
        colorsys.hsv_to_rgb(hue - 0.04, saturation, 0.3 * brightness),
        colorsys.hsv_to_rgb(hue, saturation, brightness),
        colorsys.hsv_to_rgb(hue + 0.02, 0.25 * saturation, 1.0),
    )
    spread = max(int(values.max()) - int(values.min()), 90)
    shades = 0.5 + (values.mean() - np.arange(256)) / spread
    palette = np.empty((256, 3), np.float32)
    for column, channel in enumerate(zip(*stops, strict=True)):
        palette[:, column] = np.interp(shades, (0, 0.5, 1), channel)
    return palette


def paint_item(pixels_HWC: NDArray[np.float32], item: Item) -> None:
    """Lay the item and its shadow on the picture."""
    blur = max(min(pixels_HWC.shape[:2]) // 50, 1)
    wide = np.zeros([side + 4 * blur for side in item.alpha.shape], np.float32)
    wide[2 * blur : -2 * blur, 2 * blur : -2 * blur] = item.alpha * 255
    blurred = Image.fromarray(wide.astype(np.uint8)).filter(ImageFilter.BoxBlur(blur))
    shadow = np.asarray(blurred, np.float32)[..., None] * (_SHADOW / 255)
    # Lit from the upper left.
    top, left = item.place[0].start - blur, item.place[1].start - blur
    lit = pixels_HWC[max(top, 0) : top + shadow.shape[0], max(left, 0) : left + shadow.shape[1]]
    lit *= 1 - shadow[max(-top, 0) :, max(-left, 0) :][: lit.shape[0], : lit.shape[1]]
    under = pixels_HWC[item.place]
    under += (item.colors - under) * item.alpha[..., None]


def paint_background(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Two colours of one family, (H, W, 3) in [0, 1], mixed by a slope, clouds, stripes or checks."""
    hue, saturation, brightness = rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.35, 0.95)
    first = colorsys.hsv_to_rgb(hue, saturation, brightness)
    second = colorsys.hsv_to_rgb(hue + rng.uniform(-0.12, 0.12), saturation, brightness * rng.uniform(0.6, 0.85))
    mix_HW = _clouds(size, rng) * 0.5 + _slope(size, rng) * 0.5
    kind = rng.integers(4)
    if kind:
        period, angle = rng.uniform(0.04, 0.16) * min(size), rng.uniform(0, math.pi)
        waves = _waves(size, period, angle)
        if kind == 2:
            waves = np.maximum(waves, _waves(size, period, angle + math.pi / 2))
        if kind == 3:
            waves = waves * _waves(size, period, angle + math.pi / 2)
        mix_HW = mix_HW * 0.7 + 0.3 * waves
    channels = [start + (end - start) * mix_HW for start, end in zip(first, second, strict=True)]
    return np.stack(channels, -1).astype(np.float32, copy=False)


def _clouds(size: tuple[int, int], rng: np.random.Generator) -> _Shares:
    cells = Image.fromarray(rng.random((5, 5), np.float32))
    return np.asarray(cells.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32).clip(0, 1)


def _slope(size: tuple[int, int], rng: np.random.Generator) -> _Shares:
    angle = rng.uniform(0, 2 * math.pi)
    y, x = (np.linspace(-0.7, 0.7, side, dtype=np.float32) for side in size)
    return (0.5 + y[:, None] * math.sin(angle) + x * math.cos(angle)).clip(0, 1)


def _waves(size: tuple[int, int], period: float, angle: float) -> _Shares:
    """Bands with soft borders, from 0 to 1."""
    y, x = (np.arange(side, dtype=np.float32) * (2 * math.pi / period) for side in size)
    wave = np.sin(y[:, None] * math.sin(angle) + x * math.cos(angle))
    return (0.5 + 2 * wave).clip(0, 1)
