"""Where pictures come from: folders, lists, objects of COCO's format, scenes; and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.data.scenes import Scenes
from internimage.data.segmentation import CocoMaps, LabelMapPictures, LabelRules, SceneMaps, spread_palette
from internimage.data.segmentation.sources import listed_pairs
from internimage.structures import LabelMap
from support.annotations import annotation, read

RULES = LabelRules(LabelMap(("sky", "road", "car")), ignored=(11, 255))
VALUES = np.array([[0, 1, 2, 11], [255, 2, 1, 0]], np.uint8)


def save(path: Path, values: np.ndarray = VALUES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures with label maps, of which the second is in a subfolder."""
    for name in ("a", "town/b c"):
        save(tmp_path / f"images/{name}.png", np.full((2, 4, 3), 7, np.uint8))
        save(tmp_path / f"labels/{name}.png")
    return tmp_path


def test_folders(root: Path) -> None:
    found = LabelMapPictures([root / "images", str(root / "labels")], RULES)
    assert (len(found), found.labels, found.palette) == (2, RULES.names, spread_palette(3))
    assert [found.name(index) for index in range(2)] == ["a.png", "town/b c.png"]
    raw = found.read(1)
    assert (raw.image.mode, raw.image.size) == ("RGB", (4, 2))
    assert raw.labels.tolist() == [[0, 1, 2, 255], [255, 2, 1, 0]]
    assert raw.labels.dtype == np.uint8


def test_a_list(root: Path) -> None:
    """Relative to the list's folder, or absolute; with tabs where names have spaces."""
    lines = [
        "images/a.png labels/a.png",
        "",
        f"images/town/b c.png\t{root}/labels/town/b c.png",
        "images/a.png labels/a.png",
    ]
    (root / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    colours = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    found = LabelMapPictures([root / "list.txt"], RULES, colours)
    assert (len(found), found.palette) == (3, colours)
    assert [found.name(index) for index in range(3)] == ["images/a.png", "images/town/b c.png", "images/a.png"]
    assert found.read(1).labels.tolist() == [[0, 1, 2, 255], [255, 2, 1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images/a.png\n", r"list.txt, line 1: 'images/a.png' is not two names; write a picture and its label map"),
        ("\nimages/a.png labels/b c.png", r"line 2: .*is not two names; .*with a tab between them"),
        ("images/a.png labels/b.png", r"line 1: there is no file .*labels/b.png"),
        ("images/z.png labels/a.png", r"line 1: there is no file .*images/z.png"),
        ("\n", r"list.txt names no pictures"),
    ],
)
def test_lists_that_make_no_sense(root: Path, text: str, message: str) -> None:
    (root / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        listed_pairs(root / "list.txt")
    with pytest.raises(ValueError, match=r"cannot read the list .*none.txt"):
        listed_pairs(root / "none.txt")
    with pytest.raises(ValueError, match=r"give the folders of pictures and of label maps, or one list, got 3 paths"):
        LabelMapPictures([root, root, root], RULES)


def test_broken_pairs(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A picture without a label map is left out, which is said; all else is refused."""
    places = [root / "images", root / "labels"]
    save(root / "images/only.png")
    with caplog.at_level(logging.WARNING):
        assert len(LabelMapPictures(places, RULES)) == 2
    assert "1 pictures have no label map and are not used" in caplog.text
    save(root / "labels/x.png")
    save(root / "labels/y.png")
    with pytest.raises(ValueError, match=r"labels/x.png \(and 1 more\) has no picture of its name in .*images; add it"):
        LabelMapPictures(places, RULES)
    (root / "labels/x.png").rename(root / "labels/a.bmp")
    (root / "labels/y.png").unlink()
    with pytest.raises(
        ValueError, match=r"labels/a.bmp \(and 1 more\) has the name of another file but for its suffix"
    ):
        LabelMapPictures(places, RULES)
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match="hold no picture and label map of the same name"):
        LabelMapPictures([root / "images/town", root / "empty"], RULES)


def test_files_that_do_not_fit(root: Path) -> None:
    found = LabelMapPictures([root / "images", root / "labels"], RULES)
    save(root / "labels/a.png", VALUES.T)
    with pytest.raises(
        ValueError, match=r"labels/a.png has 2 x 4 pixels, but .*images/a.png 4 x 2; give both the same"
    ):
        found.read(0)
    save(root / "labels/a.png", VALUES + np.uint8(5))
    with pytest.raises(
        ValueError, match=r"labels/a.png: value 4 in 1 pixels, value 5 in 2 pixels, value 6 in 2 pixels, "
    ):
        found.read(0)
    save(root / "labels/a.png", np.zeros((2, 4, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"a.png: it is in colour .*`internimage data labels FOLDER OUTPUT --palette"):
        found.read(0)


def square(x1: int, y1: int, x2: int, y2: int) -> dict[str, object]:
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}


def test_objects_become_classes(tmp_path: Path) -> None:
    """Categories by ascending id after the background, later objects over earlier ones, crowds below all."""
    pytest.importorskip("faster_coco_eval")
    crowd = {"size": [30, 40], "counts": [0, 30 * 20, 30 * 20]}
    coco = read(
        tmp_path,
        annotation(1, **square(0, 0, 10, 10)),
        annotation(2, category_id=2, **square(5, 5, 15, 15)),
        annotation(3, bbox=[0, 0, 20, 30], segmentation=crowd, iscrowd=1),
    )
    source = CocoMaps(coco)
    assert (len(source), source.labels.names) == (2, ("background", "cat", "dog"))
    assert (source.palette[0], source.name(0), source.name(1)) == ((0, 0, 0), "a.jpg", "b.jpg")
    expected = np.zeros((30, 40), np.uint8)
    expected[:, :20] = 255
    expected[:10, :10] = 2
    expected[5:15, 5:15] = 1
    raw = source.read(0)
    np.testing.assert_array_equal(raw.labels, expected)
    assert raw.image.size == (40, 30)
    assert (source.read(1).labels == 0).all()


def test_a_crowd_with_a_box_alone(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    source = CocoMaps(read(tmp_path, annotation(1, bbox=[1.5, 2, 3, 4], iscrowd=1)))
    expected = np.zeros((30, 40), np.uint8)
    expected[2:6, 1:5] = 255
    np.testing.assert_array_equal(source.read(0).labels, expected)


def test_objects_without_a_mask(tmp_path: Path) -> None:
    coco = read(tmp_path, annotation(8), annotation(9, category_id=2, **square(5, 5, 15, 15)))
    with pytest.raises(
        ValueError, match=r"train.json: objects without a mask: 1 \(the first is annotation 8\); label maps"
    ):
        CocoMaps(coco)


def test_a_category_with_the_name_of_what_is_no_object(tmp_path: Path) -> None:
    coco = replace(read(tmp_path, annotation(8, **square(5, 5, 15, 15))), labels=LabelMap(("background", "dog")))
    with pytest.raises(ValueError, match=r"train.json: its category background has the name of all that is no object"):
        CocoMaps(coco)


def test_scenes() -> None:
    scenes = Scenes("val", 5, size=(64, 96))
    source = SceneMaps(scenes)
    assert (len(source), len(source.labels), source.labels[10]) == (5, 11, "background")
    assert (source.palette[10], source.name(4)) == ((0, 0, 0), "val_00004")
    for index in range(5):
        raw = source.read(index)
        np.testing.assert_array_equal(raw.labels, scenes.label_map(index))
        assert raw.image.tobytes() == scenes.read(index).image.tobytes()
