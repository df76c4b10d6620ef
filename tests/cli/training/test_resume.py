"""Ctrl-C and after: a real process is stopped by a real signal, and another one goes on."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


def epochs(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [int(float(row["epoch"])) for row in csv.DictReader(file)]


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "internimage", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_ctrl_c_saves_and_resume_goes_on(tmp_path: Path, program: Program) -> None:
    """More epochs than anyone waits for; the command to go on is the one that was printed."""
    run = tmp_path / "my run"
    arguments = ["fit", "--config", "smoke/classification", "--run", "my run", "--trainer.max_epochs", "500"]
    process = start(*arguments, folder=tmp_path)
    try:
        wait_for((run / "metrics.csv").is_file, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not out
    told = err.splitlines()[-1]
    assert told == "stopped; go on with: internimage fit --run 'my run' --resume"
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    done = epochs(run)
    assert state["global_step"] >= 3 * len(done)
    assert "current_model_state" in state, "the moving average is part of the state"
    assert not (run / "model.safetensors").exists()

    words = shlex.split(told.removeprefix("stopped; go on with: internimage "))
    total = len(done) + 2
    outcome = program(*words, "--trainer.max_epochs", total)
    assert outcome.status == 0, outcome
    assert epochs(run) == list(range(total))
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3 * total
    assert (run / "model.safetensors").is_file()
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_a_terminated_run_is_saved_as_well(tmp_path: Path) -> None:
    """SIGTERM is how schedulers and containers stop a process."""
    arguments = ["fit", "--config", "smoke/classification", "--run", "run", "--trainer.max_epochs", "500"]
    process = start(*arguments, "--trainer.limit_train_batches", "2", folder=tmp_path)
    try:
        wait_for((tmp_path / "run" / "metrics.csv").is_file, process)
        process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "go on with: internimage fit --run run --resume" in err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_ctrl_c_before_the_first_step(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, stage: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("internimage.tasks.ClassificationData.setup", interrupted)
    outcome = program("fit", "--config", "smoke/classification", "--run", "run")
    assert (outcome.status, outcome.err) == (130, "stopped\n")


def test_ctrl_c_during_a_test(program: Program, smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, batch: Any, batch_idx: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("internimage.tasks.ClassificationTask.test_step", interrupted)
    outcome = program("test", "--run", smoke[0])
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1] == "stopped"


def test_a_moved_run_is_tested_validated_and_resumed_where_it_is(program: Program, smoke: Smoke) -> None:
    """Its configuration and checkpoints still name the old folder; nothing there may be touched."""
    old = smoke[0]
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    run = Path(shutil.copytree(old, "moved here"))
    outcome = program("validate", "--run", run)
    assert outcome.status == 0, outcome
    assert "val/accuracy" in outcome.out
    outcome = program("test", "--run", run)
    assert outcome.status == 0, outcome
    assert outcome.out.splitlines()[-1] == "report: moved here/report.html"
    assert "test/accuracy_top5" in outcome.out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Test accuracy" in page
    assert "Training</" in page, "the curves of the training are still there"
    outcome = program("fit", "--run", run, "--resume", "--trainer.max_epochs", "3")
    assert outcome.status == 0, outcome
    assert epochs(run) == [0, 1, 2]
    assert outcome.err.startswith("epoch 3/3")
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before


def test_resuming_what_is_finished_changes_nothing(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    page = (run / "report.html").read_bytes()
    outcome = program("fit", "--run", run, "--resume")
    assert outcome.status == 0
    assert "trained already" in outcome.err
    assert (run / "report.html").read_bytes() == page
    assert epochs(run) == [0, 1]


def test_labels_that_do_not_match_the_checkpoint(program: Program, smoke: Smoke, clothes: Path) -> None:
    """The folder's names differ from the sample set's in one letter: T-shirt-top."""
    run = shutil.copytree(smoke[0], "run")
    other = ["--data.init_args.root", clothes, "--data.init_args.preprocess", "{size: 28, mean: [0.5], std: [0.5]}"]
    for command in (["test", "--run", run], ["validate", "--run", run], ["fit", "--run", run, "--resume"]):
        outcome = program(*command, *other)
        message = outcome.err.splitlines()[-1]
        assert (outcome.status, "Traceback" in outcome.err) == (2, False)
        assert "was trained for 10 classes (T-shirt/top, " in message
        assert "but the data has 10 classes (Ankle boot, " in message


def test_another_network_than_the_checkpoints(program: Program, smoke: Smoke) -> None:
    run = shutil.copytree(smoke[0], "run")
    message = program("test", "--run", run, "--model.init_args.model", "internimage_pico").refusal()
    assert "best.ckpt holds InternImage-femto" in message
    assert "the run's settings say InternImage-pico" in message


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def test_a_damaged_checkpoint(program: Program, smoke: Smoke) -> None:
    """It is named. Training goes on from the one before; measuring never measures another one in silence."""
    run = Path(shutil.copytree(smoke[0], "run"))
    states = run / "checkpoints"
    cut(states / "best.ckpt")
    cut(states / "last.ckpt")
    assert f"{states}/best.ckpt is damaged or cut short" in program("test", "--run", run).refusal()
    outcome = program("fit", "--run", run, "--resume")
    assert outcome.status == 0, outcome
    said = outcome.err.splitlines()
    assert said[0].startswith(f"{states}/last.ckpt is damaged or cut short")
    assert said[0].endswith(f"going on from the state before, {states}/previous.ckpt")
    assert said[1].startswith("epoch 2/2")
    assert torch.load(states / "last.ckpt", weights_only=True)["global_step"] == 6
    for name in ("last.ckpt", "previous.ckpt"):
        cut(states / name)
    refusal = program("fit", "--run", run, "--resume").refusal()
    assert "last.ckpt is damaged" in refusal
    assert "previous.ckpt is damaged" in refusal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_ends_a_training_in_one_sentence(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    states = run / "checkpoints"
    before = {name: (states / name).read_bytes() for name in ("best.ckpt", "last.ckpt")}
    for name in before:
        (states / f"{name}.partial").symlink_to("/dev/full")
    outcome = program("fit", "--run", run, "--resume", "--trainer.max_epochs", 3)
    assert outcome.status != 0
    assert "could not be written, the disk is full; the state before is kept" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def test_a_resumed_run_does_not_fetch_the_weights_it_started_from(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(config.replace("pretrained: false", "pretrained: gone.pth"), encoding="utf-8")
    assert program("validate", "--run", run).status == 0
    assert program("fit", "--run", run, "--resume").status == 0
    assert "pretrained: gone.pth" in (run / "config.yaml").read_text(encoding="utf-8"), "the record stays true"
