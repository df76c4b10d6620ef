"""Every kind of picture that cannot be read: one sentence that names it, says why, and what to do."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from internimage.data import ImageReadError, read_image


def noise_as(format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def message_for(source, **options) -> str:
    """The message of the error, after checking its form: one line, one sentence."""
    with pytest.raises(ImageReadError) as caught:
        read_image(source, **options)
    message = str(caught.value)
    assert message.startswith("cannot read ")
    assert "\n" not in message
    return message


def test_the_error_is_a_value_error():
    assert issubclass(ImageReadError, ValueError)


def test_missing_file(tmp_path):
    path = tmp_path / "missing.jpg"
    assert message_for(path) == f"cannot read {path}: there is no such file"


def test_file_below_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    assert str(tmp_path / "file" / "a.png") in message_for(tmp_path / "file" / "a.png")


def test_folder(tmp_path):
    assert message_for(tmp_path).startswith(f"cannot read {tmp_path}: it is a folder; give an image file")


@pytest.mark.parametrize("name", ["nul\0byte.png", "x" * 5000 + ".png"], ids=["nul byte", "too long"])
def test_impossible_names(name):
    assert name in message_for(name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path):
    path = tmp_path / "locked.png"
    path.write_bytes(noise_as("PNG"))
    path.chmod(0)
    assert message_for(path) == f"cannot read {path}: Permission denied"


def test_empty_file(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    assert message_for(path) == f"cannot read {path}: it is empty (0 bytes)"
    assert message_for(b"") == "cannot read the 0 bytes given: it is empty (0 bytes)"


@pytest.mark.parametrize(
    "content",
    [b"not an image\n" * 100, b"x", b"<html></html>", b"\x89PNG", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    ids=["text", "one byte", "html", "png signature cut", "postscript"],
)
def test_something_else_named_jpg(tmp_path, content):
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    assert message_for(path).startswith(f"cannot read {path}: it is not an image of a known format")


CUT_FORMATS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("PPM", {}),
}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("kind", CUT_FORMATS)
def test_truncated_files(tmp_path, kind, share):
    format, options = CUT_FORMATS[kind]
    whole = noise_as(format, **options)
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(share * len(whole))])
    assert read_image(whole).size == (50, 40)
    assert str(path) in message_for(path)


def test_truncated_jpeg_says_so(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(noise_as("JPEG")[:-300])
    assert message_for(path).startswith(
        f"cannot read {path}: the file is truncated or damaged (image file is truncated"
    )


def test_truncated_image_that_was_opened_elsewhere(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(noise_as("JPEG")[:-300])
    with Image.open(path) as image:
        assert message_for(image).startswith(f"cannot read {path}: the file is truncated or damaged")


def test_damaged_png_data():
    content = bytearray(noise_as("PNG"))
    content[len(content) // 2] ^= 0xFF
    assert "the file is truncated or damaged" in message_for(bytes(content))


def test_gigantic_png_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(100_000, 100_000))
    assert message_for(path) == (
        f"cannot read {path}: it is 100000 x 100000, more than the limit of 178,956,970 pixels; "
        "make it smaller, or raise max_pixels if you trust the file"
    )


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_max_pixels_is_the_largest_allowed_size(format):
    content = noise_as(format)
    assert read_image(content, max_pixels=2000).size == (50, 40)
    assert "it is 50 x 40, more than the limit of 1,999 pixels" in message_for(content, max_pixels=1999)


def test_max_pixels_can_be_raised_above_pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for format in ("PNG", "TIFF", "WEBP"):
        assert read_image(noise_as(format), max_pixels=2000).size == (50, 40)


def test_max_pixels_holds_for_pil_images():
    assert "it is 50 x 40" in message_for(Image.new("RGB", (50, 40)), max_pixels=1999)


def test_images_without_pixels():
    assert "no pixels (0 x 5)" in message_for(Image.new("RGB", (0, 5)))
    assert message_for(np.zeros((0, 5), np.uint8)).endswith("it has no pixels")


@pytest.mark.parametrize("shape", [(), (3,), (3, 8, 8), (8, 8, 2), (1, 8, 8, 3)], ids=str)
def test_array_shapes(shape):
    message = message_for(np.zeros(shape, np.uint8))
    assert f"the array of shape {shape} and type uint8: the shape must be (H, W)" in message


@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool, np.complex64, object, "U1"], ids=str)
def test_array_types(dtype):
    assert message_for(np.zeros((2, 2), dtype)).endswith("or a float type with values in [0, 1]")


@pytest.mark.parametrize(("low", "high", "words"), [(0, 255, "0 to 255"), (-1, 1, "-1 to 1"), (0, np.nan, "nan")])
def test_floats_out_of_range(low, high, words):
    array = np.array([[low, high]], np.float32)
    for source in (array, Image.fromarray(array)):
        message = message_for(source)
        assert re.search(rf"(type float32|mode F): its floats reach from .*{words}; scale them to \[0, 1\]$", message)


@pytest.mark.parametrize("values", [(-1, 5), (0, 65536)])
def test_integers_out_of_range(values):
    message = message_for(Image.fromarray(np.array([values], np.int32)))
    assert re.search(rf"reach from {values[0]} to {values[1]}, not 0 to 65535", message)


@pytest.mark.parametrize("source", [torch.zeros(3, 4, 4), None, 7, [[1, 2]]], ids=lambda source: type(source).__name__)
def test_other_types(source):
    message = message_for(source)
    assert message.endswith("give a path, bytes, a PIL image or a numpy array")
    assert type(source).__name__ in message
