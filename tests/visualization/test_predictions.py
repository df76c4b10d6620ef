"""Contact sheets: their size, what is painted where, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from internimage.structures import Classification, LabelMap
from internimage.visualization.card import CardStyle
from internimage.visualization.classification import draw_prediction, draw_predictions
from internimage.visualization.style import BLUE, LINE, PAPER, QUIET, RIGHT, WRONG

LABELS = LabelMap(("Shirt", "Coat", "Ankle boot", "Bag"))
RESULT = Classification((0.1, 0.5, 0.3, 0.1), LABELS)
GAP, CELL = 10, 168


def rgb(colour: str) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)


def grey_picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8))


def card_pixels(sheet: Image.Image) -> np.ndarray:
    """The first card of a sheet with the default cell, without the picture."""
    return np.asarray(sheet.crop((GAP, GAP + CELL, GAP + CELL, sheet.height - GAP)))


def share_of_bar(pixels: np.ndarray, colour: str, padding: int = 10) -> float:
    """Length of the longest bar painted in ``colour``, relative to the room a bar has."""
    return float((pixels == rgb(colour)).all(axis=2).sum(axis=1).max() / (CELL - 2 * padding))


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (5, 5), (6, 6), (7, 4), (10, 5), (11, 6), (12, 6), (16, 4), (25, 5)]
)
def test_rows_are_filled_evenly(count, columns):
    sheet = draw_predictions([grey_picture()] * count, [RESULT] * count)
    rows = -(-count // columns)
    height = CardStyle(CELL, bars=3, graded=False).height
    assert sheet.mode == "RGB"
    assert sheet.size == (columns * (CELL + GAP) + GAP, rows * (height + GAP) + GAP)


def test_columns_and_cell_are_obeyed():
    sheet = draw_predictions([grey_picture()] * 3, [RESULT] * 3, columns=2, cell=336)
    assert sheet.size == (2 * 336 + 3 * 20, 2 * CardStyle(336, bars=3, graded=False).height + 3 * 20)


def test_six_default_cards_fit_the_page_pixel_by_pixel():
    assert draw_predictions([grey_picture()] * 6, [RESULT] * 6).width == 1080 - 2


def test_tiny_grey_pictures_keep_square_pixels():
    picture = grey_picture()
    sheet = draw_predictions([picture], [RESULT])
    shown = np.asarray(sheet.crop((GAP, GAP, GAP + CELL, GAP + CELL)))
    expected = np.kron(np.asarray(picture), np.ones((6, 6), np.uint8))[..., None].repeat(3, axis=2)
    # The card's round corners take the outermost pixels.
    np.testing.assert_array_equal(shown[8:-1], expected[8:-1])


def test_a_factor_that_is_not_whole_still_fills_the_picture_sharply():
    board = Image.fromarray((np.indices((50, 50)).sum(axis=0) % 2 * 255).astype(np.uint8))
    shown = np.asarray(draw_predictions([board], [RESULT]).crop((GAP, GAP + 8, GAP + CELL, GAP + CELL)))[..., 0]
    assert ((shown < 5) | (shown > 250)).mean() > 0.4


def test_large_pictures_keep_their_aspect_and_colours():
    pixels = np.zeros((500, 1000, 3), np.uint8)
    pixels[:, :500], pixels[:, 500:] = (200, 0, 0), (0, 0, 200)
    sheet = draw_predictions([Image.fromarray(pixels)], [RESULT])
    middle, top = GAP + CELL // 2, GAP + CELL // 4
    assert sheet.getpixel((GAP + 20, middle)) == (200, 0, 0)
    assert sheet.getpixel((GAP + CELL - 20, middle)) == (0, 0, 200)
    assert sheet.getpixel((middle, top - 3)) == rgb(PAPER)
    assert sheet.getpixel((middle, top + 3)) != rgb(PAPER)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "HSV"])
def test_every_mode_is_drawn(mode):
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    picture = ramp.convert("I").convert(mode) if mode == "I;16" else ramp.convert(mode)
    shown = np.asarray(draw_predictions([picture], [RESULT]).crop((GAP, GAP, GAP + CELL, GAP + CELL)).convert("L"))
    assert shown[80, -5] > shown[80, 5] + 150


def test_sixteen_bit_pictures_are_not_clipped():
    picture = Image.fromarray(np.tile(np.linspace(0, 65535, 168).astype(np.uint16), (168, 1)))
    shown = np.asarray(draw_predictions([picture], [RESULT]).crop((GAP, GAP, GAP + CELL, GAP + CELL)))[80, :, 0]
    assert shown[84] == pytest.approx(128, abs=3)


def test_transparency_becomes_paper():
    sheet = draw_predictions([Image.new("RGBA", (28, 28), (255, 0, 0, 0))], [RESULT])
    assert sheet.getpixel((GAP + 80, GAP + 80)) == rgb(PAPER)


@pytest.mark.parametrize(("truth", "accent"), [([1], RIGHT), ([2], WRONG), (None, BLUE)])
def test_the_accent_says_whether_the_answer_is_right(truth, accent):
    sheet = draw_predictions([grey_picture()], [RESULT], truth)
    assert {sheet.getpixel((GAP + x, GAP + CELL + 1)) for x in range(CELL)} == {rgb(accent)}
    others = {RIGHT, WRONG, BLUE} - {accent, RIGHT if accent == WRONG else accent}
    colours = {tuple(pixel) for pixel in card_pixels(sheet).reshape(-1, 3).tolist()}
    assert not colours & {rgb(other) for other in others}


def test_right_and_wrong_differ_without_colour():
    right, wrong = (draw_predictions([grey_picture()], [RESULT], [truth]) for truth in (1, 2))
    mark = (GAP + 10, GAP + CELL + 15, GAP + 20, GAP + CELL + 25)
    tick, cross = (np.asarray(sheet.crop(mark).convert("L")) < 200 for sheet in (right, wrong))
    assert tick.sum() > 8
    assert cross.sum() > 8
    assert (cross == cross[:, ::-1]).mean() > 0.9
    assert (tick == tick[:, ::-1]).mean() < 0.8


def test_bars_are_as_long_as_the_probabilities():
    pixels = card_pixels(draw_predictions([grey_picture()], [RESULT]))[10:]
    assert share_of_bar(pixels, BLUE) == pytest.approx(0.5, abs=0.05)
    assert share_of_bar(pixels, QUIET) == pytest.approx(0.3, abs=0.05)


def test_the_true_class_is_green_among_the_others():
    pixels = card_pixels(draw_predictions([grey_picture()], [RESULT], [2]))[10:]
    assert share_of_bar(pixels, WRONG) == pytest.approx(0.5, abs=0.05)
    assert share_of_bar(pixels, RIGHT) == pytest.approx(0.3, abs=0.05)


def test_a_probability_of_zero_has_no_bar():
    pixels = card_pixels(draw_predictions([grey_picture()], [Classification((1.0, 0.0, 0.0, 0.0), LABELS)]))[10:]
    assert share_of_bar(pixels, QUIET) == 0
    assert share_of_bar(pixels, LINE) > 0.9


@pytest.mark.parametrize("name", ["Arabian camel, dromedary, Camelus dromedarius " * 3, "W" * 400, "two\nlines " * 20])
def test_long_names_stay_inside_the_card(name):
    result = Classification((0.6, 0.4), LabelMap((name, f"not {name}")))
    pixels = card_pixels(draw_predictions([grey_picture()], [result], [1]))
    assert (pixels[4:-10, -9:] == rgb(PAPER)).all()
    assert (pixels[4:-10, :9] == rgb(PAPER)).all()


def test_fewer_classes_than_bars_make_a_shorter_card():
    two = Classification((0.6, 0.4), LabelMap(("cat", "dog")))
    assert draw_predictions([grey_picture()], [two]).height < draw_predictions([grey_picture()], [RESULT]).height


def test_equal_names_do_not_make_a_wrong_index_right():
    labels = LabelMap.telling_apart(("crane", "crane", *map(str, range(998))))
    result = Classification((1.0, *[0.0] * 999), labels)
    sheet = draw_predictions([grey_picture()], [result], [1])
    assert sheet.getpixel((GAP + 80, GAP + CELL + 1)) == rgb(WRONG)


def test_one_prediction_is_a_large_card():
    card = draw_prediction(grey_picture(), RESULT)
    assert card.size == (336 + 40, CardStyle(336, bars=4, graded=False).height + 40)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], []), {}, "no picture"),
        (([grey_picture()], []), {}, "1 images but 0 results"),
        (([grey_picture()], [RESULT], [0, 1]), {}, "2 true classes"),
        (([grey_picture()], [RESULT], [4]), {}, r"true class 4 of image 0 is not in \[0, 4\)"),
        (([grey_picture()], [RESULT], [-1]), {}, "true class -1"),
        (([grey_picture()], [RESULT]), {"columns": 0}, "columns must be at least 1"),
        (([grey_picture()], [RESULT]), {"cell": 20}, "cell must be at least 96"),
        (([Image.new("L", (0, 5))], [RESULT]), {}, "image 0 is empty"),
        (([grey_picture()], [Classification((float("nan"), 1.0), LabelMap(("a", "b")))]), {}, "probabilities"),
        (([grey_picture()], [Classification((), LabelMap(()))]), {}, "probabilities"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        draw_predictions(*arguments, **options)


def test_predictions_need_no_matplotlib():
    program = (
        "import sys; from PIL import Image; from internimage.structures import Classification, LabelMap; "
        "from internimage.visualization.classification import draw_predictions; "
        "draw_predictions([Image.new('L', (9, 9))], [Classification((0.5, 0.5), LabelMap(('a', 'Größe')))]); "
        "sys.exit(any(name.split('.')[0] in ('matplotlib', 'jinja2', 'lightning') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
