"""`internimage fit`, `validate` and `test` through the real program: what they write, and what they refuse."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from internimage import Classifier
from internimage.data import SAMPLE_LABELS

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
# Lightning's, on the way into the parser.
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
FILES = {
    "config.yaml",
    "metrics.csv",
    "model.safetensors",
    "model.json",
    "curves.png",
    "predictions.png",
    "mistakes.png",
    "confusion_matrix.png",
    "evaluation.npz",
    "report.html",
    "checkpoints",
    "tensorboard",
    "starts.jsonl",
    "log.txt",
}
RECIPE = ("fit", "--config", "smoke/classification")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_fit_leaves_a_complete_folder(smoke: Smoke) -> None:
    run, outcome = smoke
    assert {path.name for path in run.iterdir()} == FILES
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert len(list((run / "tensorboard").glob("events.out.tfevents.*"))) == 1
    assert not list(run.rglob("*.partial"))
    assert outcome.out.splitlines() == [f"weights: {run}/model.safetensors", f"report:  {run}/report.html"]


def test_fit_says_how_it_goes_and_nothing_else(smoke: Smoke) -> None:
    _, outcome = smoke
    lines = outcome.err.splitlines()
    assert len(lines) == 2, outcome.err
    for number, line in enumerate(lines, 1):
        assert re.match(rf"epoch {number}/2  loss \d\.\d+  val loss \d\.\d+  val accuracy [\d.]+%  lr", line), line


def test_every_file_on_the_page_is_there(smoke: Smoke) -> None:
    run, _ = smoke
    page = unescape((run / "report.html").read_text(encoding="utf-8"))
    linked = {name.removeprefix("./") for name in re.findall(r'href="([^"#]+)"', page)}
    assert {"model.safetensors", "config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= linked
    for name in linked:
        assert (run / name).exists(), name


def test_the_weights_predict(smoke: Smoke) -> None:
    run, _ = smoke
    classifier = Classifier(run, device="cpu")
    assert classifier.labels == SAMPLE_LABELS
    described = json.loads((run / "model.json").read_text(encoding="utf-8"))
    assert described["labels"] == list(SAMPLE_LABELS)
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(classifier.model.state_dict()["head.fc.weight"], state["state_dict"]["network.head.fc.weight"])


def test_the_kept_configuration_is_complete(smoke: Smoke) -> None:
    run, _ = smoke
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["init_args"]["model"] == "internimage_femto"
    assert config["model"]["init_args"]["optimizer"]["weight_decay"] == 0.05, "defaults are written down too"
    assert config["data"]["init_args"]["augmentation"]["padding"] == 2
    assert (config["run"], config["resume"], config["overwrite"]) == (str(run), False, False)
    assert config["seed_everything"] == 0


def test_the_same_seed_gives_the_same_run(program: Program, smoke: Smoke) -> None:
    """From the kept configuration, in a relative folder with dots in it."""
    run, _ = smoke
    Path("here").mkdir()
    assert program("fit", "--config", run / "config.yaml", "--run", "here/../again").status == 0
    assert rows(Path("again")) == rows(run)
    short = ("--trainer.max_epochs", 1, "--model.init_args.optimizer.warmup_epochs", 0)
    assert program("fit", "--run", "again", "--overwrite", "--seed_everything", 1, *short).status == 0
    assert rows(Path("again"))[0]["val/loss"] != rows(run)[0]["val/loss"]


def test_a_run_is_never_replaced_by_accident(program: Program, smoke: Smoke) -> None:
    run, _ = smoke
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    message = program(*RECIPE, "--run", run).refusal()
    assert f"{run} holds a run already; choose another --run, go on with --resume, or pass --overwrite" in message
    assert program("fit", "--run", run).status == 2, "also with its own configuration"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_overwriting_with_settings_that_fail_keeps_the_old_run(program: Program, smoke: Smoke) -> None:
    run = shutil.copytree(smoke[0], "run")
    for settings in (
        ["--data.init_args.root", "missing"],
        ["--model.init_args.model", "internimage_huge"],
        ["--trainer.accelerator", "gpu"] if not torch.cuda.is_available() else ["--ema", "7"],
    ):
        assert program(*RECIPE, "--run", run, "--overwrite", *settings).status == 2
        assert (Path(run) / "checkpoints" / "best.ckpt").is_file()
        assert rows(Path(run)) == rows(smoke[0])


def test_overwrite_replaces_the_run_and_keeps_what_is_not_its_own(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    (run / "notes.txt").write_text("mine", encoding="utf-8")
    logs = {path.name for path in (run / "tensorboard").iterdir()}
    short = ("--trainer.max_epochs", 1, "--model.init_args.optimizer.warmup_epochs", 0)
    assert program(*RECIPE, "--run", run, "--overwrite", *short).status == 0
    assert len(rows(run)) == 1
    assert (run / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not logs & {path.name for path in (run / "tensorboard").glob("events*")}


def test_folders_that_are_not_a_runs(program: Program) -> None:
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("years of work", encoding="utf-8")
    for extra in ([], ["--overwrite"]):
        message = program(*RECIPE, "--run", "full", *extra).refusal()
        assert "full holds other files; choose an empty or a new folder" in message
    assert Path("full/thesis.tex").exists()
    Path("file").touch()
    assert "file can't be made a folder (File exists)" in program(*RECIPE, "--run", "file").refusal()
    for path in ("/dev/null/x", "file/below"):
        assert f"{path} can't be made a folder (Not a directory)" in program(*RECIPE, "--run", path).refusal()


def test_a_run_that_failed_at_the_start_is_no_obstacle(program: Program) -> None:
    """It leaves nothing, or what is not worth keeping: mend the setting and start again."""
    few = ("--trainer.max_steps", 1, "--model.init_args.optimizer.warmup_epochs", 0.9)
    assert program(*RECIPE, "--run", "run", *few).status == 2
    assert not list(Path("run").iterdir())
    Path("run/tensorboard").mkdir()
    Path("run/config.yaml").touch()
    assert program(*RECIPE, "--run", "run", "--trainer.fast_dev_run", 1).status == 0


def test_a_setting_that_cannot_be_costs_no_older_run(program: Program, smoke: tuple[Path, Any]) -> None:
    shutil.copytree(smoke[0], "run")
    again = (*RECIPE, "--run", "run", "--overwrite", "--model.init_args.optimizer.warmup_epochs", 9)
    assert "optimizer.warmup_epochs must be less than the training's" in program(*again).refusal()
    assert {path.name for path in Path("run").iterdir()} == {path.name for path in smoke[0].iterdir()}


@pytest.mark.parametrize("logger", ["false", "true", "{class_path: CSVLogger, init_args: {save_dir: own}}"])
def test_loggers_of_the_users_own_are_kept(program: Program, logger: str) -> None:
    short = ("--trainer.max_epochs", 1, "--model.init_args.optimizer.warmup_epochs", 0)
    assert program(*RECIPE, "--run", "run", *short, "--trainer.logger", logger).status == 0
    assert Path("run/tensorboard").is_dir() == (logger != "false")
    assert Path("own").is_dir() == ("CSV" in logger)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--run", "nowhere", "--resume"], "nowhere holds no run"),
        (["test", "--run", "nowhere"], "nowhere holds no run: there is no config.yaml in it"),
        (["validate", "--run", "nowhere"], "nowhere holds no run"),
        ([*RECIPE, "--run", "new", "--resume"], "new has no checkpoints/last.ckpt: there is nothing to resume"),
        ([*RECIPE, "--run", "new", "--ema", "1.5"], "ema must be a decay in [0, 1), such as 0.999, got 1.5"),
        (["fit"], "the following arguments are required: data, model; begin with a recipe"),
        (["fit", "--config", "nonsense"], "no configuration 'nonsense': not a file, and the shipped ones are"),
        ([*RECIPE, "--run", "new", "--model.init_args.depth", "3"], "depth"),
        ([*RECIPE, "--run", "new", "--nonsense", "3"], "--nonsense"),
        ([*RECIPE, "--run", "new", "--trainer.max_epochs", "many"], "trainer.max_epochs"),
        ([*RECIPE, "--run", "new", "--trainer.precision", "7-bit"], "precision"),
        ([*RECIPE, "--run", "new", "--model.init_args.model", "resnet50"], "unknown model 'resnet50'; choose from"),
        ([*RECIPE, "--run", "new", "--model.init_args.model_options", "{depth: 3}"], "unknown settings ['depth']"),
        ([*RECIPE, "--run", "new", "--data.init_args.batch_size", "0"], "batch_size must be at least 1, got 0"),
        ([*RECIPE, "--run", "new", "--data.init_args.augmentation.mixup", "-1"], "mixup must be 0 or more"),
        ([*RECIPE, "--run", "new", "--model.init_args.pretrained", "no.pth"], "no weights at no.pth"),
    ],
)
def test_what_is_wrong_is_one_sentence(program: Program, arguments: list[str], message: str) -> None:
    assert message in program(*arguments).refusal()
    assert not list(Path().glob("new/**/*")), "nothing may be left where nothing was trained"


def test_configurations_that_cannot_be_read(program: Program) -> None:
    Path("broken.yaml").write_text("model: [1, 2\ndata: x", encoding="utf-8")
    assert "broken.yaml is not valid YAML" in program("fit", "--config", "broken.yaml").refusal()
    Path("picture.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert "picture.yaml is not a text file" in program("fit", "--config", "picture.yaml").refusal()
    Path("unknown.yaml").write_text("modell:\n  class_path: ClassificationTask\n", encoding="utf-8")
    assert "modell" in program("fit", "--config=unknown.yaml").refusal()
    text = "model:\n  class_path: ClassificationTask\n  init_args:\n    optimizer: {learning_rate: 1}\n"
    Path("deep.yaml").write_text(text, encoding="utf-8")
    assert "Option 'learning_rate' is not accepted" in program("fit", "-c", "deep.yaml").refusal()


def test_offline_pretrained_says_what_to_download(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_WEIGHTS", "/my/weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = ["--model.init_args.model", "internimage_t", "--model.init_args.pretrained", "true"]
    message = program(*RECIPE, "--run", "new", *settings).refusal()
    assert "internimage_t.in1k_224 could not be downloaded" in message
    assert "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth" in message
    assert "put it at /my/weights/internimage_t_1k_224.pth" in message


def test_our_options_are_in_the_help(program: Program) -> None:
    outcome = program("fit", "--help")
    assert outcome.status == 0
    for option in ("--run", "--resume", "--overwrite", "--ema", "--config", "--trainer.max_epochs"):
        assert option in outcome.out, option
    printed = program(*RECIPE, "--print_config")
    assert printed.status == 0
    assert yaml.safe_load(printed.out)["data"]["init_args"]["root"] == "sample"
