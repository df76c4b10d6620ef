"""Detection through the real program: fit, test, predict, convert; what they write and what they refuse."""

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
from internimage.data.scenes import Scenes
from support.pictures import differing, figures_alone

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The smoke recipe's run and what was printed."""
    from cli.conftest import call

    folder = tmp_path_factory.mktemp("runs") / "my detector"
    outcome = call("fit", "--config", "smoke/detection", "--run", folder)
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
    expected = {"config.yaml", "metrics.csv", "model.safetensors", "model.json", "results.json", "report.html"}
    expected |= {"starts.jsonl", "log.txt", "evaluation.npz"}
    pictures = {"curves.png", "predictions.png", "worst.png", "precision_recall.png"}
    assert {path.name for path in run.iterdir()} >= expected | {"checkpoints", "tensorboard", "curves.png"}
    assert {path.name for path in run.iterdir()} <= expected | pictures | {"checkpoints", "tensorboard"}
    assert outcome.out.splitlines() == [f"weights: {run}/model.safetensors", f"report:  {run}/report.html"]
    for number, line in enumerate(outcome.err.splitlines(), 1):
        assert re.match(rf"epoch {number}/2  loss \d+\.\d+  val AP [\d.]+%  AP50 [\d.]+%  mask AP [\d.]+%  lr", line)


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
    assert "test/map50 " in outcome.out
    shutil.copytree(scenes[0].parent, "IMAGES")
    outcome = program("predict", *shlex.split(commands["predict"]), "--score", 0.0)
    assert outcome.status == 0, outcome
    assert len(json.loads(Path("predictions/predictions.json").read_text(encoding="utf-8"))) == 3


def test_predictions_are_the_detectors(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    arguments = ["--weights", trained[0], "--device", "cpu", "--score", 0.02, "--limit", 7]
    outcome = program("predict", *scenes, *arguments, "--output", "out")
    assert (outcome.status, outcome.err) == (0, ""), outcome
    found = internimage.Detector(trained[0], device="cpu", score=0.02, limit=7)(scenes)
    rows = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    for row, each, path in zip(rows, found, scenes, strict=True):
        assert row["image"] == str(path)
        assert (row["height"], row["width"]) == each.size
        assert [item["label"] for item in row["objects"]] == list(each.names)
        np.testing.assert_allclose([item["box"] for item in row["objects"]], each.boxes, atol=0.01)
        assert len(each) <= 7
        with Image.open(Path("out/pictures") / f"{path.stem}.jpg") as picture:
            assert min(picture.size) >= min(each.size)
    with Path("out/predictions.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == sum(len(each) for each in found)
    assert outcome.out.splitlines()[-1] == "3 of 3 images: out"


def test_several_looks_are_the_detectors(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    views: dict[str, Any] = {"sides": [64, 96], "flip": True, "merge": "box_voting"}
    asked = ["--weights", trained[0], "--device", "cpu", "--score", 0.02, "--nms", 0.4]
    looks = ["--sides", "[64,96]", "--flip", "--merge", "box_voting"]
    assert program("predict", *scenes, *asked, *looks, "--output", "out").status == 0
    found = internimage.Detector(trained[0], device="cpu", score=0.02, nms=0.4, **views)(scenes)
    rows = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    for row, each in zip(rows, found, strict=True):
        np.testing.assert_allclose([item["box"] for item in row["objects"]], each.boxes, atol=0.01)
        assert len(each) > 0
    assert program("predict", *scenes, *asked, *looks, "--output", "rows", "--format", "jsonl").status == 0
    refusal = program("predict", scenes[0], *asked, "--merge", "soft_nms", "--output", "b").refusal()
    assert "merge soft_nms is for several views; add sides or flip" in refusal
    assert "box_voting" in program("predict", scenes[0], *asked, "--flip", "--merge", "mean", "--output", "c").err


def test_measures_with_several_looks(program: Program, trained: Smoke, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(trained[0], run)
    options = {"sides": "[64,128]", "flip": "true", "merge": "{rule: soft_nms, sigma: 0.3}"}
    given = [f"--model.init_args.test_time.{name}={value}" for name, value in options.items()]
    outcome = program("test", "--run", run, *given, "--trainer.limit_test_batches", 1)
    assert outcome.status == 0, outcome
    said = "at shorter sides of 64, 128 pixels, also mirrored, put together by soft_nms"
    assert said in (run / "report.html").read_text(encoding="utf-8")


def test_bad_files_are_reported_at_the_end(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    bad = scenes[0].with_name("broken.png")
    bad.write_bytes(scenes[0].read_bytes()[:200])
    outcome = program("predict", bad, scenes[0], "--weights", trained[0], "--output", "out")
    assert outcome.status == 1
    assert outcome.out.splitlines()[-1] == "1 of 2 images: out"
    assert "broken.png" in outcome.err
    assert outcome.err.count("\n") == 1


def test_options_of_the_other_task_are_refused(
    program: Program, trained: Smoke, smoke: Smoke, scenes: list[Path]
) -> None:
    outcome = program("predict", scenes[0], "--weights", trained[0], "--output", "a", "--top", 3)
    assert "--top is for classifiers" in outcome.refusal()
    outcome = program("predict", scenes[0], "--weights", smoke[0], "--output", "b", "--score", 0.5)
    assert "--score is for detectors" in outcome.refusal()
    outcome = program("predict", scenes[0], "--weights", trained[0], "--output", "c", "--nms", 7)
    assert "nms must lie in (0, 1]" in outcome.refusal()


def test_converts_to_official_names_and_back(program: Program, trained: Smoke, scenes: list[Path]) -> None:
    assert program("convert", trained[0], "theirs.pth", "--format", "official").status == 0
    assert program("convert", "theirs.pth", "ours.safetensors").status == 0
    again = program("convert", "theirs.pth", "ours.safetensors")
    assert (again.status, "ours.safetensors exists" in again.err) == (2, True)
    assert "no Hugging Face form" in program("convert", trained[0], "x", "--format", "huggingface").refusal()
    detector = internimage.Detector("ours.safetensors", device="cpu")
    assert detector.labels == internimage.Detector(trained[0], device="cpu").labels


def test_resumes_and_refuses_other_settings(program: Program, trained: Smoke, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(trained[0], run)
    more = ["--trainer.max_epochs", 3]
    assert program("fit", "--run", run, "--resume", *more).status == 0
    other = ["--model.init_args.detector_options.fpn_channels", 16]
    assert "fpn_channels=32, not 16" in program("fit", "--run", run, "--resume", *other).refusal()
