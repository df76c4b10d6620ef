"""Pictures of segmentation and their contact sheets: sizes, what stands where, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from internimage.structures import IGNORED, LabelMap, SegmentationMap
from internimage.visualization import segmentation
from internimage.visualization.segmentation import draw_comparison, draw_segmentation, draw_sheet
from internimage.visualization.style import GROUND, PAPER, WRONG

CAMVID = Path(__file__).resolve().parents[3] / "shared" / "data" / "camvid" / "camvid.zip"
CLASSES = LabelMap(("sky", "road", "car"))
PALETTE = ((70, 130, 180), (128, 64, 128), (0, 0, 142))


def map_of(size=(120, 200), *, ignored: int = 0) -> SegmentationMap:
    """A quarter sky and the rest road; as many rows as told are ignored at the bottom."""
    labels = np.ones(size, np.uint8)
    labels[: size[0] // 4] = 0
    labels[size[0] - ignored :] = IGNORED
    return SegmentationMap(labels, CLASSES, PALETTE)


def photo(width=200, height=120) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 180, 180))


def colours_of(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.getcolors(image.width * image.height)}


def entries_of(maps, **options) -> list[tuple[str, str]]:
    return [(entry.name, entry.value) for entry in segmentation._entries(maps, **options)]


@pytest.mark.parametrize(
    ("size", "factor"), [((200, 120), 3), ((480, 20), 1), ((96, 96), 5), ((28, 28), 18), ((1, 2000), 1), ((1, 1), 480)]
)
def test_small_pictures_are_enlarged_by_whole_factors(size, factor):
    width, height = size
    picture = draw_segmentation(photo(width, height), map_of((height, width)), legend=False)
    assert picture.mode == "RGB"
    assert picture.size == (width * factor, height * factor)


def test_the_legend_is_below_the_picture():
    with_legend, without = (draw_segmentation(photo(), map_of(), legend=legend) for legend in (True, False))
    assert with_legend.width == without.width == 600
    np.testing.assert_array_equal(with_legend.crop((0, 0, 600, 360)), without)
    strip = with_legend.crop((0, 360, 600, with_legend.height))
    assert {*PALETTE[:2], ImageColor.getrgb(PAPER)} <= colours_of(strip)
    assert PALETTE[2] not in colours_of(strip)


def test_narrow_pictures_have_a_legible_legend():
    picture = draw_segmentation(photo(20, 600), map_of((600, 20)))
    assert picture.width == 220
    assert picture.getpixel((50, 300)) == ImageColor.getrgb(PAPER)


def test_opacity_goes_from_the_picture_to_the_colours():
    clear, full = (draw_segmentation(photo(), map_of(), opacity=opacity, names=False) for opacity in (0, 1))
    assert full.getpixel((300, 300)) == PALETTE[1]
    red, green, blue = clear.getpixel((300, 300))
    assert red == green == blue


def test_shares_are_those_of_all_pixels_the_largest_first():
    assert entries_of([map_of(ignored=30)], with_shares=True) == [("road", "50%"), ("sky", "25%"), ("ignored", "25%")]
    everything = replace(map_of(), labels=np.full((4, 4), IGNORED, np.uint8))
    assert entries_of([everything], with_shares=True) == [("ignored", "100%")]
    rare = replace(map_of(), labels=np.eye(200, dtype=np.uint8))
    assert entries_of([rare], with_shares=True) == [("sky", ">99%"), ("road", "<1%")]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "F", "CMYK"])
def test_every_mode_is_drawn(mode):
    ramp = Image.fromarray(np.tile(np.arange(0, 200, dtype=np.uint8), (120, 1)))
    picture = ramp.convert("I").convert(mode) if mode == "I;16" else ramp.convert(mode)
    assert PALETTE[1] in colours_of(draw_segmentation(picture, map_of(), opacity=1))


def test_255_classes_are_drawn():
    palette = tuple((index, 255 - index, 128) for index in range(255))
    found = SegmentationMap(np.arange(256, dtype=np.uint8).reshape(16, 16), LabelMap.numbered(255), palette)
    assert set(palette) <= colours_of(draw_segmentation(photo(16, 16), found, opacity=1, scale=12))


def test_a_sheet_has_one_legend_and_cards_of_one_size():
    images, found = [photo(), photo(120, 200), photo()], [map_of(), map_of((200, 120)), map_of(ignored=20)]
    # 18 of a legend's row and 9 around it, 10 between; the portrait makes the rows square; a line of 27 stands below.
    legend = 18 + 9 + 10
    assert draw_sheet(images, found, cell=260).size == (3 * 260 + 4 * 10, legend + 260 + 27 + 20)
    assert draw_sheet(images, found, columns=2, cell=260).size == (2 * 260 + 3 * 10, legend + 2 * (260 + 27) + 30)
    captioned = draw_sheet(images, found, captions=["a", "b", "c"], cell=260)
    assert captioned.height == legend + 260 + 27 + 18 + 20
    assert captioned.getpixel((5, 5)) == ImageColor.getrgb(GROUND)


def test_a_sheet_says_the_largest_classes_that_fit():
    style = segmentation.SheetStyle(260, 100, has_captions=False)
    assert segmentation._largest(map_of(), style) == "road 75% · sky 25%"
    names = LabelMap(tuple(f"Arabian camel {index}" for index in range(9)))
    crowd = SegmentationMap(np.tile(np.arange(9), (4, 4)), names, PALETTE * 3)
    assert segmentation._largest(crowd, style) == "Arabian camel 0 11% · Arabian camel 1 11%"


def test_one_column_of_comparisons_is_as_wide_as_the_page():
    images, found = [photo()] * 2, [map_of()] * 2
    assert draw_comparison(images, found, found).width == 2 * 1078
    assert draw_comparison(images, found, found, cell=260).width == 1078


def test_picture_truth_prediction_and_mistakes():
    truth = map_of(ignored=24)
    found = replace(truth, labels=np.full((120, 200), 1, np.uint8))
    sheet = np.asarray(draw_comparison([photo()], [found], [truth], cell=260))
    top = sheet.shape[0] - 10 - 27 - 156
    picture, shown_truth, shown_found, mistakes = (
        sheet[top : top + 156, left : left + 260].astype(int) for left in (10, 276, 542, 808)
    )
    assert (picture[20:100, 20:200] == (200, 180, 180)).all()
    assert shown_truth[20, 100, 2] > shown_truth[80, 100, 2]
    assert (shown_found[5:150, 100] == shown_found[80, 100]).all()
    np.testing.assert_array_equal(shown_found[80, 100], shown_truth[80, 100])
    # The sky is taken for road, the lowest rows are ignored.
    red, green = mistakes[..., 0], mistakes[..., 1]
    assert (red - green > 80)[2:38, 20:240].all()
    assert not (red - green > 20)[42:].any()
    assert (mistakes[130:150, 20:240].std(axis=(0, 1)) > 5).all()


def test_mistakes_are_counted_where_there_is_truth():
    truth = map_of(ignored=60)
    found = replace(truth, labels=np.full((120, 200), 1, np.uint8))
    assert segmentation._mistakes(found, truth) == "mistakes 50%"
    assert segmentation._mistakes(truth, truth) == "mistakes 0%"
    nothing = replace(truth, labels=np.full((120, 200), IGNORED, np.uint8))
    assert segmentation._mistakes(found, nothing) == "nothing to compare"
    # What is said to be of no class is wrong where there is one.
    assert segmentation._mistakes(nothing, truth) == "mistakes 100%"


def test_the_legend_of_a_comparison_has_all_that_is_shown():
    truth, found = map_of(ignored=20), replace(map_of(), labels=np.full((120, 200), 2, np.uint8))
    legend = draw_comparison([photo()], [found], [truth], cell=520).crop((0, 0, 2156, 70))
    assert {*PALETTE, ImageColor.getrgb(WRONG)} <= colours_of(legend)


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (1, 1)])
def test_slivers_have_a_card(size):
    found = map_of(size)
    assert draw_comparison([photo(size[1], size[0])], [found], [found], captions=["odd"]).width == 2156
    assert draw_segmentation(photo(size[1], size[0]), found).mode == "RGB"


OTHER = replace(map_of(), palette=PALETTE[::-1])


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (photo(100, 120), {}, "the image has 100 x 120 pixels but its classes are those of one of 200 x 120"),
        (Image.new("L", (0, 5)), {}, "the image is empty"),
        (photo(), {"opacity": 55}, r"opacity must be in \[0, 1\], got 55"),
        (photo(), {"scale": 0}, "scale must be a positive number, got 0"),
        (photo(), {"scale": float("nan")}, "scale must be a positive number"),
    ],
)
def test_bad_pictures_are_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        draw_segmentation(image, map_of(), **options)


@pytest.mark.parametrize(
    ("lists", "options", "message"),
    [
        (([], [], []), {}, "no picture"),
        (([photo()], [], []), {}, "1 images but 0 predictions"),
        (([photo()], [map_of()], []), {}, "1 images but 0 truths"),
        (([photo()], [map_of()], [map_of()]), {"captions": []}, "1 images but 0 captions"),
        (([photo()] * 2, [map_of()] * 2, [map_of(), map_of((5, 5))]), {}, "image 1 has 200 x 120 pixels"),
        (([photo()] * 2, [map_of()] * 2, [map_of(), OTHER]), {}, "number 1 of the truths has other classes or colours"),
        (([photo()], [map_of()], [map_of()]), {"columns": 0}, "columns must be at least 1"),
        (([photo()], [map_of()], [map_of()]), {"cell": 20}, "cell must be at least 130"),
    ],
)
def test_bad_sheets_are_refused(lists, options, message):
    with pytest.raises(ValueError, match=message):
        draw_comparison(*lists, **options)


def test_drawing_needs_neither_matplotlib_nor_the_page():
    program = (
        "import sys, numpy as np; from PIL import Image; from internimage.structures import SegmentationMap, LabelMap; "
        "from internimage.visualization.segmentation import draw_sheet; "
        "found = SegmentationMap(np.zeros((9, 9), np.uint8), LabelMap(('a',)), ((1, 2, 3),)); "
        "draw_sheet([Image.new('L', (9, 9))], [found]); "
        "sys.exit(any(name.split('.')[0] in ('matplotlib', 'jinja2', 'lightning') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.shared
def test_a_real_street_is_coloured_where_it_is():
    if not CAMVID.is_file():
        pytest.skip("the streets are not here")
    with zipfile.ZipFile(CAMVID) as archive:
        image = Image.open(io.BytesIO(archive.read("images/test/0001TP_008550.jpg"))).convert("RGB")
        labels = np.array(Image.open(io.BytesIO(archive.read("labels/test/0001TP_008550.png"))))
    labels[labels == 11] = IGNORED
    palette = tuple((23 * index, 250 - 20 * index, 90) for index in range(11))
    found = SegmentationMap(labels, LabelMap.numbered(11), palette)
    pixels = np.asarray(draw_segmentation(image, found, opacity=1, legend=False, names=False))
    shown = {label: (pixels[labels == label] == palette[label]).all(axis=1).mean() for label in (0, 1, 3, 5, 8)}
    assert min(shown.values()) > 0.7
    entries = segmentation._entries([found], with_shares=True)
    assert [entry.name for entry in entries][:3] == ["class 1", "class 0", "class 3"]
    assert entries[-1].name == "ignored"
