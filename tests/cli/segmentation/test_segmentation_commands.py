"""Segmentation through the real program: fit, test, predict, convert; what they write and what they refuse."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import internimage
from internimage import LabelMap, SegmentationMap
from internimage.cli.predict.maps import in_small
from internimage.data.scenes import Scenes
from support.pictures import differing, figures_alone

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The smoke recipe's run and what was printed."""
    from cli.conftest import call

    folder = tmp_path_factory.mktemp("runs") / "my segmenter"
    outcome = call("fit", "--config", "smoke/segmentation", "--run", folder)
    assert outcome.status == 0, outcome
    return folder, outcome


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Three pictures of 128 x 128, 128 x 96 and 200 x 128 pixels."""
    source, paths = Scenes("test", 3), list[Path]()
    for index, size in enumerate(((128, 128), (128, 96), (200, 128))):
        path = tmp_path / "scenes" / f"scene_{index}.png"
        path.parent.mkdir(exist_ok=True)
        source.read(index).image.resize(size).save(path)
        paths.append(path)
    return paths


def test_fit_leaves_a_complete_folder(trained: Smoke) -> None:
    run, outcome = trained
    expected = {"config.yaml", "metrics.csv", "model.safetensors", "model.json", "report.html", "checkpoints"}
    expected |= {"starts.jsonl", "log.txt", "evaluation.npz"}
    pictures = {"curves.png", "predictions.png", "worst.png", "classes.png", "confusion_matrix.png"}
    assert {path.name for path in run.iterdir()} == expected | pictures | {"tensorboard"}
    assert outcome.out.splitlines() == [f"weights: {run}/model.safetensors", f"report:  {run}/report.html"]
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert re.match(rf"epoch {number}/2  loss \d+\.\d+  val mIoU [\d.]+%  pixels right [\d.]+%  lr", line)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert {"val/miou", "val/mean_accuracy", "val/pixel_accuracy"} <= set(next(iter(csv.DictReader(file))))


@pytest.mark.usefixtures("whole_pictures")
def test_its_figures_need_nothing_but_its_folder(program: Program, trained: Smoke, tmp_path: Path) -> None:
    alone = figures_alone(trained[0], tmp_path / "alone")
    assert program("visualize", "run", alone, "--output", "figures").status == 0
    assert differing(Path("figures"), trained[0]) == []


def test_the_commands_on_its_page_work(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    page = unescape((trained[0] / "report.html").read_text(encoding="utf-8"))
    commands = dict(re.findall(r"internimage (predict|test) ([^<\n]+)", page))
    outcome = program("test", *shlex.split(commands["test"]))
    assert outcome.status == 0, outcome
    assert "test/miou " in outcome.out
    shutil.copytree(scenes[0].parent, "IMAGES")
    outcome = program("predict", *shlex.split(commands["predict"]))
    assert outcome.status == 0, outcome
    assert len(json.loads(Path("predictions/predictions.json").read_text(encoding="utf-8"))) == 3


def test_predictions_are_the_segmenters(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    arguments = ["--weights", trained[0], "--device", "cpu", "--flip", "--scales", "[0.75,1]", "--window", "[64,96]"]
    outcome = program("predict", *scenes, *arguments, "--output", "out")
    assert (outcome.status, outcome.err) == (0, ""), outcome
    segmenter = internimage.Segmenter(trained[0], device="cpu", flip=True, scales=(0.75, 1.0), window=(64, 96))
    rows = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    for row, found, path in zip(rows, segmenter(scenes), scenes, strict=True):
        assert row["image"] == str(path)
        assert (row["height"], row["width"]) == found.size
        assert row["shares"] == pytest.approx(found.shares(), abs=1e-6)
        with Image.open(Path("out") / row["map"]) as label_map:
            assert label_map.mode == "P"
            np.testing.assert_array_equal(np.asarray(label_map), found.labels)
            index = int(found.labels[0, 0])
            assert tuple(label_map.getpalette("RGB")[3 * index : 3 * index + 3]) == found.palette[index]
        with Image.open(Path("out/pictures") / f"{path.stem}.jpg") as picture:
            assert min(picture.size) >= min(found.size)
    assert Path("out/classes.txt").read_text(encoding="utf-8").splitlines() == list(segmenter.labels)
    with Path("out/predictions.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == sum(len(row["shares"]) for row in rows)
    assert outcome.out.splitlines()[-1] == "3 of 3 images: out"
    again = program("predict", *scenes, *arguments, "--output", "out")
    assert (
        "out holds predictions.json, predictions.csv, predictions.png, classes.txt, pictures, maps" in again.refusal()
    )


def test_what_it_predicts_can_be_learned_from(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    """Label maps and ``classes.txt`` are laid out as `data check` and training read them."""
    assert program("predict", *scenes, "--weights", trained[0], "--output", "out").status == 0
    shutil.copytree(scenes[0].parent, "set/images")
    shutil.copytree("out/maps", "set/labels")
    shutil.copy("out/classes.txt", "set/classes.txt")
    outcome = program("data", "check", "set")
    assert outcome.status == 0, outcome
    assert "3 of 3 pairs can be read and fit" in outcome.out


@pytest.mark.parametrize(
    ("size", "small"), [((1040, 300), (1040, 300)), ((2100, 1041), (700, 347)), ((3, 1041), (2, 521))]
)
def test_large_images_are_small_on_the_sheet(size: tuple[int, int], small: tuple[int, int]) -> None:
    width, height = size
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    found = SegmentationMap(labels, LabelMap(("sky", "road")), ((0, 0, 255), (90, 90, 90)), source="a.png")
    image, reduced = in_small(Image.new("RGB", size, "red"), found, 1040)
    assert (image.size, reduced.size[::-1], reduced.source) == (small, small, "a.png")
    if width > 3:
        assert reduced.shares() == pytest.approx(found.shares(), abs=2e-3)


def test_overwriting_leaves_nothing_of_the_earlier_images(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    """What somebody put into the same folders stays, and so does an image that is looked at."""
    assert program("predict", *scenes, "--weights", trained[0], "--output", "out").status == 0
    Path("out/maps/mine.png").write_bytes(b"mine")
    again = ["out/pictures/scene_1.jpg", "--weights", trained[0], "--output", "out", "--overwrite"]
    assert program("predict", *again).status == 0
    assert {path.name for path in Path("out/maps").iterdir()} == {"mine.png", "scene_1.png"}
    assert {path.name for path in Path("out/pictures").iterdir()} == {"scene_1.jpg"}
    Path("out/maps/mine.png").unlink()
    (row,) = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    assert row["image"] == "out/pictures/scene_1.jpg"


def test_bad_files_are_reported_at_the_end(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    bad = scenes[0].with_name("broken.png")
    bad.write_bytes(scenes[0].read_bytes()[:200])
    outcome = program("predict", bad, scenes[0], "--weights", trained[0], "--output", "out")
    assert outcome.status == 1
    assert outcome.out.splitlines()[-1] == "1 of 2 images: out"
    assert "broken.png" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--score", 0.5], "--score is for detectors, and "),
        (["--top", 3], "--top is for classifiers, and "),
        (["--scales", "[0]"], "scales must be a list of factors in (0, 16], got [0.0]"),
        (["--window", "[0,5]"], "window must be two positive numbers of pixels"),
        (["--window", "[64,64]", "--stride", "[65,64]"], "stride must not exceed the window (64, 64)"),
        (["--stride", "[65,64]"], "stride (65, 64) goes with a window"),
        (["--batch_size", 0], "--batch_size must be 1 or more"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    program: Program, trained: Smoke, scenes: list[Path], options: list[Any], what: str
) -> None:
    outcome = program("predict", scenes[0], "--weights", trained[0], "--output", "a", *options)
    assert what in outcome.refusal()


def test_options_of_segmenters_are_for_segmenters(program: Program, smoke: Smoke, scenes: list[Path]) -> None:
    outcome = program("predict", scenes[0], "--weights", smoke[0], "--output", "b", "--own_size")
    assert "--own_size is for segmenters, and " in outcome.refusal()
    outcome = program("predict", scenes[0], "--weights", smoke[0], "--output", "b", "--flip")
    assert "--flip is for detectors and segmenters, and " in outcome.refusal()


def test_resumes_and_refuses_other_settings(program: Program, trained: Smoke, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(trained[0], run)
    assert program("fit", "--run", run, "--resume", "--trainer.max_epochs", 3).status == 0
    other = ["--model.init_args.head_options.channels", 16]
    assert "channels=32, not 16" in program("fit", "--run", run, "--resume", *other).refusal()


def test_a_wrong_label_map_is_one_sentence_also_from_a_worker(program: Program, tmp_path: Path) -> None:
    """Which value, in how many pixels, of which file; found while a worker process reads it."""
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / "set" / folder / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "set/images" / split / "a.png")
        labels = np.zeros((64, 64), np.uint8)
        labels[0, :5] = 7 if split == "val" else 1
        Image.fromarray(labels).save(tmp_path / "set/labels" / split / "a.png")
    data = ("--data.init_args.root", tmp_path / "set", "--data.init_args.num_workers", 1)
    outcome = program(
        "fit", "--config", "smoke/segmentation", "--run", "run", *data, "--trainer.num_sanity_val_steps", 1
    )
    assert outcome.status == 2, outcome
    last = outcome.err.splitlines()[-1]
    assert last.startswith("internimage: ")
    assert "labels/val/a.png: value 7 in 5 pixels, but the 2 classes have the values 0 to 1" in last
    assert "Traceback" not in outcome.err
