"""`internimage data coco` and `data scenes`: files as training wants them, written whole or not at all."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internimage.cli.configs import find_config
from internimage.data.detection.coco import find_coco, read_coco

Program = Callable[..., Any]


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A picture each to train on and to validate with."""
    root = tmp_path / "my set"
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(root / f"images/{split}/a.jpg")
        (root / f"labels/{split}/a.txt").write_text("1 0.5 0.5 0.25 0.2\n", encoding="utf-8")
    (root / "data.yaml").write_text("names: [dog, cat]\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("output", ["my set", "other/place"])
def test_conversion(program: Program, yolo: Path, output: str) -> None:
    """The commands that it names exist, and find what was written."""
    outcome = program("data", "coco", "my set", output)
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:3]] == [
        f"{output}/annotations/{each}.json" for each in ("train", "val")
    ]
    assert lines[1].split()[-3:] == ["1", "1", "2"]
    look, train = (shlex.split(line.partition(":")[2]) for line in lines[4:])
    assert program(*look[1:]).status == 0
    assert train[:3] == ["internimage", "fit", "--config"]
    assert find_config(train[3]).is_file()
    assert train[5] == output
    found = find_coco(output, "val")
    assert found is not None
    (picture,) = read_coco(*found).pictures
    assert picture.instances[0].box == pytest.approx((15, 12, 25, 18))
    before = Path(output, "annotations/val.json").read_bytes()
    Path(output, "annotations/train.json").unlink()
    message = program("data", "coco", "my set", output).refusal()
    problem = "val.json would be overwritten" if output != "my set" else "is in COCO's format already"
    assert problem in message
    assert Path(output, "annotations/val.json").read_bytes() == before
    assert not Path(output, "annotations/train.json").exists()


def test_nothing_is_written_of_a_broken_set(program: Program, yolo: Path) -> None:
    (yolo / "labels/val/a.txt").write_text("1 20 15 10 6\n", encoding="utf-8")
    message = program("data", "coco", "my set", "new").refusal()
    assert "one file can't be converted: my set/labels/val/a.txt, line 1: 20 is no share between 0 and 1" in message
    assert message.endswith("; `internimage data check PATH` lists all\n")
    assert not Path("new").exists()
    assert "there is no folder nowhere" in program("data", "coco", "nowhere", "new").refusal()
    assert "my set/labels holds no annotations of a known" in program("data", "coco", "my set/labels", "new").refusal()


def test_scenes(program: Program) -> None:
    outcome = program("data", "scenes", "my scenes", "--train", 4, "--val", 2)
    assert (outcome.status, outcome.err) == (0, "")
    header, train, val, maps, _, *commands = outcome.out.splitlines()
    assert header.split() == ["written", "pictures", "objects", "classes"]
    for line, split, count in ((train, "train", 4), (val, "val", 2)):
        path = Path("my scenes/annotations") / f"{split}.json"
        objects = len(json.loads(path.read_bytes())["annotations"])
        assert line.split("json")[1].split() == [str(count), str(objects), "10"]
        assert len(list(Path("my scenes/images", split).iterdir())) == count
        assert len(list(Path("my scenes/labels", split).iterdir())) == count
    assert maps == (
        "label maps in my scenes/labels/train and my scenes/labels/val, their classes in my scenes/classes.txt"
    )
    for command, recipe in zip(commands, ("detection/scenes", "segmentation/scenes"), strict=True):
        words = shlex.split(command)
        assert words[words.index("--config") + 1] == recipe
        assert find_config(recipe).is_file()
        assert words[words.index("--data.init_args.root") + 1] == "my scenes"
    for task in ("detection", "segmentation"):
        outcome = program("data", "check", "my scenes", "--task", task)
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out.endswith("\nnothing to mend by hand\n")
    assert "\n10 background  " in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("full",), "full is not empty; give the path of a new or empty folder"),
        (("new", "--train", 0), "count must be 1 or more, got 0"),
        (("new", "--val", -1), "count must be 1 or more, got -1"),
    ],
)
def test_scenes_are_written_whole_or_not_at_all(program: Program, arguments: tuple[Any, ...], message: str) -> None:
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    assert message in program("data", "scenes", *arguments).refusal()
    assert not Path("new").exists()
    assert [path.name for path in Path("full").iterdir()] == ["thesis.tex"]
