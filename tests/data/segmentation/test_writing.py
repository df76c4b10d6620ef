"""Label maps as files: what scenes export is read again; colours become class numbers, or a clear word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.data.label_maps import label_map_folders, read_label_map
from internimage.data.scenes import Scenes, export_coco
from internimage.data.segmentation import LabelMapPictures, LabelRules, SceneMaps, find_classes
from internimage.data.segmentation.writing import convert_colours, export_scene_maps
from internimage.structures import Colour, LabelMap

LABELS = LabelMap(("sky", "road", "wall"))
PALETTE: tuple[Colour, ...] = ((0, 0, 255), (128, 64, 128), (7, 7, 7))
NUMBERS = np.array([[0, 1, 2], [2, 2, 255]])


def coloured(numbers: np.ndarray = NUMBERS, *more: Colour) -> Image.Image:
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(PALETTE) + len(more)] = (*PALETTE, *more)
    return Image.fromarray(colours[numbers])


def test_scenes_are_a_set_of_label_maps(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    scenes = [Scenes("train", 3, size=(64, 64)), Scenes("val", 2, size=(64, 64))]
    export_coco(tmp_path, *scenes)
    sources = [SceneMaps(each) for each in scenes]
    assert export_scene_maps(tmp_path, *sources) == [tmp_path / "labels/train", tmp_path / "labels/val"]
    rules = LabelRules(find_classes(tmp_path))
    for expected, places in zip(sources, label_map_folders(tmp_path).values(), strict=True):
        found = LabelMapPictures(places, rules)
        assert (len(found), found.labels, found.palette) == (len(expected), expected.labels, expected.palette)
        for index in range(len(found)):
            np.testing.assert_array_equal(found.read(index).labels, expected.read(index).labels)
            assert found.read(index).image.tobytes() == expected.read(index).image.tobytes()
            assert found.name(index) == f"{expected.name(index)}.png"
    with pytest.raises(ValueError, match=r"classes.txt, .*labels/train, .*labels/val would be overwritten"):
        export_scene_maps(tmp_path, *sources)


def test_colours_become_numbers(tmp_path: Path) -> None:
    """RGB, with transparency, with a palette of another order, or grey; in subfolders; under the same names."""
    (tmp_path / "in/town").mkdir(parents=True)
    coloured().save(tmp_path / "in/a.png")
    coloured().convert("RGBA").save(tmp_path / "in/town/b.tif")
    coloured().quantize(8, dither=Image.Dither.NONE).save(tmp_path / "in/c.png")
    Image.new("L", (3, 2), 7).save(tmp_path / "in/d.bmp")
    written = convert_colours(tmp_path / "in", tmp_path / "out", LABELS, PALETTE, [(0, 0, 0)])
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "a.png",
        "c.png",
        "d.png",
        "town/b.png",
    ]
    for path in written:
        np.testing.assert_array_equal(read_label_map(path), 2 if path.stem == "d" else NUMBERS)
    shown = Image.open(written[0]).convert("RGB")
    assert (shown.getpixel((1, 0)), shown.getpixel((2, 1))) == ((128, 64, 128), (224, 224, 192))


def test_unknown_colours_are_named(tmp_path: Path) -> None:
    """Nothing is written; the most frequent colours first, of three files at most."""
    (tmp_path / "in").mkdir()
    coloured(np.array([[0, 0, 1]])).save(tmp_path / "in/good.png")
    for name in "abcd":
        coloured(np.array([[3, 4, 4, 5, 6, 0, 7]]), (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (9, 9, 9)).save(
            tmp_path / f"in/{name}.png"
        )
    with pytest.raises(ValueError, match="can't be converted") as caught:
        convert_colours(tmp_path / "in", tmp_path / "out", LABELS, PALETTE, [(9, 9, 9)])
    first = "the colour 2, 2, 2 in 2 pixels, which is no class's, the colour 1, 1, 1 in 1 pixels, which is no class's"
    assert str(caught.value).startswith(
        f"4 files of 5 can't be converted: {tmp_path}/in/a.png holds {first}, the colour"
    )
    assert str(caught.value).count(", and 1 more such colours") == 3
    assert not (tmp_path / "out").exists()


def test_colours_of_two_classes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    coloured(np.array([[0, 1]])).save(tmp_path / "in/a.png")
    twice = (PALETTE[0], PALETTE[1], PALETTE[1])
    with pytest.raises(
        ValueError, match=r"one file of 1 .*: .*128, 64, 128 in 1 pixels, which stands for road and wall"
    ):
        convert_colours(tmp_path / "in", tmp_path / "out", LABELS, twice)
    Image.new("RGB", (2, 2), PALETTE[0]).save(tmp_path / "in/a.png")
    assert len(convert_colours(tmp_path / "in", tmp_path / "out", LABELS, twice)) == 1


def test_files_that_can_t_be_converted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="in holds no images"):
        convert_colours(tmp_path / "in", tmp_path / "out", LABELS, PALETTE)
    with pytest.raises(ValueError, match=r"there is no folder .*none"):
        convert_colours(tmp_path / "none", tmp_path / "out", LABELS, PALETTE)
    coloured().save(tmp_path / "in/a.jpg")
    (tmp_path / "in/b.png").write_bytes(b"none")
    Image.fromarray(NUMBERS.astype(np.uint16)).save(tmp_path / "in/c.png")
    with pytest.raises(
        ValueError, match=r"3 files of 3.*a.jpg: it is a JPEG.*b.png: it is not an im.*c.png: .*not in col"
    ):
        convert_colours(tmp_path / "in", tmp_path / "out", LABELS, PALETTE)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    coloured().save(tmp_path / "in/a.png")
    with pytest.raises(ValueError, match=r"in/a.png would be overwritten; move it away, or give another folder"):
        convert_colours(tmp_path / "in", tmp_path / "in", LABELS, PALETTE, [(0, 0, 0)])
    coloured().save(tmp_path / "in/a.bmp")
    with pytest.raises(ValueError, match=r"several files in .*in would become .*out/a.png; keep one of them"):
        convert_colours(tmp_path / "in", tmp_path / "out", LABELS, PALETTE, [(0, 0, 0)])
