"""A run's folder says of what code, command and machine it is, and what was said while it trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from internimage.cli.training.provenance import describe_start, git_state, read_starts

Program = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
SMOKE = ("fit", "--config", "smoke/classification", "--run", "run", "--trainer.limit_train_batches", "2")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_each_start_has_a_line(program: Program) -> None:
    assert program(*SMOKE).status == 0
    assert program("fit", "--run", "run", "--resume", "--trainer.max_epochs", "3").status == 0
    first, second = read_starts(Path("run"))
    assert first["command"] == " ".join(["internimage", *SMOKE])
    assert second["command"] == "internimage fit --run run --resume --trainer.max_epochs 3"
    assert (first["resumed"], second["resumed"]) == (False, True)
    assert first["machine"]["processes"] == 1
    assert first["packages"].keys() >= {"torch", "lightning", "timm"}
    log = Path("run/log.txt").read_text(encoding="utf-8")
    assert [line.split()[3] for line in log.splitlines() if " info epoch " in line] == ["epoch", "epoch", "epoch"]
    assert log.count("internimage fit") == 2


def test_an_error_is_in_the_log_with_its_place(program: Program) -> None:
    """The program prints a sentence; who looks for the place in the code finds it in the folder."""
    result = program(*SMOKE, "--model.init_args.optimizer.lr", "1e30", "--model.init_args.optimizer.warmup_epochs", "0")
    assert "not finite" in result.refusal()
    log = Path("run/log.txt").read_text(encoding="utf-8")
    assert "Traceback" in log
    assert "DivergedError: the loss is not finite" in log


def test_a_new_run_begins_a_new_log(program: Program) -> None:
    program(*SMOKE)
    program(*SMOKE, "--overwrite")
    assert len(read_starts(Path("run"))) == 1
    assert Path("run/log.txt").read_text(encoding="utf-8").count("internimage fit") == 1


def test_the_commit_and_whether_files_differ(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None, "no commit yet"
    (tmp_path / "train.py").write_text("1", encoding="utf-8")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    assert git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    (tmp_path / "notes.txt").write_text("untracked files change nothing", encoding="utf-8")
    assert git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    (tmp_path / "train.py").write_text("2", encoding="utf-8")
    assert git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": True}


def test_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    start = describe_start(["internimage", "fit"], resumed=False, processes=1)
    assert start["code"] is start["project"] is None
    json.dumps(start)


def test_secrets_of_the_environment_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    start = describe_start(["internimage", "fit"], resumed=False, processes=1)
    assert "secret" not in json.dumps(start)
    assert start["environment"]["OMP_NUM_THREADS"] == "3"


def test_lines_that_were_cut_short_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "starts.jsonl").write_text('{"time": "a"}\n{"time": ', encoding="utf-8")
    assert read_starts(tmp_path) == [{"time": "a"}]


# Two whole programs, for a library of others.
@pytest.mark.slow
def test_weights_and_biases_goes_on_with_the_run(tmp_path: Path) -> None:
    """The library itself, without a network; in processes of their own, since it stays once it has begun."""
    environment = os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}

    def fit(*arguments: str) -> None:
        command = [sys.executable, "-m", "internimage", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    fit(*SMOKE, "--wandb", "clothes")
    number = (tmp_path / "run" / "wandb.txt").read_text(encoding="utf-8").strip()
    fit("fit", "--run", "run", "--resume", "--trainer.max_epochs", "3")
    assert (tmp_path / "run" / "wandb.txt").read_text(encoding="utf-8").strip() == number
    written = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb"))
    assert len(written) == 2, "one for each start, of one run"
    first = written[0].read_bytes()
    assert b"clothes" in first
    assert b"val/accuracy" in first
    assert b"model.init_args.optimizer.lr" in first
