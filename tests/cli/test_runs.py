"""`internimage runs` puts runs side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


def metrics(*accuracies: float | None) -> str:
    lines = ["epoch,step,lr,train/loss,val/accuracy,seconds"]
    lines += [f"{i},{i},0.1,1.0,{'' if value is None else value},{60 * (i + 1)}" for i, value in enumerate(accuracies)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def runs(program: Program, smoke: Smoke) -> Path:
    """Three runs: one as it came, one that was better early, one that died before it was measured."""
    folder = Path("runs")
    for name in ("a", "b", "c"):
        shutil.copytree(smoke[0], folder / name)
    (folder / "a" / "metrics.csv").write_text(metrics(0.5, 0.6), encoding="utf-8")
    (folder / "b" / "metrics.csv").write_text(metrics(0.7, 0.9, 0.8), encoding="utf-8")
    (folder / "c" / "metrics.csv").unlink()
    (folder / "c" / "model.safetensors").unlink()
    config = folder / "b" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("layer_decay: 1.0", "layer_decay: 0.5"), encoding="utf-8")
    assert "layer_decay: 0.5" in config.read_text(encoding="utf-8")
    return folder


def test_the_best_run_comes_first(program: Program, runs: Path) -> None:
    lines = program("runs").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["runs/b", "runs/a", "runs/c"]
    assert lines[1].split()[1:8] == ["femto", "sample", "90.00%", "accuracy", "2", "3/2", "3.0"]
    assert "not finished" not in lines[1]
    assert lines[3].split()[1:6] == ["femto", "sample", "-", "accuracy", "-"]
    assert lines[3].endswith("not finished")


@pytest.mark.parametrize(("key", "order"), [("name", "abc"), ("time", "bac")])
def test_other_orders(program: Program, runs: Path, key: str, order: str) -> None:
    lines = program("runs", "runs", "--sort", key).out.splitlines()
    assert "".join(line.split()[0].removeprefix("runs/") for line in lines[1:]) == order


def test_settings_that_differ(program: Program, runs: Path) -> None:
    out = program("runs", "runs/a", "runs/b", "--settings").out
    head, *rows = out.split("\n\n")[1].splitlines()
    assert head.split() == ["setting", "b", "a"]
    assert [row.split() for row in rows] == [["model.init_args.optimizer.layer_decay", "0.5", "1"]]
    assert "no setting differs" in program("runs", "runs/a", "runs/c", "--settings").out


def test_json_has_all(program: Program, runs: Path) -> None:
    found = json.loads(program("runs", "--json").out)
    assert [run["best"] for run in found] == [0.9, 0.6, None]
    assert found[0]["settings"]["model.init_args.optimizer.layer_decay"] == 0.5
    assert found[0]["started"]
    assert len(found[0]["commit"].rstrip("+")) in (0, 9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("elsewhere",), "there is no folder elsewhere"),
        (("empty",), "empty holds no run"),
        (("--sort", "colour"), "--sort must be one of name, best, time, started; got 'colour'"),
    ],
)
def test_refusals(program: Program, runs: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("empty").mkdir()
    assert said in program("runs", *arguments).refusal()
