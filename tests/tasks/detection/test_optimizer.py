"""Learning rates of a detector's training: the released detectors' rules, as the optimizer gets them."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from internimage.tasks import OptimizerSettings
from internimage.training import WarmupCosine, WarmupSteps

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


class Listen(Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))


def rates(run: Run, epochs: int, **optimizer: Any) -> list[float]:
    """Of every step."""
    listen = Listen()
    run.epochs, run.callbacks, run.optimizer = epochs, [listen], optimizer
    run.fit(limit_val_batches=0)
    return listen.rates


def test_layer_decay_follows_the_released_detectors_rule(finished: Run) -> None:
    groups = finished.trainer.optimizers[0].param_groups
    peaks = {name: group["initial_lr"] for group in groups for name in group["names"]}
    assert peaks["fpn.inner_blocks.0.0.weight"] == peaks["roi_heads.box_heads.0.cls.bias"] == pytest.approx(2e-3)
    assert peaks["backbone.stages.3.blocks.0.mlp.fc1.weight"] == pytest.approx(2e-3 * 0.8)
    assert peaks["backbone.stages.0.blocks.0.mlp.fc1.weight"] == pytest.approx(2e-3 * 0.8**4)
    assert peaks["backbone.stem.conv1.weight"] == pytest.approx(2e-3 * 0.8**5)
    assert peaks["backbone.stages.3.blocks.0.dcn.offset.weight"] == pytest.approx(2e-3 * 0.8 * 0.1)
    assert len(peaks) == len(list(finished.task.parameters()))


def test_the_rate_falls_after_epochs(run: Run) -> None:
    found = rates(run, 3, lr_falls=(1, 2), warmup_steps=2, warmup_lr=2e-4)
    assert found == pytest.approx([2e-4, 1.1e-3, 2e-3, 2e-4, 2e-4, 2e-4, 2e-5, 2e-5, 2e-5])
    schedule = WarmupSteps(falls=(3, 6), warmup_steps=2, warmup_share=0.1)
    assert found == pytest.approx([schedule.rate(step, 2e-3) for step in range(9)])


def test_a_cosine_after_steps_of_warm_up(run: Run) -> None:
    found = rates(run, 2, warmup_steps=2, warmup_lr=2e-4, min_lr=1e-5, lr_batch_size=4)
    schedule = WarmupCosine(6, 2, 1e-4, 5e-6)
    assert found == pytest.approx([schedule.rate(step, 1e-3) for step in range(6)])


def test_a_short_training_has_a_short_warm_up(run: Run) -> None:
    """A recipe's 500 steps do not fit into a trial of six: half of them are left."""
    found = rates(run, 2, lr_falls=(8, 11), warmup_steps=500, warmup_lr=0.0)
    assert found == pytest.approx([0.0, 2e-3 / 3, 4e-3 / 3, 2e-3, 2e-3, 2e-3])


@pytest.mark.parametrize("falls", [(0,), (3, 3), (4, 2)])
def test_falls_that_make_no_sense(falls: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"optimizer\.lr_falls must be rising epochs from 1 on, such as \[8, 11\]; got"
    ):
        OptimizerSettings(lr_falls=falls)


def test_a_warm_up_without_room_is_cut_and_said(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Two epochs of three steps have no room for five."""
    run.optimizer = {"warmup_steps": 5}
    with caplog.at_level("WARNING", logger="internimage"):
        run.fit(limit_val_batches=0)
    assert "the warm-up of 5 steps is cut to 3, half of the training" in caplog.text
