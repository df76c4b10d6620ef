"""The file that an evaluation leaves in a run's folder: what its figures are drawn from, without weights or data."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EVALUATION_FILE = "evaluation.npz"
_FORMAT = 1
_HEADER = "header"
# A picture that is larger as PNG is stored as JPEG of a quality at which nobody sees a difference on a sheet.
_LOSSLESS_BYTES, _JPEG_QUALITY = 64 * 1024, 95
_DAMAGED = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Shelf:
    """What an evaluation consists of, ready for the file.

    Args:
        header: plain values, ready for JSON.
        arrays: numbers and encoded pictures, by names with dots.
    """

    header: dict[str, Any] = field(default_factory=dict[str, Any])
    arrays: Arrays = field(default_factory=dict[str, NDArray[Any]])

    def put_pictures(self, name: str, images: Sequence[Image.Image]) -> None:
        """Store pictures under ``name``; grey and colour stay as they are, other modes become RGB."""
        self.header[name] = len(images)
        for number, image in enumerate(images):
            self.arrays[f"{name}.{number}"] = _encoded(image)

    def pictures(self, name: str) -> list[Image.Image]:
        """The pictures that were stored under ``name``."""
        return [_decoded(self.arrays[f"{name}.{number}"]) for number in self.numbers(name)]

    def numbers(self, name: str) -> Iterator[int]:
        """0, 1, ... for the pictures under ``name``."""
        return iter(range(int(self.header[name])))


def write_shelf(path: Path, shelf: Shelf) -> Path:
    """Write ``path``, whole or not at all."""
    header = json.dumps({"format": _FORMAT, **shelf.header}).encode("utf-8")
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            arrays: Mapping[str, Any] = {_HEADER: np.frombuffer(header, np.uint8), **shelf.arrays}
            np.savez_compressed(file, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_shelf(path: Path) -> Shelf:
    """The inverse of `write_shelf`.

    Raises:
        ValueError: there is no such file, it is damaged, or of a later version.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; internimage validate --run {path.parent} writes it")
    try:
        # Of a file that is cut short, NumPy would leave its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        found = header.pop("format")
    except _DAMAGED as error:
        raise damaged(path, error) from None
    if found != _FORMAT:
        raise ValueError(f"{path} has format {found}, this version reads {_FORMAT}; take the version that wrote it")
    return Shelf(header, arrays)


def damaged(path: Path, error: Exception) -> ValueError:
    """What to say of a file that can't be understood."""
    return ValueError(f"{path} is damaged ({error}); internimage validate --run {path.parent} writes it anew")


def _encoded(image: Image.Image) -> NDArray[np.uint8]:
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", optimize=True)
    if buffer.tell() > _LOSSLESS_BYTES:
        buffer = io.BytesIO()
        plain.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _decoded(encoded: NDArray[Any]) -> Image.Image:
    image = Image.open(io.BytesIO(encoded.tobytes()), formats=("PNG", "JPEG"))
    image.load()
    return image
