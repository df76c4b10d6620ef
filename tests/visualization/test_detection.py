"""Pictures of detections and their contact sheets: sizes, what stands where, and what is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from internimage.structures import Detections, LabelMap
from internimage.visualization.detection import draw_comparison, draw_detections, draw_sheet
from internimage.visualization.style import CLASS_COLOURS, GROUND, PAPER

BCCD = Path(__file__).resolve().parents[3] / "shared" / "data" / "bccd" / "bccd.zip"
LABELS = LabelMap(("RBC", "WBC", "Platelets"))
BOXES = np.array([[20, 30, 80, 90], [100, 20, 180, 100], [60, 70, 120, 110]], np.float32)


def rgb(colour: str) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)


def found_in(size=(120, 200), count=3, **fields) -> Detections:
    scores = np.array([0.9, 0.8, 0.3][:count])
    return replace(Detections(BOXES[:count], scores, np.arange(3)[:count], LABELS, size), **fields)


def photo(width=200, height=120) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 180, 180))


def colours_of(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.getcolors(image.width * image.height)}


@pytest.mark.parametrize(
    ("size", "factor"),
    [((200, 120), 3), ((480, 20), 1), ((479, 100), 2), ((28, 28), 18), ((1, 2000), 1), ((1, 1), 480)],
)
def test_small_pictures_are_enlarged_by_whole_factors(size, factor):
    width, height = size
    picture = draw_detections(photo(width, height), found_in((height, width), 0))
    assert picture.mode == "RGB"
    assert picture.size == (width * factor, height * factor)


def test_boxes_follow_the_scale():
    picture = draw_detections(photo(), found_in(count=1), scale=2)
    assert picture.size == (400, 240)
    assert picture.getpixel((40, 120)) == rgb(CLASS_COLOURS[0])
    assert picture.getpixel((159, 120)) == rgb(CLASS_COLOURS[0])
    assert picture.getpixel((100, 120)) == (200, 180, 180)


def test_a_class_keeps_its_colour_whatever_else_is_there():
    alone = draw_detections(photo(), found_in().take(np.array([2])))
    together = draw_detections(photo(), found_in())
    assert rgb(CLASS_COLOURS[2]) in colours_of(alone)
    assert rgb(CLASS_COLOURS[0]) not in colours_of(alone)
    assert {rgb(colour) for colour in CLASS_COLOURS[:3]} <= colours_of(together)


def test_low_scores_are_left_out():
    colours = colours_of(draw_detections(photo(), found_in(), score=0.5))
    assert rgb(CLASS_COLOURS[1]) in colours
    assert rgb(CLASS_COLOURS[2]) not in colours


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "F", "CMYK"])
def test_every_mode_is_drawn(mode):
    ramp = Image.fromarray(np.tile(np.arange(0, 200, dtype=np.uint8), (120, 1)))
    picture = ramp.convert("I").convert(mode) if mode == "I;16" else ramp.convert(mode)
    assert rgb(CLASS_COLOURS[0]) in colours_of(draw_detections(picture, found_in()))


def test_the_picture_given_is_not_changed():
    picture = photo(600, 400)
    draw_detections(picture, found_in((400, 600)))
    assert colours_of(picture) == {(200, 180, 180)}


def test_a_thousand_classes_and_objects_are_drawn():
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 600, (1000, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(2, 40, (1000, 2))], axis=1)
    found = Detections(boxes, generator.random(1000), np.arange(1000), LabelMap.numbered(1000), (640, 640))
    assert len(colours_of(draw_detections(photo(640, 640), found))) > 500


def test_a_sheet_has_cards_of_one_size():
    images, found = [photo(), photo(120, 200), photo()], [found_in(), found_in((200, 120)), found_in(count=0)]
    # The portrait makes the rows square; 27 of the 260 units of a card's width are the line below.
    assert draw_sheet(images, found, cell=260).size == (3 * 260 + 4 * 10, 260 + 27 + 20)
    assert draw_sheet(images, found, columns=2, cell=260).size == (2 * 260 + 3 * 10, 2 * (260 + 27) + 30)
    captioned = draw_sheet(images, found, captions=["a", "b", "c"], cell=260)
    assert captioned.height == 260 + 27 + 18 + 20
    assert draw_sheet(images[:1], found[:1], cell=260).height == 156 + 27 + 20


def test_two_columns_of_comparisons_are_as_wide_as_the_page():
    images, found = [photo()] * 2, [found_in()] * 2
    assert draw_comparison(images, found, found).width == 2 * 1078
    assert draw_comparison(images, found, found, cell=260).width == 1078


def test_the_truth_stands_right_of_the_prediction():
    sheet = draw_comparison([photo()], [found_in(count=1)], [found_in(count=2)], cell=260)
    left, right = (colours_of(sheet.crop((x, 10, x + 260, 10 + 156))) for x in (10, 274))
    assert sheet.getpixel((272, 80)) == rgb(PAPER)
    assert sheet.getpixel((5, 5)) == rgb(GROUND)
    assert rgb(CLASS_COLOURS[1]) in right - left


def test_the_legend_shows_the_classes_that_are_there():
    sheet = draw_comparison([photo()], [found_in(count=1)], [found_in(count=3)], cell=260)
    left, right = (colours_of(sheet.crop((x, 166, x + 260, sheet.height))) for x in (10, 274))
    assert rgb(CLASS_COLOURS[0]) in left
    assert rgb(CLASS_COLOURS[2]) not in left
    assert {rgb(colour) for colour in CLASS_COLOURS[:3]} <= right


def test_long_legends_and_captions_stay_inside_the_card():
    labels = LabelMap(tuple(f"Arabian camel number {index}" for index in range(30)))
    found = Detections(np.tile(BOXES[:1], (30, 1)), np.ones(30), np.arange(30), labels, (120, 200))
    sheet = draw_sheet([photo()], [found], captions=["a long path/" * 40], cell=260)
    margin = np.asarray(sheet.crop((262, 10 + 156, 269, sheet.height - 19)))
    assert (margin == rgb(PAPER)).all()


def test_scores_below_the_limit_are_not_counted_and_truths_always_are():
    whole, part = (draw_comparison([photo()], [found_in()], [found_in()], cell=260, score=s) for s in (0.0, 0.5))
    right = (274, 0, 534, whole.height)
    left = (10, 166, 270, whole.height)
    assert rgb(CLASS_COLOURS[2]) in colours_of(part.crop(right))
    assert rgb(CLASS_COLOURS[2]) not in colours_of(part.crop(left))


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (1, 1)])
def test_slivers_have_a_card(size):
    found = found_in(size, masks=np.ones((3, *size), bool))
    assert draw_comparison([photo(size[1], size[0])], [found], [found], captions=["odd"]).width == 1088


@pytest.mark.parametrize(
    ("image", "fields", "options", "message"),
    [
        (photo(100, 120), {}, {}, "the image has 100 x 120 pixels but its objects are those of one of 200 x 120"),
        (Image.new("L", (0, 5)), {}, {}, "the image is empty"),
        (photo(), {"boxes": [[0, 0, np.nan, 5]] * 3}, {}, "box 0 of the image is"),
        (photo(), {"boxes": [[0, 0, 5, 5], [9, 0, 5, 5], [0, 0, 5, 5]]}, {}, "box 1 of the image is"),
        (photo(), {}, {"score": 90}, r"score must be in \[0, 1\], got 90"),
        (photo(), {}, {"scale": 0}, "scale must be a positive number, got 0"),
        (photo(), {}, {"scale": float("nan")}, "scale must be a positive number"),
    ],
)
def test_bad_pictures_are_refused(image, fields, options, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(image, found_in(**fields), **options)


@pytest.mark.parametrize(
    ("lists", "options", "message"),
    [
        (([], [], []), {}, "no picture"),
        (([photo()], [], []), {}, "1 images but 0 predictions"),
        (([photo()], [found_in()], []), {}, "1 images but 0 truths"),
        (([photo()], [found_in()], [found_in()]), {"captions": []}, "1 images but 0 captions"),
        (([photo()] * 2, [found_in()] * 2, [found_in(), found_in((5, 5))]), {}, "image 1 has 200 x 120 pixels"),
        (([photo()], [found_in()], [found_in()]), {"columns": 0}, "columns must be at least 1"),
        (([photo()], [found_in()], [found_in()]), {"cell": 20}, "cell must be at least 130"),
        (([photo()], [found_in()], [found_in()]), {"score": -1}, "score must be"),
    ],
)
def test_bad_sheets_are_refused(lists, options, message):
    with pytest.raises(ValueError, match=message):
        draw_comparison(*lists, **options)


def test_drawing_needs_neither_matplotlib_nor_the_page():
    program = (
        "import sys, numpy as np; from PIL import Image; from internimage.structures import Detections, LabelMap; "
        "from internimage.visualization.detection import draw_sheet; "
        "found = Detections(np.ones((1, 4)), np.ones(1), np.zeros(1), LabelMap(('a',)), (9, 9)); "
        "draw_sheet([Image.new('L', (9, 9))], [found]); "
        "sys.exit(any(name.split('.')[0] in ('matplotlib', 'jinja2', 'lightning') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.shared
def test_real_cells_are_boxed_where_they_are():
    if not BCCD.is_file():
        pytest.skip("the blood cells are not here")
    with zipfile.ZipFile(BCCD) as archive:
        told = json.loads(archive.read("annotations/val.json"))
        entry = told["images"][0]
        with Image.open(io.BytesIO(archive.read(f"images/val/{entry['file_name']}"))) as opened:
            image = opened.convert("RGB")
    cells = [each for each in told["annotations"] if each["image_id"] == entry["id"]]
    corners = np.array([each["bbox"] for each in cells]) @ np.array(
        [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    labels = np.array([each["category_id"] - 1 for each in cells])
    found = Detections(corners, np.ones(len(cells)), labels, LABELS, (image.height, image.width))
    changed = np.abs(np.asarray(draw_detections(image, found), int) - np.asarray(image)).max(-1) > 20
    assert 0.02 < changed.mean() < 0.3
    left, top, right, bottom = corners[int(np.argmax(labels == 1))].astype(int)
    assert changed[top : bottom - 1, left].all()
    assert changed[bottom - 1, left : right - 1].all()
