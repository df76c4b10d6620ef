"""Values laid over a picture: one scale of colours from little to much, and what all such pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from internimage.visualization.card import to_rgb
from internimage.visualization.style import INK

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

# From little to much: ever lighter, so that it reads without colour vision and in print.
HEAT = ("#23135c", "#7d2482", "#d6456b", "#fb9a3c", "#fff3bd")

# Cells by which a map is continued on every side, so that no place of the picture lies beyond it.
MARGIN = 2


def heat_colour(share: float) -> str:
    """The colour of a share in [0, 1], such as ``#23135c``.

    >>> heat_colour(0.0), heat_colour(0.5), heat_colour(0.625), heat_colour(1.0)
    ('#23135c', '#d6456b', '#e87054', '#fff3bd')
    """
    return "#" + "".join(f"{value:02x}" for value in heat_pixels(np.array([share]))[0])


def heat_pixels(shares: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Shares in [0, 1] of any shape as RGB pixels (..., 3)."""
    anchors = np.array([ImageColor.getrgb(colour) for colour in HEAT], dtype=np.float64)
    places = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(shares, places, anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def heat_colormap() -> Colormap:
    """The same for matplotlib."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("heat", list(HEAT))


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """The picture as RGB with ``side`` pixels at its longer side, smoothly enlarged or made smaller."""
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return to_rgb(picture).resize(size, Image.Resampling.BICUBIC)


def faded(picture: Image.Image, share: float) -> Image.Image:
    """An RGB picture mixed with ink, from 0 (as it was) to 1; ``ValueError`` for another share."""
    if not 0 <= share <= 1:
        raise ValueError(f"the fading must be from 0 to 1, got {share}")
    return Image.blend(picture, Image.new("RGB", picture.size, INK), share)


def lay_over(
    picture: Image.Image, values: NDArray[np.floating], *, stride: int, size: tuple[int, int], side: int = 480
) -> Image.Image:
    """A map of values on a grey picture: the more, the lighter and the less transparent.

    Args:
        picture: what the network sees, of any mode and resolution.
        values: (h, w) from 0 to 1; cell (row, column) belongs to the input's pixel (stride*row, stride*column).
        stride: pixels of the network's input between neighbouring cells.
        size: height and width of the network's input in pixels.
        side: length in pixels of the longer side of what is drawn.

    Raises:
        ValueError: values outside [0, 1], or of another shape.
    """
    if values.ndim != 2 or not values.size or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"a map (h, w) of values from 0 to 1 is needed, got shape {values.shape}")
    ground = ImageOps.grayscale(fitted(picture, side)).convert("RGB")
    shares = stretched(values, stride, size, ground.size).clip(0, 1)
    opacity = Image.fromarray(np.rint(255 * (0.25 + 0.5 * np.sqrt(shares))).astype(np.uint8))
    return Image.composite(Image.fromarray(heat_pixels(shares)), ground, opacity)


def stretched(
    values: NDArray[np.floating], stride: int, size: tuple[int, int], target: tuple[int, int]
) -> NDArray[np.float32]:
    """A map's values between its cells, over the whole of a picture; beyond the outermost cells they go on unchanged.

    Args:
        values: (h, w).
        stride: pixels of the network's input between neighbouring cells; the first cell belongs to its first pixel.
        size: height and width of the network's input in pixels.
        target: width and height of the picture.

    Returns:
        (height, width) of the picture.

    >>> stretched(np.array([[0.0, 1.0]]), 4, (4, 8), (8, 4))[0].tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    """
    # The middle of a target's pixel is at + 0.5, that of the map's first cell behind the margin at MARGIN + 0.5.
    padded = Image.fromarray(np.pad(values.astype(np.float32), MARGIN, mode="edge"))
    across, down = size[1] / target[0] / stride, size[0] / target[1] / stride
    first = MARGIN + 0.5 - 0.5 / stride
    moved = padded.transform(
        target, Image.Transform.AFFINE, (across, 0, first, 0, down, first), Image.Resampling.BILINEAR
    )
    return np.asarray(moved)
