"""Names and colours: of well-known sets, of files, and colours that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.data.label_maps import read_label_map
from internimage.data.segmentation import KNOWN, find_palette, label_image, read_classes, read_palette, spread_palette
from internimage.data.segmentation.palettes import IGNORED_COLOUR
from internimage.structures import LabelMap

NUMBERS = {"ade20k": 150, "cityscapes": 19, "coco_stuff": 171, "nyu_depth_v2": 40, "pascal_context_59": 59}


@pytest.mark.parametrize("name", KNOWN)
def test_well_known_sets(name: str) -> None:
    labels, palette = read_classes(name)
    assert len(labels) == NUMBERS[name]
    assert all(label == label.strip() for label in labels)
    assert palette is None or len(palette) == len(labels)


def test_a_few_of_each_by_hand() -> None:
    labels, palette = read_palette("ade20k")
    assert (labels[0], palette[0]) == ("wall", (120, 120, 120))
    assert (labels[7], palette[7]) == ("bed", (204, 5, 255))
    assert (labels[149], palette[149]) == ("flag", (92, 0, 255))
    labels, palette = read_palette("cityscapes")
    assert (labels[13], palette[13]) == ("car", (0, 0, 142))
    assert read_classes("coco_stuff").labels[170] == "wood"
    assert read_classes("pascal_context_59").labels[54] == "tvmonitor"
    assert read_classes("nyu_depth_v2").labels[39] == "otherprop"


FILES = {
    "names": ("sky\nroad, paved\n", None, ("sky", "road, paved")),
    "colours": ("128 64 128 the road\n0 0 142\tcar\n", ((128, 64, 128), (0, 0, 142)), ("the road", "car")),
    "commas": ("128, 64, 128, road\n0,0,142,car\n\n", ((128, 64, 128), (0, 0, 142)), ("road", "car")),
    "table": ("name, r, g, b\nroad,128,64,128\n'car',0,0,142\n", ((128, 64, 128), (0, 0, 142)), ("road", "'car'")),
    "alone": ("1 2 3\n4 5 6\n", ((1, 2, 3), (4, 5, 6)), ("class 0", "class 1")),
    "windows": ("\ufeffsky\r\nroad\r\n", None, ("sky", "road")),
}


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, tmp_path: Path) -> None:
    text, palette, names = FILES[case]
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
    found = read_classes(tmp_path / "a.txt")
    assert (found.labels.names, found.palette) == (names, palette)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no classes; write one per line"),
        ("sky\n\nroad\n", r"has empty lines \(2\); every line is a class"),
        ("sky\nsky\n", "class names must be unique, but sky occurs"),
        ("1 2 3 sky\nroad\n", "has 1 lines with a colour and 1 without"),
        ("1 2 300 sky\n", "three whole numbers from 0 to 255, got 1, 2, 300"),
        ("name,r,g,b\nsky,1,x,3\n", "three whole numbers from 0 to 255, got 1, x, 3"),
        ("\n".join(map(str, range(256))), "has 256 classes; a label map can tell 255 apart"),
        ("\n".join(map(str, range(300))), "has 300 lines; a label map can tell 255 classes apart"),
    ],
)
def test_files_that_make_no_sense(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"a.txt.*{message}"):
        read_classes(tmp_path / "a.txt")


def test_no_file_and_no_colours(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no file cityscape of class names, and the sets known by name are ade20k, cit"
    ):
        read_classes("cityscape")
    with pytest.raises(
        ValueError, match=r"coco_stuff lists names without colours; .* there are ade20k, cityscapes, too"
    ):
        read_palette("coco_stuff")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cannot read the class names in .*a.txt: .*UTF-8"):
        read_classes(tmp_path / "a.txt")


def test_which_palette(tmp_path: Path) -> None:
    assert find_palette(read_classes("cityscapes").labels) == read_palette("cityscapes")[1]
    assert find_palette(read_classes("coco_stuff").labels) == spread_palette(171)
    first, second = spread_palette(2)
    assert find_palette(LabelMap(("a", "background", "b"))) == (first, (0, 0, 0), second)
    (tmp_path / "a.txt").write_text("1 2 3 sky\n4 5 6 road\n", encoding="utf-8")
    assert find_palette(LabelMap(("a", "b")), tmp_path / "a.txt") == ((1, 2, 3), (4, 5, 6))
    with pytest.raises(ValueError, match=r"a.txt has colours of 2 classes, but there are 3"):
        find_palette(LabelMap.numbered(3), tmp_path / "a.txt")


def test_spread_colours_differ() -> None:
    colours = spread_palette(255)
    assert len({*colours, (0, 0, 0), (255, 255, 255), IGNORED_COLOUR}) == 258
    assert colours[:11] == spread_palette(11)
    assert spread_palette(0) == ()
    values = np.array(colours[:20], float)
    distances = np.linalg.norm(values[:, None] - values, axis=-1) + 1e3 * np.eye(20)
    assert distances.min() > 50, "twenty are far apart in plain RGB, too"
    with pytest.raises(ValueError, match="there can be 255 classes, got 256"):
        spread_palette(256)


def test_label_images_keep_numbers_and_show_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [254, 255, 0]])
    palette = spread_palette(255)
    label_image(labels, palette).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), labels)
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    for value, colour in zip(labels.ravel(), shown.reshape(-1, 3).tolist(), strict=True):
        assert tuple(colour) == (*palette, IGNORED_COLOUR)[value]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 2]], r"labels must lie in \[0, 2\) or be 255, got \[2\]"),
        ([[-1]], r"got \[-1\]"),
        ([[0.5]], r"integers of shape \(H, W\), got float64"),
        ([0], r"got int64 of shape \(1,\)"),
    ],
)
def test_labels_without_a_colour(labels: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_image(labels, ((0, 0, 0), (1, 1, 1)))
