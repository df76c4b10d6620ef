"""An old run is replaced only when a new training really begins, and only what runs make is removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from internimage.cli import training
from internimage.data import export_samples

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
RECIPE = ("fit", "--config", "smoke/classification")
SHORT = ("--trainer.max_epochs", 1, "--model.init_args.optimizer.warmup_epochs", 0)


def contents(run: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(run)): path.read_bytes() if path.is_file() else None for path in run.rglob("*")}


@pytest.mark.parametrize(
    "settings",
    [
        ["--trainer.max_steps", 1, "--model.init_args.optimizer.warmup_epochs", 0.9],
        ["--trainer.max_epochs", -1],
        ["--trainer.limit_train_batches", 0.0001],
        ["--model.init_args.optimizer.layer_decay", 2],
        ["--model.init_args.optimizer.betas", "[2.0, 0.9]"],
        ["--trainer.val_check_interval", 1000],
    ],
    ids=lambda settings: settings[0].split(".")[-1],
)
def test_a_setting_found_wrong_late_costs_no_older_run(program: Program, smoke: Smoke, settings: list[Any]) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    before = contents(run)
    assert program(*RECIPE, "--run", run, "--overwrite", *settings).refusal()
    assert contents(run) == before


def test_ctrl_c_before_the_first_step_costs_no_older_run(
    program: Program, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    run = Path(shutil.copytree(smoke[0], "run"))
    before = contents(run)
    monkeypatch.setattr("internimage.tasks.ClassificationTask.configure_optimizers", interrupted)
    outcome = program(*RECIPE, "--run", run, "--overwrite")
    assert (outcome.status, outcome.err) == (130, "stopped before the first step: nothing to resume\n")
    assert contents(run) == before


def test_linked_folders_are_unlinked_and_what_they_lead_to_stays(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    for name in ("checkpoints", "tensorboard"):
        (run / name).rename(f"kept {name}")
        (run / name).symlink_to(Path(f"kept {name}").resolve())
    before = {name: contents(Path(f"kept {name}")) for name in ("checkpoints", "tensorboard")}
    outcome = program(*RECIPE, "--run", run, "--overwrite", *SHORT)
    assert outcome.status == 0, outcome
    for name, old in before.items():
        assert not (run / name).is_symlink()
        new = contents(run / name)
        assert new
        assert not set(new.values()) & set(old.values()) - {None, b"{}\n"}
        now = contents(Path(f"kept {name}"))
        assert {key: now.get(key) for key in old} == old


def test_a_trial_run_is_no_obstacle(program: Program) -> None:
    """It leaves a page and pictures, but nothing that was learned."""
    assert program(*RECIPE, "--run", "run", "--trainer.fast_dev_run", 1).status == 0
    assert {"config.yaml", "metrics.csv"} <= {path.name for path in Path("run").iterdir()}
    assert program(*RECIPE, "--run", "run", *SHORT).status == 0


def test_a_report_of_a_test_without_a_run_is_no_obstacle(program: Program) -> None:
    assert program("test", "--config", "smoke/classification", "--run", "run").status == 0
    assert Path("run/report.html").is_file()
    assert program(*RECIPE, "--run", "run", *SHORT).status == 0


def test_notes_beside_an_overwritten_run_that_failed(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    shutil.rmtree(run / "checkpoints")
    (run / "model.safetensors").unlink()
    (run / "notes.txt").write_text("mine", encoding="utf-8")
    assert "run holds other files" in program(*RECIPE, "--run", run).refusal()
    assert program(*RECIPE, "--run", run, "--overwrite", *SHORT).status == 0
    assert (run / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_weights_alone_are_worth_asking(program: Program, smoke: Smoke) -> None:
    run = Path(shutil.copytree(smoke[0], "run"))
    shutil.rmtree(run / "checkpoints")
    assert "run holds a run already" in program(*RECIPE, "--run", run).refusal()
    Path("weights").mkdir()
    shutil.copy(run / "model.safetensors", "weights")
    for extra in ([], ["--overwrite"]):
        assert "weights holds other files" in program(*RECIPE, "--run", "weights", *extra).refusal()


class TestDemo:
    """It replaces an earlier demo, and nothing else."""

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = whole = training.main

        def main(command: str, arguments: list[str]) -> int:
            fewer = ["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
            fewer = [*fewer, "--trainer.max_epochs", "1", "--model.init_args.optimizer.warmup_epochs", "0"]
            return whole(command, [*arguments, *(fewer if command == "fit" else ["--trainer.limit_test_batches", "1"])])

        monkeypatch.setattr(training, "main", main)

    def test_another_run_is_not_replaced(self, program: Program, smoke: Smoke) -> None:
        run = Path(shutil.copytree(smoke[0], "run"))
        before = contents(run)
        assert "run holds a run that is no demo; choose another --run" in program("quickstart", "--run", run).refusal()
        assert contents(run) == before

    def test_an_earlier_demo_is(self, program: Program) -> None:
        for _ in range(2):
            outcome = program("quickstart", "--run", "run")
            assert outcome.status == 0, outcome
        assert len(list(Path("run/pictures").rglob("*.png"))) == 20

    def test_so_is_one_that_was_stopped_while_it_trained(self, program: Program) -> None:
        trial = ["--config", "classification/demo", "--run", "run", "--trainer.fast_dev_run", "1"]
        assert self.whole("fit", trial) == 0
        config = Path("run/config.yaml")
        config.write_text(
            config.read_text(encoding="utf-8").replace("fast_dev_run: 1", "fast_dev_run: false"), encoding="utf-8"
        )
        assert program("quickstart", "--run", "run").status == 0

    def test_pictures_of_ones_own_are_not(self, program: Program) -> None:
        export_samples(Path("mine/pictures"), "test", 1)
        assert "mine holds other files" in program("quickstart", "--run", "mine").refusal()
        assert len(list(Path("mine").rglob("*.png"))) == 1


def test_beginning_anew_where_nothing_was_finished(program: Program, smoke: Smoke) -> None:
    """--auto_resume begins over what died before its first state, and never over finished weights."""
    run = Path(shutil.copytree(smoke[0], "run"))
    for name in ("last.ckpt", "previous.ckpt"):
        (run / "checkpoints" / name).unlink()
    again = ("fit", "--config", "smoke/classification", "--run", run, "--auto_resume")
    assert "holds a run already" in program(*again).refusal()
    (run / "model.safetensors").unlink()
    assert program(*again).status == 0
    assert (run / "model.safetensors").is_file()
    (run / "notes.txt").touch()
    assert program(*again, "--trainer.max_epochs", 3).status == 0
    assert (run / "notes.txt").is_file()
