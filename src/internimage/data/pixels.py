"""Pixel values of any type as 8-bit PIL images of mode L or RGB.

Each function raises ``ValueError`` with the reason alone; `read_image` puts the name of the picture before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def image_to_eight_bit(image: Image.Image) -> Image.Image:
    """A decoded PIL image of any mode as mode L where it is grey, RGB otherwise; transparency is laid on white."""
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), image.info.get("transparency"))
    if image.mode == "F":
        return Image.fromarray(_floats_to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        # Pillow leads from premultiplied grey (La) to RGBA only by way of LA.
        return _on_white((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def array_to_eight_bit(array: NDArray[Any]) -> Image.Image:
    """An array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as mode L or RGB; alpha is laid on white.

    Args:
        array: uint8, uint16 (scaled by 1/257), or floats in [0, 1].
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError("the shape must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last")
    if array.size == 0:
        raise ValueError("it has no pixels")
    if array.dtype == np.uint8:
        values = array
    elif array.dtype == np.uint16:
        values = _uint16_to_uint8(array)
    elif np.issubdtype(array.dtype, np.floating):
        values = _floats_to_uint8(array)
    else:
        raise ValueError("the type must be uint8, uint16, or a float type with values in [0, 1]")
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2:] == (1,) else values))
    return _on_white(image) if image.mode == "RGBA" else image


def _from_integers(values: NDArray[Any], transparent: int | None) -> Image.Image:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"its integers reach from {lowest} to {highest}, not 0 to 65535; convert it to 8 bits first")
    grey = _uint16_to_uint8(values)
    return Image.fromarray(grey if transparent is None else np.where(values == transparent, np.uint8(255), grey))


def _uint16_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    # 65535 = 255 * 257, so this is the nearest of the 256 levels; Pillow's own conversion clips at 255.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _floats_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    # Written so that NaN fails too.
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"its floats reach from {values.min():g} to {values.max():g}; scale them to [0, 1]")
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
