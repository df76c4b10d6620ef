"""What values mean: classes, ignored ones, ADE20K's zero, and values of no class; what classes are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.data.segmentation import LabelRules, find_classes, find_colours, read_classes
from internimage.structures import LabelMap

THREE = LabelMap(("sky", "road", "car"))


def values(*listed: int) -> np.ndarray:
    return np.array([listed], np.uint16 if max(listed) > 255 else np.uint8)


@pytest.mark.parametrize(
    ("rules", "given", "expected"),
    [
        (LabelRules(THREE), (0, 1, 2, 255), [0, 1, 2, 255]),
        (LabelRules(THREE, ignored=(11, 255)), (0, 11, 2, 255), [0, 255, 2, 255]),
        (LabelRules(THREE, ignored=(1,)), (0, 1, 2), [0, 255, 2]),
        (LabelRules(THREE, ignored=(65535, 300)), (0, 65535, 300), [0, 255, 255]),
        (LabelRules(THREE, reduce_zero=True), (0, 1, 2, 3, 255), [255, 0, 1, 2, 255]),
        (LabelRules(THREE, ignored=(3,), reduce_zero=True), (0, 1, 3), [255, 0, 255]),
        (LabelRules(LabelMap.numbered(255)), (0, 254, 255), [0, 254, 255]),
        (LabelRules(LabelMap.numbered(255), ignored=(), reduce_zero=True), (0, 255), [255, 254]),
    ],
)
def test_values_by_hand(rules: LabelRules, given: tuple[int, ...], expected: list[int]) -> None:
    found = rules.classes_of(values(*given))
    assert (found.dtype, found.tolist()) == (np.uint8, [expected])
    assert [rules.class_of(value) for value in given] == expected


@pytest.mark.parametrize(
    ("rules", "given", "message"),
    [
        (
            LabelRules(THREE),
            (0, 3, 3, 255),
            "a.png: value 3 in 2 pixels, but the 3 classes have the values 0 to 2; correct the label map, name a class "
            "for each value, or list values of no class as ignored",
        ),
        (LabelRules(THREE, ignored=(11,)), (255,), "a.png: value 255 in 1 pixels, but"),
        (LabelRules(THREE, reduce_zero=True), (4,), "a.png: value 4 in 1 pixels, but the 3 classes have the values 1"),
        (
            LabelRules(THREE),
            (*range(3, 11), 700),
            "value 7 in 1 pixels, 4 more such values up to 700, but the 3 classes",
        ),
    ],
)
def test_values_of_no_class(rules: LabelRules, given: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=r"in . pixels") as caught:
        rules.classes_of(values(*given), "a.png")
    assert message in str(caught.value)
    assert rules.class_of(given[-1] if given[-1] != 255 or 255 not in rules.ignored else given[1]) is None


def test_faults_of_a_label_map() -> None:
    rules = LabelRules(THREE)
    assert rules.fault(np.bincount([0, 255])) is None
    assert rules.fault(np.bincount([255, 255])) == (
        "label map of ignored pixels",
        "all its pixels are ignored, so that it teaches nothing; correct it, or remove it and its picture",
    )
    kind, text = rules.fault(np.bincount([255, 9])) or ("", "")
    assert (kind, text.partition(",")[0]) == ("label map with unknown values", "value 9 in 1 pixels")


def test_rules_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="a label map can tell 1 to 255 classes apart, got 256"):
        LabelRules(LabelMap.numbered(256))
    with pytest.raises(ValueError, match="got 0"):
        LabelRules(LabelMap(()))
    with pytest.raises(ValueError, match=r"ignored must list values from 0 to 65535, got \[-1, 65536\]"):
        LabelRules(THREE, ignored=(-1, 3, 65536))
    assert LabelRules(THREE, ignored=[1]) == LabelRules(THREE, ignored=(1,))  # pyright: ignore


def test_where_names_come_from(tmp_path: Path) -> None:
    maps = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, held in zip(maps, (values(0, 4, 255), values(0, 2, 11)), strict=True):
        Image.fromarray(held).save(path)
    assert find_classes(tmp_path, ["sky", "road"]).names == ("sky", "road")
    assert len(find_classes(tmp_path, 7)) == 7
    assert find_classes(tmp_path, "cityscapes") == read_classes("cityscapes").labels
    assert len(find_classes(tmp_path, maps=maps)) == 12
    assert find_classes(tmp_path, maps=maps, ignored=(11, 255)).names[-1] == "class 4"
    assert len(find_classes(tmp_path, maps=maps, ignored=(11, 255), reduce_zero=True)) == 4
    (tmp_path / "mine.txt").write_text("sun\nmoon\n", encoding="utf-8")
    assert find_classes(tmp_path, "mine.txt").names == ("sun", "moon")
    assert find_classes("nowhere", str(tmp_path / "mine.txt")).names == ("sun", "moon")
    (tmp_path / "classes.txt").write_text("1 2 3 sky\n4 5 6 car\n", encoding="utf-8")
    assert find_classes(tmp_path, maps=maps).names == ("sky", "car")
    assert find_colours(tmp_path) == find_colours("nowhere", str(tmp_path / "classes.txt")) == ((1, 2, 3), (4, 5, 6))
    assert find_colours(tmp_path, "cityscapes") == read_classes("cityscapes").palette
    assert (find_colours(tmp_path, "mine.txt"), find_colours(tmp_path, ["sky"])) == (None, None)
    assert (find_colours(tmp_path, 3), find_colours("nowhere")) == (None, None)
    assert find_classes(tmp_path, ["one"]).names == ("one",)


def test_where_no_names_are(tmp_path: Path) -> None:
    Image.fromarray(values(255)).save(tmp_path / "a.png")
    Image.fromarray(values(0, 300)).save(tmp_path / "b.png")
    with pytest.raises(
        ValueError, match=r"no class names and no label maps with classes; name the classes in .*classes.t"
    ):
        find_classes(tmp_path, maps=[tmp_path / "a.png"])
    with pytest.raises(
        ValueError, match=r"hold values up to 300, but there can be 255 classes; list values of no class"
    ):
        find_classes(tmp_path, maps=[tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(ValueError, match=r"there is no file mine.txt of class names"):
        find_classes(tmp_path, "mine.txt")
