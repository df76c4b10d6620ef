"""What `read_image` makes of every kind of picture, against values computed by hand."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from internimage.data import read_image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> list:
    return np.asarray(image).tolist()


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8))


@pytest.mark.parametrize("kind", ["path", "string", "bytes", "image", "array"])
def test_every_source_gives_the_same_pixels(tmp_path, noise, kind):
    path = tmp_path / "noise.png"
    noise.save(path)
    sources = {"path": path, "string": str(path), "bytes": path.read_bytes(), "image": noise, "array": np.array(noise)}
    result = read_image(sources[kind])
    assert result.mode == "RGB"
    assert pixels(result) == pixels(noise)


@pytest.mark.parametrize("name", ["right.png", "wrong.jpg", "wrong.txt", "without_suffix"])
@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_content_decides_and_not_the_suffix(tmp_path, noise, name, format):
    (tmp_path / name).write_bytes(encoded(noise, format, **({"lossless": True} if format == "WEBP" else {})))
    assert pixels(read_image(tmp_path / name)) == pixels(noise)


def test_result_is_a_copy_without_metadata(noise):
    noise.info["exif"] = b"something"
    result = read_image(noise)
    assert result is not noise
    assert result.info == {}
    assert type(result) is Image.Image


def test_in_chans_1_gives_grey():
    image = Image.new("RGB", (2, 1), RED)
    assert pixels(read_image(image, in_chans=1)) == [[76, 76]]
    assert read_image(image, in_chans=1).mode == "L"
    assert pixels(read_image(Image.new("L", (1, 1), 7))) == [[[7, 7, 7]]]


@pytest.mark.parametrize("in_chans", [0, 2, 4])
def test_other_channel_counts_are_refused(noise, in_chans):
    with pytest.raises(ValueError, match=f"in_chans must be 3 .* or 1 .*, got {in_chans}"):
        read_image(noise, in_chans=in_chans)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(noise, orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(noise, format, exif=exif)
    stored = Image.open(io.BytesIO(content))
    once = read_image(content)
    assert pixels(once) == pixels(ImageOps.exif_transpose(stored).convert("RGB"))
    assert pixels(read_image(once)) == pixels(once)


def test_orientation_6_puts_the_left_column_on_top():
    left_red = Image.fromarray(np.array([[RED, BLUE], [RED, BLUE], [RED, GREEN]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = read_image(encoded(left_red, "PNG", exif=exif))
    assert pixels(upright) == [[list(RED)] * 3, [list(GREEN), list(BLUE), list(BLUE)]]


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"\x00"])
def test_damaged_exif_counts_as_upright(noise, exif):
    with_exif = read_image(encoded(noise, "JPEG", exif=exif))
    assert pixels(with_exif) == pixels(read_image(encoded(noise, "JPEG")))


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 128, 129, 257], [300, 32768, 65406, 65535]], np.uint16)
    expected = [[0, 0, 1, 1], [1, 128, 254, 255]]
    Image.fromarray(values).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as stored:
        assert stored.mode == "I;16"
    assert pixels(read_image(tmp_path / "deep.png", in_chans=1)) == expected
    assert pixels(read_image(values, in_chans=1)) == expected
    assert pixels(read_image(Image.fromarray(values.astype(np.int32)), in_chans=1)) == expected
    assert pixels(read_image(encoded(Image.fromarray(values), "TIFF"), in_chans=1)) == expected


def test_16_bit_pgm_in_big_endian(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([0x01, 0x01, 0xFF, 0xFF]))
    assert pixels(read_image(tmp_path / "deep.pgm", in_chans=1)) == [[1, 255]]


def test_transparent_level_of_16_bit_grey_is_white():
    image = Image.fromarray(np.array([[1000, 2570]], np.uint16))
    assert pixels(read_image(encoded(image, "PNG", transparency=1000), in_chans=1)) == [[255, 10]]


def test_float_mode():
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert image.mode == "F"
    assert pixels(read_image(encoded(image, "TIFF"), in_chans=1)) == [[0, 128, 255]]


def test_1_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(read_image(encoded(image, "PNG"))) == [[list(BLACK), list(WHITE)]]


def test_cmyk_jpeg_keeps_its_colours():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    content = encoded(image, "JPEG", quality=95)
    assert b"Adobe" in content
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    red = np.asarray(read_image(content), int)
    assert np.abs(red - RED).max() <= 3


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 0), (51, 204)])
def test_alpha_is_laid_on_white(alpha, expected):
    assert pixels(read_image(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, alpha)), "PNG"))) == [[[expected] * 3]]
    assert pixels(read_image(encoded(Image.new("LA", (1, 1), (0, alpha)), "PNG"), in_chans=1)) == [[expected]]
    assert pixels(read_image(np.array([[[0, 0, 0, alpha]]], np.uint8))) == [[[expected] * 3]]


def test_palette_with_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        image.putpixel((x, 0), x)
    assert pixels(read_image(encoded(image, "PNG"))) == [[list(RED), list(GREEN), list(BLUE)]]
    one_clear = read_image(encoded(image, "PNG", transparency=1))
    assert pixels(one_clear) == [[list(RED), list(WHITE), list(BLUE)]]
    alpha_table = read_image(encoded(image, "PNG", transparency=bytes([255, 0, 255])))
    assert pixels(alpha_table) == [[list(RED), list(WHITE), list(BLUE)]]


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_first_picture_of_many(format, options):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert pixels(read_image(content)) == pixels(frames[0])


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_of_every_shape_and_type(shape, dtype):
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    array = np.full(shape, 0.2 * top).astype(dtype)
    array[..., 3:] = top
    assert pixels(read_image(array)) == [[[51] * 3] * 3] * 2


def test_arrays_need_not_be_contiguous():
    array = np.random.default_rng(0).integers(0, 256, (3, 6, 8), np.uint8).transpose(1, 2, 0)[::-1, ::2]
    assert pixels(read_image(array)) == array.tolist()


@pytest.mark.parametrize("modes", [["HSV"], ["YCbCr"], ["RGBX"], ["RGBA", "RGBa"], ["P", "PA"]], ids="-".join)
def test_rare_modes(modes):
    image = Image.new("RGB", (4, 4), BLUE)
    for mode in modes:
        image = image.convert(mode)
    assert np.abs(np.asarray(read_image(image), int) - BLUE).max() <= 2


def test_premultiplied_grey():
    assert pixels(read_image(Image.new("LA", (1, 1), (0, 51)).convert("La"), in_chans=1)) == [[204]]


def test_large_pictures_are_read_without_warnings(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for format in ("PNG", "TIFF", "GIF", "JPEG", "WEBP"):
            assert read_image(encoded(Image.new("RGB", (30, 20), RED), format)).size == (30, 20)
    assert caught == []
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_leave_the_warning_filters_as_they_were(noise):
    content, filters = encoded(noise, "TIFF"), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read_image, [content] * 200))
    assert warnings.filters == filters
    assert all(pixels(result) == pixels(noise) for result in results)
