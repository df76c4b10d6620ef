"""FSDP2: two processes that hold a half of everything each learn what two whole ones do, and leave the same files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import StrategyRegistry

from internimage import Classifier
from internimage.data import export_samples
from internimage.tasks.strategies import FSDP2, ShardedStrategy, check_strategy

TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.logger", "false")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "internimage", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def recipe(name: str, strategy: str) -> list[str]:
    # A head without normalisation over the batch: what comes before that learns from noise alone how large it is.
    head = ["--model.init_args.model_options.head", "clip"]
    return ["fit", "--config", "smoke/classification", "--run", name, *TWO, "--trainer.strategy", strategy, *head]


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run each of DDP and FSDP2, with a moving average, clipped gradients and several groups of parameters."""
    folder = tmp_path_factory.mktemp("sharded")
    # Small enough that every step is clipped.
    more = ["--trainer.gradient_clip_val", "0.1", "--model.init_args.optimizer.layer_decay", "0.8"]
    for strategy in ("ddp", FSDP2):
        run(folder, *recipe(strategy, strategy), *more)
    return folder


def test_it_learns_what_whole_processes_learn(trained: Path) -> None:
    one, other = rows(trained / "ddp"), rows(trained / FSDP2)
    assert len(one) == len(other) == 2
    for row, same in zip(one, other, strict=True):
        assert same == pytest.approx(row, rel=1e-5)


def test_its_states_are_whole_files(trained: Path) -> None:
    """Weights, their average and both moments, whole tensors in one file, as DDP writes them."""
    ddp, fsdp = state(trained / "ddp"), state(trained / FSDP2)
    for key in ("state_dict", "current_model_state"):
        assert fsdp[key].keys() == ddp[key].keys()
        for name, tensor in ddp[key].items():
            assert type(fsdp[key][name]) is torch.Tensor
            assert torch.allclose(fsdp[key][name], tensor, atol=1e-5), (key, name)
    one, other = (each["optimizer_states"][0] for each in (ddp, fsdp))
    assert [group["names"] for group in other["param_groups"]] == [group["names"] for group in one["param_groups"]]
    for number, moments in one["state"].items():
        assert torch.allclose(other["state"][number]["exp_avg"], moments["exp_avg"], atol=1e-5)


def test_one_process_predicts_with_its_weights(trained: Path, tmp_path: Path) -> None:
    export_samples(tmp_path, "test", 1)
    image = next(tmp_path.glob("*/*.png"))
    scores = [Classifier(trained / name / "model.safetensors", device="cpu")(image) for name in ("ddp", FSDP2)]
    assert scores[1].probabilities == pytest.approx(scores[0].probabilities, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "devices", "strategy"), [("ddp", 2, FSDP2), (FSDP2, 1, "auto"), (FSDP2, 2, "ddp")])
def test_either_goes_on_with_the_others_state(trained: Path, source: str, devices: int, strategy: str) -> None:
    """One more epoch of the other kind ends where one more of the same kind does."""
    ends: list[dict[str, float]] = []
    for number, how in ((2, source), (devices, strategy)):
        name = f"{source}-{how}-{number}"
        (trained / name).mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", f"{trained / source}/.", str(trained / name)], check=True)
        changed = ["--trainer.max_epochs", "3", "--trainer.devices", str(number), "--trainer.strategy", how]
        # One process takes the pictures of both.
        size = ["--data.init_args.batch_size", str(32 // number), "--data.init_args.augmentation.mixup", "0"]
        size += ["--data.init_args.augmentation.cutmix", "0"]
        run(trained, "fit", "--run", name, "--resume", *changed, *size)
        ends.append(rows(trained / name)[-1])
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_other_tasks_learn_alike(tmp_path: Path, task: str) -> None:
    for strategy in ("ddp", FSDP2):
        run(tmp_path, "fit", "--config", f"smoke/{task}", "--run", strategy, *TWO, "--trainer.strategy", strategy)
    first, second = (rows(tmp_path / strategy)[0]["train/loss"] for strategy in ("ddp", FSDP2))
    assert second == pytest.approx(first, rel=1e-3)


@pytest.mark.slow
def test_rounded_recomputed_accumulated_and_clipped_by_value(tmp_path: Path) -> None:
    more = ["--trainer.precision", "bf16-mixed", "--trainer.accumulate_grad_batches", "2"]
    more += ["--trainer.gradient_clip_val", "0.01", "--trainer.gradient_clip_algorithm", "value"]
    more += ["--model.init_args.model_options.gradient_checkpointing", "true"]
    for strategy in ("ddp", FSDP2):
        run(tmp_path, *recipe(strategy, strategy), *more)
    one, other = rows(tmp_path / "ddp"), rows(tmp_path / FSDP2)
    assert [row["train/loss"] for row in other] == pytest.approx([row["train/loss"] for row in one], rel=1e-2)


def test_it_is_known_by_its_name() -> None:
    assert isinstance(StrategyRegistry.get(FSDP2), ShardedStrategy)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_other_precisions_are_refused(precision: Any) -> None:
    trainer = Trainer(accelerator="cpu", devices=1, strategy=FSDP2, precision=precision, logger=False)
    with pytest.raises(ValueError, match=rf"^trainer.strategy fsdp2 takes .* bf16-mixed, got {precision}; "):
        check_strategy(trainer)


def test_deepspeed_says_what_is_missing(tmp_path: Path) -> None:
    """Neither the package nor a GPU is here."""
    command = [sys.executable, "-m", "internimage", *recipe("run", "deepspeed_stage_1")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("internimage: ")
    assert "deepspeed" in done.stderr.lower()
    assert done.stderr.count("\n") == 1
