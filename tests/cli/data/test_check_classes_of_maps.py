"""`internimage data check` of label maps with known classes, lists of files and masks; `data labels` before it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.annotations import annotation, write_coco

Program = Callable[..., Any]
VALUES = {"a": [0, 1, 2, 255], "b": [2, 2, 1, 11]}


@pytest.fixture(autouse=True)
def held(program: Program) -> None:
    """Two pictures of 40 x 30 pixels, whose label maps have a value per ten columns."""
    for folder in ("set/images", "set/labels"):
        Path(folder).mkdir(parents=True)
    for name, values in VALUES.items():
        Image.new("RGB", (40, 30)).save(f"set/images/{name}.jpg")
        Image.fromarray(np.repeat(np.array([values] * 30, np.uint8), 10, 1)).save(f"set/labels/{name}.png")


def test_without_names_every_value_may_be_a_class(program: Program) -> None:
    outcome = program("data", "check", "set")
    assert (outcome.status, outcome.err) == (0, "")
    assert [line.split() for line in outcome.out.splitlines() if line[:1].isdecimal()] == [
        ["0", "12.50%"],
        ["1", "25.00%"],
        ["2", "37.50%"],
        ["11", "12.50%"],
        ["255", "ignored", "12.50%"],
    ]


def test_a_value_of_no_class_is_named_with_file_and_pixels(program: Program) -> None:
    fix = "correct the label map, name a class for each value, or list values of no class as ignored"
    text = f"    set/labels/b.png: value 11 in 300 pixels, but the 3 classes have the values 0 to 2; {fix}"
    by_number = program("data", "check", "set", "--classes", 3)
    assert by_number.status == 1
    assert by_number.err.splitlines() == ["internimage: label maps with values of no class: 1", text]
    assert "\n2            37.50%\n11 no class  12.50%\n" in by_number.out
    assert "1 to 255 classes apart, got 0" in program("data", "check", "set", "--classes", 0).refusal()
    Path("set/classes.txt").write_text("sky\nroad\ncar\n", encoding="utf-8")
    by_file = program("data", "check", "set")
    assert by_file.err == by_number.err
    assert "\n1 road       25.00%\n" in by_file.out
    mended = program("data", "check", "set", "--ignore", 11, 255)
    assert (mended.status, mended.err) == (0, "")
    assert "\n11 ignored   12.50%\n" in mended.out


def test_zero_that_is_no_class(program: Program) -> None:
    outcome = program("data", "check", "set", "--reduce_zero", "--classes", "cityscapes")
    assert outcome.status == 0
    assert "\n0 ignored    12.50%\n1 road       25.00%\n2 sidewalk   37.50%\n11 sky       12.50%\n" in outcome.out


def test_options_of_another_task(program: Program) -> None:
    message = program("data", "check", "set", "--task", "detection", "--classes", 3).refusal()
    assert "--classes, --ignore and --reduce_zero are for label maps, not for detection" in message
    assert (
        "there is no file mine.txt of class names" in program("data", "check", "set", "--classes", "mine.txt").refusal()
    )


def test_a_list(program: Program) -> None:
    Path("set/train.txt").write_text("images/a.jpg labels/a.png\nimages/b.jpg labels/b.png\n", encoding="utf-8")
    outcome = program("data", "check", "set/train.txt", "--task", "segmentation", "--classes", 3)
    assert outcome.status == 1
    assert outcome.out.startswith("set/train.txt: segmentation, a list of pictures with label maps\n")
    assert "train.txt: 2 of 2 pairs can be read and fit, 40 x 30 pixels" in outcome.out
    assert "set/labels/b.png: value 11 in 300 pixels" in outcome.err
    Path("set/train.txt").write_text("images/a.jpg\n", encoding="utf-8")
    assert "line 1: 'images/a.jpg' is not two" in program("data", "check", "set/train.txt", "--classes", 3).refusal()


def test_masks_of_objects_serve_as_label_maps(program: Program) -> None:
    write_coco(Path("objects"), annotation(segmentation=[[1, 2, 11, 2, 11, 22]]))
    outcome = program("data", "check", "objects", "--task", "segmentation")
    assert outcome.status == 0
    assert outcome.out.startswith(
        "there are no label maps: they will be drawn from the masks of the objects, on a back"
    )


def test_label_maps_in_colour_become_numbers(program: Program) -> None:
    """From the check that finds them to the check that is content."""
    colours = np.zeros((256, 3), np.uint8)
    colours[[0, 1, 2]] = (128, 64, 128), (0, 0, 142), (70, 130, 180)
    Path("colours").mkdir()
    for name in VALUES:
        numbers = np.asarray(Image.open(f"set/labels/{name}.png"))
        Image.fromarray(colours[numbers]).save(f"colours/{name}.png")
    Path("set/labels").rename("set/old")
    Path("colours").rename("set/labels")
    assert "`internimage data labels FOLDER OUTPUT --palette FILE`" in program("data", "check", "set").err
    Path("mine.txt").write_text("128 64 128 road\n0 0 142 car\n70 130 180 sky\n", encoding="utf-8")
    given = ("data", "labels", "set/labels", "set/masks", "--palette", "mine.txt")
    message = program(*given).refusal()
    assert "2 files of 2 can't be converted: set/labels/a.png holds the colour 0, 0, 0 in 300 pixels" in message
    assert "such as 0,0,0; got 'black'" in program(*given, "--ignore", "black").refusal()
    outcome = program(*given, "--ignore", "0,0,0")
    assert (outcome.status, outcome.err) == (0, "")
    first, _, last = outcome.out.splitlines()
    assert first == "2 label maps of 3 classes in set/masks"
    Path("set/labels").rename("colours")
    words = shlex.split(last.partition(": internimage ")[2])
    checked = program(*[{"FOLDER": "set"}.get(word, word) for word in words])
    assert (checked.status, checked.err) == (0, "")
    assert "\n255 ignored  25.00%\n" in checked.out
    assert (
        "set/masks/a.png and 1 more would be overwritten"
        in program("data", "labels", "colours", "set/masks", "--palette", "mine.txt", "--ignore", "0,0,0").refusal()
    )
    assert (
        "coco_stuff lists names without colours"
        in program("data", "labels", "colours", "new", "--palette", "coco_stuff").refusal()
    )
