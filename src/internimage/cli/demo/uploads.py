"""What a visitor drops on the page, as a picture; or one sentence that says why it is none."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from internimage.cli.demo.limits import Limits
from internimage.data import read_image

_NAME = "the picture"


@dataclass(frozen=True)
class Upload:
    """A picture to look at.

    Args:
        picture: RGB, upright, of at most `Limits.side` pixels on a side.
        notes: what was done to it, in sentences; empty where nothing was.
    """

    picture: Image.Image
    notes: str


def read_upload(data: bytes, limits: Limits) -> Upload:
    """The picture in the bytes of a file.

    Raises:
        ImageReadError: it is none, damaged, or too large; large ones are refused before they are decoded.
    """
    picture = read_image(data, max_pixels=limits.pixels, name=_NAME)
    notes = ["Of an animation, only the first picture is looked at."] if _is_animated(data) else []
    if max(picture.size) > limits.side:
        width, height = picture.size
        picture.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS)
        notes.append(f"Made smaller, from {width} x {height} to {picture.width} x {picture.height} pixels.")
    return Upload(picture, " ".join(notes))


def _is_animated(data: bytes) -> bool:
    # Only of these: a TIFF file may hold pages, which are no animation, and others count all their frames for it.
    if not data.startswith((b"GIF8", b"\x89PNG", b"RIFF")):
        return False
    try:
        with Image.open(io.BytesIO(data)) as header:
            return bool(getattr(header, "is_animated", False))
    # The first picture could be read; whatever is wrong comes after it.
    except Exception:
        return False
