"""Regions on a canvas: what colours, borders, hatching and mistakes paint, and what a legend holds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from internimage.structures import IGNORED, LabelMap
from internimage.visualization.regions import (
    BORDER,
    LIGHTENED,
    Entry,
    draw_legend,
    mark_mistakes,
    name_regions,
    paint_regions,
)
from internimage.visualization.style import INK, PAPER, QUIET, SOFT_INK, WRONG, font_for

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PALETTE = (RED, GREEN, BLUE)
BLACK = (0, 0, 0)
HALVES = np.repeat([[0, 1]], 4, axis=0).repeat(4, axis=1).astype(np.uint8)


def painted(labels: np.ndarray, *, scale: float = 1, opacity: float = 1.0, line: int = 1, ground=BLACK) -> np.ndarray:
    size = (round(labels.shape[1] * scale), round(labels.shape[0] * scale))
    return np.asarray(paint_regions(Image.new("RGB", size, ground), labels, PALETTE, opacity, line), int)


def marked(labels: np.ndarray, truth: np.ndarray, *, scale: int = 1) -> np.ndarray:
    canvas = Image.new("RGB", (truth.shape[1] * scale, truth.shape[0] * scale), BLACK)
    return np.asarray(mark_mistakes(canvas, labels, truth, 1))


def named(labels: np.ndarray, *, scale: int, text: int = 20) -> np.ndarray:
    canvas = Image.new("RGB", (labels.shape[1] * scale, labels.shape[0] * scale), PAPER)
    name_regions(canvas, labels, LabelMap(("sky", "road", "car")), PALETTE, text)
    return np.asarray(canvas)


def same(pixels: np.ndarray, colour: tuple[int, ...] | str, tolerance: int = 1) -> np.ndarray:
    rgb = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return np.abs(pixels.astype(int) - rgb).max(axis=-1) <= tolerance


def words_in(strip: Image.Image, colour: str) -> np.ndarray:
    return same(np.asarray(strip), colour, 40)


def test_each_side_of_a_border_has_its_colour():
    pixels = painted(HALVES)
    assert same(pixels[:, :3], RED).all()
    assert same(pixels[:, 5:], GREEN).all()
    # One pixel of white: half of it on either side.
    white = BORDER * 0.5
    expected = [round(255 * white + 255 * (1 - white)), round(255 * white), round(255 * white)]
    np.testing.assert_allclose(pixels[0, 3], expected, atol=3)


@pytest.mark.parametrize("line", [1, 2, 4])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_borders_are_as_wide_as_they_should_be(line, scale):
    blue = painted(HALVES, scale=scale, line=line)[0, :, 2]
    assert blue.sum() == pytest.approx(255 * BORDER * line, rel=0.05)


def test_one_class_has_no_border():
    assert same(painted(np.zeros((5, 7), np.uint8)), RED).all()


def test_the_ground_is_grey_and_lightened():
    pixels = painted(np.zeros((4, 4), np.uint8), opacity=0.5, ground=GREEN)
    grey = 150 * (1 - LIGHTENED) + 255 * LIGHTENED
    np.testing.assert_allclose(pixels[0, 0], [(grey + 255) / 2, grey / 2, grey / 2], atol=2)


def test_what_is_ignored_keeps_its_colours_and_is_hatched():
    labels = np.full((40, 80), IGNORED, np.uint8)
    labels[:, :40] = 2
    ground = (120, 160, 40)
    pixels = painted(labels, ground=ground)
    assert same(pixels[:, :39], BLUE).all()
    untouched = same(pixels[:, 42:], ground)
    assert 0.6 < untouched.mean() < 0.9
    assert (pixels[:, 42:][~untouched].sum(axis=1) != sum(ground)).all()


def test_the_picture_given_is_not_changed():
    canvas = Image.new("RGB", (8, 4), (9, 9, 9))
    paint_regions(canvas, HALVES, PALETTE, 0.5, 1)
    mark_mistakes(canvas, HALVES, HALVES, 1)
    assert canvas.getcolors() == [(32, (9, 9, 9))]


def test_a_map_may_be_smaller_or_larger_than_the_picture():
    labels = np.repeat(np.repeat(HALVES, 5, 0), 5, 1)
    for scale in (0.2, 0.5, 1.5, 4):
        pixels = painted(labels, scale=scale)
        middle = pixels.shape[1] // 2
        assert same(pixels[:, : middle - 2], RED).all()
        assert same(pixels[:, middle + 2 :], GREEN).all()


def test_borders_of_large_pictures_are_as_wide():
    blue = painted(HALVES, scale=400, line=4)[0, :, 2]
    assert blue.sum() == pytest.approx(255 * BORDER * 4, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_slivers_are_painted(shape):
    labels = (np.arange(shape[0] * shape[1]) % 3).reshape(shape).astype(np.uint8)
    assert painted(labels, line=6).shape == (*shape, 3)
    assert same(named(labels, scale=1), PAPER).all()


def test_a_name_stands_in_the_midst_of_its_largest_region():
    labels = np.ones((30, 60), np.uint8)
    labels[:, 30:] = 0
    labels[:, 56:] = 2
    labels[:4, :8] = IGNORED
    pixels = named(labels, scale=10)
    rows, columns = np.nonzero(same(pixels, RED))
    # A label is 1.45 texts high; the region reaches from x = 300 to 560.
    assert rows.max() - rows.min() + 1 == 29
    assert (rows.min() + rows.max()) / 2 == pytest.approx(150, abs=8)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(430, abs=8)
    assert columns.min() > 300
    assert columns.max() < 560
    assert same(pixels, GREEN).any()
    # Too narrow for its name.
    assert not same(pixels, BLUE).any()


def test_names_stay_inside_regions_of_any_shape():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, (6, 9)).astype(np.uint8)
    pixels = named(labels, scale=70, text=11)
    large = labels.repeat(70, axis=0).repeat(70, axis=1)
    for index, colour in enumerate(PALETTE):
        written = same(pixels, colour)
        assert written.any()
        assert (large[written] == index).all()


def test_mistakes_are_red_and_what_is_ignored_is_grey():
    truth, labels = HALVES.copy(), HALVES.copy()
    truth[0, :2] = IGNORED
    labels[0, 0], labels[1, 1], labels[2, 6] = 1, 2, IGNORED
    pixels = marked(labels, truth, scale=20)
    red = same(pixels, WRONG, 60)
    assert red[30, 30]
    assert red[50, 130]
    assert red.mean() == pytest.approx(2 / 32)
    assert same(pixels[:20, :40], QUIET).mean() > 0.5
    assert same(pixels[60:], tuple(pixels[79, 0])).all()


def test_what_is_ignored_is_no_mistake_in_a_smaller_picture_either():
    truth = np.tile(np.array([0, IGNORED], np.uint8), (4, 8))
    canvas = Image.new("RGB", (8, 2), BLACK)
    pixels = np.asarray(mark_mistakes(canvas, np.zeros_like(truth), truth, 1), int)
    assert (pixels[..., 0] <= pixels[..., 2]).all()


def test_a_legend_holds_chips_names_and_values():
    strip = draw_legend([Entry("sky", RED, "62%"), Entry("road", GREEN, "38%")], 400, 20, 3)
    assert strip.width == 400
    pixels = np.asarray(strip)
    red, green = (np.flatnonzero(same(pixels, colour).any(axis=0)) for colour in (RED, GREEN))
    assert len(red) == len(green) == 17
    assert red.max() < green.min()
    for ink in (INK, SOFT_INK):
        assert words_in(strip, ink).any()
    assert strip.height == 35 + 18


def test_legends_break_into_rows_of_equal_length():
    entries = [Entry(name, RED) for name in "abcdefg"]
    longest = 28 + round(max(font_for(name, 20).getlength(name) for name in "abcdefg") + 0.5) + 32
    strip = draw_legend(entries, 36 + 6 * longest, 20, 9)
    assert strip.height == 2 * 35 + 18
    chips = same(np.asarray(strip), RED)
    starts = [int((np.diff(row.astype(int)) == 1).sum()) for row in (chips[:44].any(axis=0), chips[44:].any(axis=0))]
    assert starts == [4, 3]


def test_a_legend_says_how_many_it_has_no_room_for():
    entries = [Entry(f"class {index}", RED) for index in range(50)]
    strip = draw_legend(entries, 300, 20, 2)
    assert strip.height == 2 * 35 + 18
    few = draw_legend(entries[:4], 300, 20, 2)
    assert same(np.asarray(strip), RED).sum() == 3 / 4 * same(np.asarray(few), RED).sum()


def test_long_names_stay_inside():
    strip = draw_legend([Entry("Arabian camel " * 9, RED, "100%"), Entry("x", None)], 200, 20, 5)
    assert same(np.asarray(strip)[:, -10:], PAPER).all()
