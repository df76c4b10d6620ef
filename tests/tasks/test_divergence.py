"""A training whose loss is no number ends with a sentence; one that only stumbles goes on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def spoil(run: Run, at: int, value: float, factor: float) -> None:
    """Replace the loss of one step by ``value``, with gradients times ``factor``."""
    step, calls = run.task.training_step, 0

    def training_step(batch: Any, batch_idx: int) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = step(batch, batch_idx)
        return loss * factor + value if calls == at else loss

    run.task.training_step = training_step


@pytest.mark.parametrize("at", [7, 9, 12])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_loss_that_is_no_number_ends_the_training(run: Run, at: int, ema: float | None) -> None:
    """In the second of two epochs, at its first, middle and last step: the first epoch's state stays."""
    run.ema = ema
    run.build()
    spoil(run, at, math.nan, math.nan)
    message = (
        rf"^the loss is not finite at step {at}; lower optimizer\.lr or clip gradients \(trainer\.gradient_clip_val\)"
    )
    with pytest.raises(ValueError, match=message):
        run.trainer.fit(run.task, run.datamodule)
    state = torch.load(run.last, weights_only=True)
    assert (state["epoch"], state["global_step"]) == (0, 6)
    assert all(tensor.isfinite().all() for tensor in state["state_dict"].values() if tensor.is_floating_point())
    assert len(run.history.rows) == 1


def test_gradients_that_are_no_numbers_end_it_too(run: Run) -> None:
    """The last step's loss is a number, the weights after it are not."""
    run.build()
    step, losses = run.task.training_step, list[float]()

    def training_step(batch: Any, batch_idx: int) -> torch.Tensor:
        loss = step(batch, batch_idx)
        losses.append(loss.item())
        if len(losses) == 12:
            loss.register_hook(lambda gradient: gradient * math.nan)
        return loss

    run.task.training_step = training_step
    with pytest.raises(ValueError, match="the loss is not finite at step 12"):
        run.trainer.fit(run.task, run.datamodule)
    assert all(map(math.isfinite, losses))
    assert torch.load(run.last, weights_only=True)["global_step"] == 6


def test_without_validation_it_ends_at_the_epochs_end(run: Run) -> None:
    run.build(limit_val_batches=0)
    spoil(run, 9, math.nan, math.nan)
    with pytest.raises(ValueError, match="the loss is not finite at step 9"):
        run.trainer.fit(run.task, run.datamodule)
    assert torch.load(run.last, weights_only=True)["global_step"] == 6


@pytest.mark.parametrize("at", [3, 6])
def test_a_step_that_was_skipped_is_no_divergence(run: Run, at: int) -> None:
    """As the loss scaling of 16-mixed does: one loss overflows, the weights stay as they were."""
    run.build()
    spoil(run, at, math.inf, 0.0)
    run.trainer.fit(run.task, run.datamodule)
    assert all(math.isfinite(row["train/loss"]) for row in run.history.rows)
    assert run.trainer.global_step == 12


def test_losses_that_never_are_numbers(run: Run) -> None:
    run.epochs = 1
    run.build()
    step = run.task.training_step
    run.task.training_step = lambda batch, batch_idx: step(batch, batch_idx) * 0.0 + math.inf
    with pytest.raises(ValueError, match="the loss is not finite at step 1;"):
        run.trainer.fit(run.task, run.datamodule)
    assert not run.last.exists()
