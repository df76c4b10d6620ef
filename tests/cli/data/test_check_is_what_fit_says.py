"""What `internimage data check` passes, training takes; what training refuses, the check has named before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internimage.data.scenes import Scenes, export_coco

Program = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


def make(values: dict[str, list[int]]) -> Path:
    """Two pictures of each split, whose label maps have a value per ten columns."""
    for split, row in values.items():
        for folder in ("images", "labels"):
            Path("set", folder, split).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (10 * len(row), 48)).save(f"set/images/{split}/{name}.png")
            Image.fromarray(np.repeat(np.array([row] * 48, np.uint8), 10, 1)).save(f"set/labels/{split}/{name}.png")
    return Path("set")


def refusal(program: Program, *more: object) -> str:
    """What training says last."""
    outcome = program("fit", "--config", "smoke/segmentation", "--run", "run", "--data.init_args.root", "set", *more)
    assert outcome.status == 2, outcome
    return outcome.err.splitlines()[-1]


def test_a_value_that_training_pictures_have_not(program: Program) -> None:
    make({"train": [0, 1, 2], "val": [0, 1, 5]})
    checked = program("data", "check", "set")
    assert checked.status == 1
    assert "set/labels/val/a.png: value 5 in 480 pixels, but the 3 classes have the values 0 to 2" in checked.err
    assert "val/a.png: value 5 in 480 pixels, but the 3 classes have the values 0 to 2" in refusal(program)


def test_no_validation_pictures(program: Program) -> None:
    make({"train": [0, 1, 2]})
    checked = program("data", "check", "set")
    assert "note: there are no val pictures, without which training does not begin" in checked.out
    assert "set holds no val pictures with label maps" in refusal(program)


def test_objects_without_masks(program: Program) -> None:
    for path in export_coco("set", Scenes("train", 2, size=(64, 64)), Scenes("val", 2, size=(64, 64))):
        content = json.loads(path.read_text(encoding="utf-8"))
        boxes = [{key: each[key] for key in each if key != "segmentation"} for each in content["annotations"]]
        path.write_text(json.dumps({**content, "annotations": boxes}), encoding="utf-8")
    for said in (program("data", "check", "set", "--task", "segmentation").refusal(), refusal(program)):
        assert "set/annotations/train.json: " in said
        assert "(the first is annotation 1); label maps are drawn from masks, so add them" in said


def test_what_is_said_of_values_where_there_are_none(program: Program) -> None:
    export_coco("set", Scenes("train", 2, size=(64, 64)), Scenes("val", 2, size=(64, 64)))
    assert program("data", "check", "set", "--task", "segmentation").status == 0
    said = program("data", "check", "set", "--task", "segmentation", "--classes", 3).refusal()
    assert "set has no label maps: its classes are its categories" in said
    assert "data.init_args.classes" in refusal(program, "--data.init_args.classes", "3")


def test_values_that_number_otherwise(program: Program) -> None:
    make({"train": [7, 8, 33], "val": [7, 8, 9]})
    checked = program("data", "check", "set", "--classes", 2, "--values", "{7: 0, 8: 1}")
    assert (checked.status, checked.err) == (0, "")
    assert "33 ignored" in checked.out
    wrong = program("data", "check", "set", "--classes", 1, "--values", "{7: 0, 8: 1}").refusal()
    assert "values gives 8 the class 1, but there are 1 classes" in wrong
    fits = program(
        *("fit", "--config", "smoke/segmentation", "--run", "run", "--data.init_args.root", "set"),
        *("--data.init_args.classes", "2", "--data.init_args.values", "{7: 0, 8: 1}"),
        *("--trainer.fast_dev_run", "true"),
    )
    assert fits.status == 0, fits
    shutil.rmtree("set")
