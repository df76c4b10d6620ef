"""Names of folders and files as people give them: capitals, other encodings, other words for a split."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from internimage.data import labels_in, open_split, to_tensor
from internimage.data.class_folders import find_split
from internimage.data.classification import FolderDataset
from internimage.structures import Preprocess

TRANSFORM = partial(to_tensor, preprocess=Preprocess(size=4))
LATIN = os.fsdecode(b"caf\xe9")


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (4, 4)).save(folder / f"{index:03d}.png")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Class folders, of which one has a name in Latin-1."""
    fill(tmp_path / "tea", 3)
    try:
        fill(tmp_path / LATIN, 3)
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    return tmp_path


def test_a_class_that_no_file_can_name_is_refused_at_once(odd: Path) -> None:
    for look in (
        labels_in,
        partial(FolderDataset, transform=TRANSFORM),
        partial(open_split, split="train", transform=TRANSFORM),
    ):
        with pytest.raises(ValueError, match=r"the class folder 'caf\\udce9' in .* is not named in UTF-8; rename it"):
            look(odd)


def test_so_is_one_inside_a_split(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for folder in ("tea", LATIN):
        (odd / folder).rename(tmp_path / "train" / folder)
    with pytest.raises(ValueError, match="is not named in UTF-8"):
        labels_in(tmp_path)


def test_images_may_have_any_name(odd: Path) -> None:
    (odd / LATIN).rename(odd / "coffee")
    image = odd / "coffee" / f"{LATIN}.png"
    (odd / "coffee" / "000.png").rename(image)
    train, val = (open_split(odd, split, transform=TRANSFORM) for split in ("train", "val"))
    assert image in {*train.paths, *val.paths}
    assert len(train) + len(val) == 6


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("TRAIN", "Validation", "test"), ("train", "VALID", "TEST")]
)
def test_splits_may_be_written_in_capitals(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name, count in zip(names, (3, 2, 1), strict=True):
        for label in ("Cat", "dog"):
            fill(tmp_path / name / label, count)
    assert labels_in(tmp_path).names == ("Cat", "dog")
    lengths = [len(open_split(tmp_path, split, transform=TRANSFORM)) for split in ("train", "val", "test")]
    assert lengths == [6, 4, 2]
    with pytest.raises(ValueError, match="holds splits"):
        FolderDataset(tmp_path, transform=TRANSFORM)


def test_a_split_written_twice_is_refused(tmp_path: Path) -> None:
    for name in ("Train", "train"):
        fill(tmp_path / name / "cat", 1)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell capitals apart")
    with pytest.raises(ValueError, match="holds Train and train; keep one of them"):
        find_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("names", "warned"),
    [(("training", "testing"), True), (("Training", "dev"), True), (("training", "cat"), False), (("a", "b"), False)],
)
def test_classes_that_are_named_like_splits(
    tmp_path: Path, names: tuple[str, str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        fill(tmp_path / name / "deeper", 2)
    assert labels_in(tmp_path).names == tuple(sorted(names))
    fix = "are taken as classes; if these are splits, name them train, val and test"
    assert (fix in caplog.text) == warned
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned
