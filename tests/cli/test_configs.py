"""Every recipe that ships goes through the real parser and builds its trainer, data and network (without memory)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from html import unescape
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage import InternImageConfig
from internimage.cli.configs import find_config, resolve_config_names, shipped_configs
from internimage.cli.training.arguments import complete
from internimage.cli.training.program import TrainingCLI
from internimage.data import export_samples
from internimage.model import WEIGHTS
from internimage.training import param_groups

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended:UserWarning"),
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You passed .*16-mixed.* but AMP with fp16 is not supported on CPU:UserWarning"),
]
NAMES = sorted(shipped_configs())


# Folders beside this file build those of other tasks.
# Those with DCNv4 differ from their sisters in what tests/cli/test_flash_configs.py looks at.
@pytest.mark.parametrize("name", [name for name in NAMES if not re.search("detection|segmentation|flash", name)])
def test_a_recipe_builds(name: str, clothes: Path, tmp_path: Path) -> None:
    root = [] if name in ("classification/demo", "smoke/classification") else ["--data.init_args.root", str(clothes)]
    given = ["--config", name, "--run", str(tmp_path / "run"), "--trainer.accelerator", "cpu", *root]
    # On the meta device even the largest network takes no memory; released weights are not here.
    with torch.device("meta"):
        cli = TrainingCLI("fit", complete("fit", [*given, "--model.init_args.pretrained", "false"]))
    task, settings = cli.model, cli.model.optimizer_settings
    assert all(parameter.is_meta for parameter in task.network.parameters())
    assert task.network.num_classes == len(cli.datamodule.labels) == 10
    assert 0 <= settings.warmup_epochs < cli.trainer.max_epochs
    assert settings.warmup_lr < settings.lr
    assert settings.min_lr < settings.lr
    rates = {"lr": settings.lr, "weight_decay": settings.weight_decay, "layer_decay": settings.layer_decay}
    groups = param_groups(task.network, **rates, depths=task.depths, offset_lr_scale=settings.offset_lr_scale)
    assert sum(len(group["params"]) for group in groups) == len(list(task.network.parameters()))
    assert not list((tmp_path / "run").iterdir()), "nothing is written before training begins"
    cli.keep_config()
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize("name", [name for name in NAMES if Path(name).name.startswith("internimage_")])
def test_a_published_recipe_is_that_of_its_weights(name: str, clothes: Path, tmp_path: Path) -> None:
    """The name says the model and the weights, and their image size is the recipe's."""
    weights = WEIGHTS[Path(name).name.replace("_in", ".in", 1)]
    given = ["--config", name, "--run", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    with torch.device("meta"):
        root = ["--data.init_args.root", str(clothes), "--model.init_args.pretrained", "false"]
        cli = TrainingCLI("fit", complete("fit", [*given, *root]))
    assert cli.datamodule.preprocess.size == weights.image_size
    built = cli.model.network.config
    expected = InternImageConfig.from_variant(weights.model, num_classes=10, drop_path_rate=built.drop_path_rate)
    expected = expected.to_dict() | {"gradient_checkpointing": built.gradient_checkpointing}
    assert built.to_dict() == expected


# Testing draws the run's pictures anew, and others look at them.
@pytest.mark.usefixtures("whole_pictures")
def test_the_smoke_recipe_trains_tests_and_predicts(program: Program, smoke: Smoke, tmp_path: Path) -> None:
    """By the commands on the run's own page; other tasks' tests do the same. A new recipe needs such a test."""
    tasks = ("classification", "detection", "segmentation")
    assert [name for name in NAMES if name.startswith("smoke/")] == [f"smoke/{task}" for task in tasks]
    page = unescape((smoke[0] / "report.html").read_text(encoding="utf-8"))
    commands = dict(re.findall(r"internimage (predict|test) ([^<\n]+)", page))
    outcome = program("test", *shlex.split(commands["test"]))
    assert outcome.status == 0, outcome
    assert "test/accuracy " in outcome.out
    export_samples(tmp_path / "IMAGES", "test", 3)
    outcome = program("predict", *shlex.split(commands["predict"]))
    assert outcome.status == 0, outcome
    assert len(json.loads(Path("predictions/predictions.json").read_text(encoding="utf-8"))) == 3


def test_every_recipe_says_what_it_is_and_how_to_run_it() -> None:
    for name, path in shipped_configs().items():
        lines = path.read_text(encoding="utf-8").splitlines()
        head = list(takewhile(lambda line: line.startswith("#"), lines))
        assert len(head) >= 2, name
        assert any("internimage " in line for line in head), f"{name} has no command"


def test_recipes_are_found_by_name(tmp_path: Path) -> None:
    assert find_config("demo") == find_config("classification/demo") == find_config("classification/demo.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("ema: 0.9\n", encoding="utf-8")
    assert find_config(str(own)) == own
    with pytest.raises(ValueError, match=r"the shipped ones are .*smoke/classification"):
        find_config("nonsense")
    with pytest.raises(ValueError, match="'scenes' stands for detection/scenes and segmentation/scenes; give one"):
        find_config("scenes")


def test_arguments_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(find_config("finetune"))
    assert resolve_config_names(["-c", "finetune", "--run", "x"]) == ["-c", path, "--run", "x"]
    assert resolve_config_names(["--config=finetune"]) == [f"--config={path}"]
    assert complete("fit", ["--config", "finetune"]) == ["--config", path, "--run", "runs/finetune"]
    assert complete("fit", ["-c", "finetune"]) == ["-c", path, "--run", "runs/finetune"]
    assert complete("fit", ["--config", "finetune", "--run=y"]) == ["--config", path, "--run=y"]
    Path("y").mkdir()
    Path("y/config.yaml").write_text("{}", encoding="utf-8")
    assert complete("test", ["--run=y"]) == ["--config", "y/config.yaml", "--run=y"]
    assert complete("test", ["--config", "y/config.yaml"]) == ["--config", "y/config.yaml"]
    Path("own.yaml").write_text("run: z\n", encoding="utf-8")
    assert complete("fit", ["-c", "own.yaml"]) == ["-c", "own.yaml"]
    assert complete("fit", ["--config", path, "--config=own.yaml"]) == ["--config", path, "--config=own.yaml"]
    assert complete("fit", ["--model", "x", "--data", "y"]) == ["--model", "x", "--data", "y"]
