"""Opening the splits of a folder tree, and making splits where there are none."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from internimage.data import labels_in, open_split, to_tensor
from internimage.structures import LabelMap, Preprocess

TRANSFORM = partial(to_tensor, preprocess=Preprocess(size=4))
open_tree = partial(open_split, transform=TRANSFORM)


def fill(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        Image.new("RGB", (4, 4)).save(folder / f"{index:03d}.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    fill(tmp_path / "cat", 40)
    fill(tmp_path / "dog", 20)
    fill(tmp_path / "elk", 2)
    return tmp_path


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        for label in ("cat", "dog"):
            fill(tmp_path / name / label, count)
    return tmp_path


def test_split_folders_are_opened(split):
    assert [len(open_tree(split, name)) for name in ("train", "val", "test")] == [6, 4, 2]
    assert open_tree(split, "val").paths[0] == split / "val" / "cat" / "000.png"
    assert labels_in(split).names == ("cat", "dog")


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_val(split, name):
    (split / "val").rename(split / name)
    assert len(open_tree(split, "val")) == 4


def test_two_val_folders_are_refused(split):
    fill(split / "valid" / "cat", 1)
    with pytest.raises(ValueError, match="holds val and valid; keep one of them"):
        open_tree(split, "val")


def test_classes_are_those_of_train(split):
    fill(split / "train" / "elk", 1)
    with pytest.raises(ValueError, match=r"class folders in .*val do not match .*; missing: elk$"):
        open_tree(split, "val")


def test_given_labels_win(split):
    assert open_tree(split, "val", labels=LabelMap(("dog", "cat"))).paths[0].parent.name == "dog"


def test_without_a_train_folder_the_others_open(split):
    (split / "train").rename(split / ".train")
    assert len(open_tree(split, "val")) == 4
    assert labels_in(split).names == ("cat", "dog")
    with pytest.raises(ValueError, match="has val and test but no folder train; add it"):
        open_tree(split, "train")


def test_missing_val_folder(split):
    (split / "val").rename(split / ".val")
    with pytest.raises(ValueError, match=r"has train and test but no folder val or valid or validation; add it"):
        open_tree(split, "val")


def test_test_falls_back_to_val_aloud(split, flat, caplog):
    (split / "test").rename(split / ".test")
    assert open_tree(split, "test").paths == open_tree(split, "val").paths
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages == [f"{split} has no test images: the validation images stand in for them"]


def test_unknown_split(flat):
    with pytest.raises(ValueError, match="split must be train, val or test, got 'dev'"):
        open_tree(flat, "dev")


def test_flat_trees_are_split_by_class(flat, caplog):
    with caplog.at_level(logging.INFO, logger="internimage"):
        train = open_tree(flat, "train", val_fraction=0.2)
    val = open_tree(flat, "val", val_fraction=0.2)
    assert set(train.paths).isdisjoint(val.paths)
    assert len(train) + len(val) == 62
    assert train.labels == val.labels
    assert 3 <= val.targets.count(0) <= 14
    assert 1 <= val.targets.count(1) <= 9
    assert val.targets.count(2) == train.targets.count(2) == 1
    assert len(caplog.records) == 1
    expected = f"{flat}: {len(train)} images to train and {len(val)} to validate, by hash (val_fraction=0.2, seed=0)"
    assert caplog.records[0].getMessage() == expected


def test_split_is_the_same_every_time_and_anywhere(flat, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    before = [path.relative_to(flat).as_posix() for path in open_tree(flat, "val").paths]
    assert before == [path.relative_to(flat).as_posix() for path in open_tree(flat, "val").paths]
    flat.rename(moved)
    assert [path.relative_to(moved).as_posix() for path in open_tree(moved, "val").paths] == before


def test_the_split_of_these_names_never_changes(flat):
    chosen = [path.relative_to(flat).with_suffix("").as_posix() for path in open_tree(flat, "val").paths]
    assert chosen == ["cat/007", "cat/013", "cat/016", "cat/023", "cat/025", "dog/006", "elk/001"]


def test_added_images_leave_the_others_in_place(flat):
    before = {name: set(open_tree(flat, name).paths) for name in ("train", "val")}
    fill(flat / "cat", 60, start=40)
    fill(flat / "fox", 10)
    for name in ("train", "val"):
        assert before[name] < set(open_tree(flat, name).paths)


def test_seed_gives_another_split(flat):
    assert open_tree(flat, "val", seed=1).paths != open_tree(flat, "val").paths


@pytest.mark.parametrize("val_fraction", [1e-9, 1 - 1e-9])
def test_each_side_has_an_image_of_each_class(flat, val_fraction):
    for name in ("train", "val"):
        assert set(open_tree(flat, name, val_fraction=val_fraction).targets) == {0, 1, 2}


@pytest.mark.parametrize("val_fraction", [0, 1, -0.5])
def test_impossible_fractions(flat, val_fraction):
    with pytest.raises(ValueError, match="val_fraction must lie between 0 and 1"):
        open_tree(flat, "train", val_fraction=val_fraction)


def test_a_class_with_one_image_cannot_be_split(flat):
    fill(flat / "fox", 1)
    with pytest.raises(ValueError, match=r"class fox in .* has one image, and a split needs two; add images, or make"):
        open_tree(flat, "train")
