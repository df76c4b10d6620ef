"""Which state a command starts from, and what a refused or impossible command leaves as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
RECIPE = ("fit", "--config", "smoke/classification")


@pytest.fixture
def run(smoke: Smoke, program: Program) -> Path:
    """A copy of the finished run that may be changed."""
    return Path(shutil.copytree(smoke[0], "run"))


@pytest.mark.parametrize("command", ["test", "validate"])
def test_without_a_best_state_the_last_one_is_measured(program: Program, run: Path, command: str) -> None:
    """A training without validation has no best epoch."""
    expected = [line for line in program(command, "--run", run).out.splitlines() if "accuracy" in line]
    # Two epochs of the smoke recipe; make the last one's weights recognisable.
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    torch.save(best, run / "checkpoints/last.ckpt")
    (run / "checkpoints/best.ckpt").unlink()
    outcome = program(command, "--run", run)
    assert outcome.status == 0, outcome
    assert [line for line in outcome.out.splitlines() if "accuracy" in line] == expected
    assert "run has no checkpoints/best.ckpt: the last state is measured" in outcome.err
    assert "as it was built" not in outcome.err


@pytest.mark.parametrize(
    "settings",
    [
        ["--model.init_args.model", "internimage_pico"],
        ["--model.init_args.optimizer.betas", "[2.0, 0.9]"],
    ],
    ids=["another model", "bad settings"],
)
def test_a_refused_resumption_leaves_the_run_as_it_was(program: Program, run: Path, settings: list[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    outcome = program("fit", "--run", run, "--resume", *settings)
    assert outcome.status == 2, outcome
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert program("test", "--run", run).status == 0
    longer = program("fit", "--run", run, "--resume", "--trainer.max_epochs", "3")
    assert longer.status == 0, longer
    assert "max_epochs: 3" in (run / "config.yaml").read_text(encoding="utf-8"), "what is trained is written down"


def test_a_folder_named_in_the_configuration_is_used(program: Program) -> None:
    text = "run: mine/here\n" + Path(shutil.copy(smoke_recipe(), "own.yaml")).read_text(encoding="utf-8")
    Path("own.yaml").write_text(text, encoding="utf-8")
    short = ("--trainer.max_epochs", 1, "--model.init_args.optimizer.warmup_epochs", 0)
    outcome = program("fit", "--config", "own.yaml", *short)
    assert outcome.status == 0, outcome
    assert Path("mine/here/model.safetensors").is_file()
    assert not Path("runs").exists()


def smoke_recipe() -> Path:
    from internimage.cli.configs import find_config

    return find_config("smoke/classification")


def test_a_measurement_is_told_even_if_its_page_cannot_be_written(
    program: Program, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "run/report.html")

    monkeypatch.setattr("internimage.tasks.classification.report.write_report", refuse)
    outcome = program("test", "--run", run)
    assert outcome.status == 2
    assert "test/accuracy " in outcome.out
    assert "report:" not in outcome.out
    assert outcome.err.splitlines()[-1] == "internimage: run/report.html: Permission denied"


def test_a_folder_that_cannot_be_written_is_not_resumed(
    program: Program, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run and usual(path, mode))
    assert "run can't be written to" in program("fit", "--run", run, "--resume").refusal()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_run(program: Program, run: Path) -> None:
    run.chmod(0o555)
    try:
        assert "run can't be written to" in program("fit", "--run", run, "--resume").refusal()
        outcome = program("test", "--run", run)
        assert (outcome.status, "test/accuracy " in outcome.out) == (2, True)
    finally:
        run.chmod(0o755)


def test_a_diverged_training_says_so_and_keeps_the_last_good_state(program: Program, run: Path) -> None:
    last = (run / "checkpoints/last.ckpt").read_bytes()
    wild = ("--trainer.max_epochs", "4", "--model.init_args.optimizer.lr", "1e30")
    outcome = program("fit", "--run", run, "--resume", *wild, "--trainer.gradient_clip_val", "null")
    if outcome.status == 0:
        # The resumed schedule kept its rates.
        pytest.skip("the rate did not take effect")
    assert outcome.status == 2
    assert "the loss is not finite at step " in outcome.err.splitlines()[-1]
    assert (run / "checkpoints/last.ckpt").read_bytes() == last
    assert program("test", "--run", run).status == 0


def test_a_new_training_that_diverges(program: Program) -> None:
    wild = ("--model.init_args.optimizer.lr", "1e30", "--model.init_args.optimizer.warmup_epochs", 0)
    outcome = program(*RECIPE, "--run", "new", *wild, "--trainer.gradient_clip_val", "null")
    assert "lower optimizer.lr or clip gradients (trainer.gradient_clip_val)" in outcome.refusal()
    assert not list(Path("new").glob("checkpoints/*"))
