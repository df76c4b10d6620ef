"""Any picture a user has, as an 8-bit RGB or grey PIL image: files, bytes, PIL images and numpy arrays."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from internimage.data.pixels import array_to_eight_bit, image_to_eight_bit

# The size from which Pillow by default refuses a picture as a decompression bomb.
MAX_PIXELS = 178_956_970
IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
# Pillow would start Ghostscript for these, on input that nobody has checked.
REFUSED_FORMATS = frozenset(("EPS",))
# What turns a picture upright, by its EXIF orientation.
UPRIGHT_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_Convert = Callable[[Image.Image], Image.Image]
_pillow_settings = threading.Lock()
# A worker process must not inherit the lock as held by a thread that it does not have.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_pillow_settings.acquire,
        after_in_parent=_pillow_settings.release,
        after_in_child=_pillow_settings.release,
    )


class ImageReadError(ValueError):
    """A picture that cannot be read: the message names it, says why, and what to do."""


def read_image(
    source: str | Path | bytes | Image.Image | NDArray[Any],
    *,
    in_chans: int = 3,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Image.Image:
    """Read one picture, upright, as an 8-bit PIL image of mode RGB, or L for ``in_chans=1``.

    The EXIF orientation is applied (an unreadable one counts as upright), transparency is laid on white, 16 bits per
    value are scaled to 8, and of an animation or a multi-page file the first picture is taken.

    Args:
        source: a path, the bytes of an image file, a PIL image (its current frame is taken), or an array of shape
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, or floats in [0, 1].
        in_chans: 3 (RGB) or 1 (grey).
        max_pixels: larger pictures are refused before they are decoded; Pillow's own limit does not count.
        name: what errors call the bytes of an image file, or the file.

    Raises:
        ImageReadError: nothing there, not an image, damaged, truncated, too large, or values of an unknown range.

    >>> read_image(np.full((2, 3), 7, np.uint8)).getpixel((0, 0))
    (7, 7, 7)
    """
    if in_chans not in (1, 3):
        raise ValueError(f"in_chans must be 3 (RGB) or 1 (grey), got {in_chans}")
    if isinstance(source, np.ndarray):
        image = _from_array(source)
    elif isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "")) or f"the PIL image of mode {source.mode}"
        image = _decode(source, name, max_pixels)
    elif isinstance(source, bytes | bytearray | memoryview):
        image = _from_stream(io.BytesIO(source), name or f"the {len(source)} bytes given", max_pixels)
    elif isinstance(source, str | Path):
        image = _from_path(Path(source), max_pixels, name=name)
    else:
        _fail(f"an object of type {type(source).__name__}", "give a path, bytes, a PIL image or a numpy array")
    # Always a plain copy: no open file behind it, and no EXIF that would turn it a second time.
    result = image.convert("RGB" if in_chans == 3 else "L")
    result.info = {}
    return result


def read_as(path: str | Path, convert: _Convert, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in a file, upright, with values of its own: what ``convert`` makes of them.

    Args:
        path: the file.
        convert: takes the decoded picture as it is stored; raises ``ValueError`` with a reason where it can't be used.
        max_pixels: as for `read_image`.

    Raises:
        ImageReadError: as for `read_image`, and with the reason of ``convert``.
    """
    return _from_path(Path(path), max_pixels, convert)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files that ``paths`` stand for, in that order.

    A file is taken as given, whatever its suffix. A folder is searched through all its subfolders for files with one
    of `IMAGE_SUFFIXES`, sorted by path; names that begin with a dot are skipped, linked subfolders are not followed.

    Raises:
        ValueError: a path that does not exist, or a folder without images.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            below = images_below(path)
            if not below:
                raise ValueError(f"{path} holds no images; known suffixes are {', '.join(sorted(IMAGE_SUFFIXES))}")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"{path} does not exist; check the path")
    return found


def images_below(folder: Path) -> list[Path]:
    """All visible image files in ``folder`` and its subfolders, sorted by path; raises ``ValueError`` if unreadable."""
    return sorted((path for path in _visible_files(folder) if _has_suffix(path)), key=Path.as_posix)


