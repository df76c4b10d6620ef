"""A training that goes on with other settings takes them; weights of other classes lose their last layer."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from internimage import LabelMap, Preprocess, create_model, save_checkpoint
from internimage.model import read_checkpoint
from internimage.tasks import ClassificationTask
from internimage.training import WarmupCosine

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
]
WEIGHT = "network.head.fc.weight"


class Look(Callback):
    """What the optimizer holds when a resumed training takes its first step."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.weight = torch.empty(0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self.groups:
            optimizer = trainer.optimizers[0]
            self.groups = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]
            held = {
                name: p
                for group in optimizer.param_groups
                for name, p in zip(group["names"], group["params"], strict=True)
            }
            self.state = {name: optimizer.state[p]["exp_avg"].clone() for name, p in held.items()}
            self.weight = pl_module.state_dict()[WEIGHT].clone()


def resumed(run: Run, **optimizer: Any) -> Look:
    run.epochs, run.callbacks = 3, [look := Look()]
    run.optimizer = optimizer
    run.fit(resume=True)
    return look


def averages(run: Run) -> dict[str, torch.Tensor]:
    """The first moments in the checkpoint, by the names of their parameters."""
    saved = torch.load(run.last, weights_only=True)["optimizer_states"][0]
    numbers = {
        n: name for group in saved["param_groups"] for n, name in zip(group["params"], group["names"], strict=True)
    }
    return {name: saved["state"][n]["exp_avg"] for n, name in numbers.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.3, "betas": (0.8, 0.9), "eps": 1e-6},
        {"weight_decay": 0.0},
        {"layer_decay": 0.7, "offset_lr_scale": 0.1},
    ],
    ids=["values", "fewer groups", "more groups"],
)
def test_the_optimizer_takes_the_present_settings(run: Run, changes: dict[str, Any]) -> None:
    """Also where they group the parameters otherwise; every parameter keeps its own moments."""
    run.fit()
    before = averages(run)
    look = resumed(run, **changes)
    settings = run.task.optimizer_settings
    decays = {name: group["weight_decay"] for group in look.groups for name in group["names"]}
    assert decays["head.fc.weight"] == settings.weight_decay
    assert decays["head.fc.bias"] == 0.0
    for group in look.groups:
        assert (tuple(group["betas"]), group["eps"]) == (settings.betas, settings.eps)
    assert set(look.state) == set(before)
    for name, tensor in before.items():
        assert torch.equal(look.state[name], tensor), name


def test_the_rate_takes_the_present_settings(run: Run) -> None:
    run.fit()
    look = resumed(run, lr=1e-4)
    schedule = WarmupCosine(18, 3, 5e-7, 5e-6)
    assert max(group["lr"] for group in look.groups) == pytest.approx(schedule.rate(12, 1e-4))
    assert run.history.rows[-1]["lr"] == pytest.approx(schedule.rate(18, 1e-4))


def test_without_the_average_a_training_goes_on_from_the_raw_weights(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Adam's moments are those of the raw weights."""
    run.ema = 0.9
    run.fit()
    state = torch.load(run.last, weights_only=True)
    assert not torch.equal(state["state_dict"][WEIGHT], state["current_model_state"][WEIGHT])
    run.ema = None
    with caplog.at_level(logging.INFO, logger="internimage"):
        look = resumed(run)
    assert torch.equal(look.weight, state["current_model_state"][WEIGHT])
    assert "the moving average is switched off: training goes on from the raw weights" in caplog.text
    assert "current_model_state" not in torch.load(run.last, weights_only=True)


def test_an_average_may_begin_late(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.fit()
    weight = torch.load(run.last, weights_only=True)["state_dict"][WEIGHT]
    run.ema = 0.9
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.INFO, logger="internimage"):
        look = resumed(run)
    assert not [str(warning.message) for warning in caught if "WeightAveraging" in str(warning.message)]
    assert "the moving average begins with the resumed weights" in caplog.text
    assert torch.equal(look.weight, weight)
    assert "current_model_state" in torch.load(run.last, weights_only=True)


@pytest.mark.parametrize(("batches", "accumulate", "warmup"), [(6, 4, 2), (5, 3, 2), (6, 3, 2), (6, 1, 6)])
def test_a_warm_up_counts_the_steps_that_are_taken(run: Run, batches: int, accumulate: int, warmup: int) -> None:
    """An epoch's last step may take fewer batches than the others."""
    rates: list[float] = []

    class Listen(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))

    run.epochs, run.optimizer, run.callbacks = 3, {"warmup_epochs": 1}, [Listen()]
    run.fit(limit_train_batches=batches, accumulate_grad_batches=accumulate, limit_val_batches=0)
    schedule = WarmupCosine(3 * warmup, warmup, 5e-7, 5e-6)
    assert rates == pytest.approx([schedule.rate(step, 2e-3) for step in range(3 * warmup)])


class TestPretrained:
    """A last layer is kept only for the classes that it was trained for."""

    labels = LabelMap(("cat", "dog"))

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        model = create_model("internimage_femto", num_classes=2)
        return save_checkpoint(model, tmp_path / "pets.safetensors", labels=self.labels, preprocess=Preprocess(64))

    def head(self, file: Path, names: tuple[str, ...]) -> tuple[bool, bool]:
        """Whether the backbone and the last layer are the file's."""
        torch.manual_seed(7)
        task = ClassificationTask(LabelMap(names), Preprocess(64), "internimage_femto", pretrained=str(file))
        mine, theirs = task.network.state_dict(), read_checkpoint(file).state
        stem = "backbone.stem.conv1.weight"
        kept = mine["head.fc.weight"].shape == theirs["head.fc.weight"].shape
        return torch.equal(mine[stem], theirs[stem]), kept and torch.equal(
            mine["head.fc.weight"], theirs["head.fc.weight"]
        )

    def test_the_same_classes(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="internimage"):
            assert self.head(file, ("cat", "dog")) == (True, True)
        assert not caplog.records

    @pytest.mark.parametrize("names", [("ant", "bee"), ("dog", "cat"), ("cat", "dog", "elk")])
    def test_other_classes(self, file: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="internimage"):
            assert self.head(file, names) == (True, False)
        assert "pets.safetensors was trained for 2 classes (cat, dog): the last layer starts anew" in caplog.text

    def test_a_file_without_names(self, file: Path, tmp_path: Path) -> None:
        plain = tmp_path / "plain.safetensors"
        model = create_model("internimage_femto", pretrained=str(file))
        save_checkpoint(model, plain)
        assert self.head(plain, ("ant", "bee")) == (True, True)
        assert self.head(plain, ("ant", "bee", "cow")) == (True, False)