def skipped_below(folder: Path) -> list[Path]:
    """All visible files in ``folder`` and its subfolders that `images_below` leaves out for their suffix."""
    return [path for path in _visible_files(folder) if not _has_suffix(path)]


def _has_suffix(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _visible_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_fail_listing):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _fail_listing(error: OSError) -> NoReturn:
    raise ValueError(f"cannot list the folder {error.filename}: {error.strerror}") from error


def _fail(name: str, reason: str, cause: Exception | None = None) -> NoReturn:
    raise ImageReadError(f"cannot read {name}: {reason}") from cause


def _from_array(array: NDArray[Any]) -> Image.Image:
    try:
        return array_to_eight_bit(array)
    except ValueError as error:
        _fail(f"the array of shape {array.shape} and type {array.dtype}", str(error), error)


def _from_path(
    path: Path, max_pixels: int, convert: _Convert = image_to_eight_bit, name: str | None = None
) -> Image.Image:
    name = name or str(path)
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        _fail(name, "there is no such file", error)
    except IsADirectoryError as error:
        _fail(name, "it is a folder; give an image file, or list its images with find_images", error)
    except (OSError, ValueError) as error:
        _fail(name, getattr(error, "strerror", None) or str(error), error)
    with file:
        return _from_stream(file, name, max_pixels, convert)


def _from_stream(stream: BinaryIO, name: str, max_pixels: int, convert: _Convert = image_to_eight_bit) -> Image.Image:
    if not stream.read(1):
        _fail(name, "it is empty (0 bytes)")
    try:
        with _pillow_limit(max_pixels):
            header = _parse_header(stream)
    # Pillow's plugins raise whatever a damaged file makes them trip over.
    except Exception as error:
        _fail(name, f"the file is truncated or damaged ({error})", error)
    if header is None:
        _fail(name, "it is not an image of a known format, or its header is damaged; save it as PNG")
    return _decode(header, name, max_pixels, convert)


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Pillow's checks with our limit and without warnings; for one thread at a time, as both settings are global."""
    with _pillow_settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _parse_header(stream: BinaryIO) -> Image.Image | None:
    """The picture with its size known and its pixels not yet decoded, or None when no format fits.

    ``Image.open`` does the same, but does not give the width and height of a picture that it finds too large.
    """
    stream.seek(0)
    prefix = stream.read(16)
    for register_plugins in (Image.preinit, Image.init):
        register_plugins()
        for name in [name for name in Image.ID if name not in REFUSED_FORMATS]:
            factory, accept = Image.OPEN[name]
            try:
                if accept is None or accept(prefix) is True:
                    stream.seek(0)
                    return factory(stream, "")
            # What Image.open takes for "another format".
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue
    return None


def _decode(image: Image.Image, name: str, max_pixels: int, convert: _Convert = image_to_eight_bit) -> Image.Image:
    """``image`` decoded, converted and upright; by default in 8 bits: mode L where it is grey, RGB otherwise."""
    width, height = image.size
    if width * height == 0:
        _fail(name, f"it has no pixels ({width} x {height})")
    if width * height > max_pixels:
        limit = f"more than the limit of {max_pixels:,} pixels"
        _fail(name, f"it is {width} x {height}, {limit}; make it smaller, or raise max_pixels if you trust the file")
    try:
        _load(image, max_pixels)
    except Exception as error:
        _fail(name, f"the file is truncated or damaged ({error})", error)
    try:
        converted = convert(image)
    except ValueError as error:
        _fail(name, str(error), error)
    with _pillow_limit(max_pixels):
        turn = UPRIGHT_TURNS.get(_orientation(image))
    return converted if turn is None else converted.transpose(turn)


def _load(image: Image.Image, max_pixels: int) -> None:
    # Pillow checks large sizes again while it decodes, and TIFF's tags; all else keeps decoding in parallel.
    if image.format == "TIFF" or image.width * image.height > (Image.MAX_IMAGE_PIXELS or max_pixels):
        with _pillow_limit(max_pixels):
            image.load()
    else:
        image.load()


def _orientation(image: Image.Image) -> int:
    # Damaged EXIF says nothing of the orientation; every viewer shows such a picture as it is stored.
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
