"""The learning rate over steps: by hand, against timm's scheduler, and through an optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from internimage.training import WarmupCosine


def test_hand_computed_values() -> None:
    schedule = WarmupCosine(total_steps=8, warmup_steps=2, warmup_lr=0.1, min_lr=0.2)
    halves = 0.2 + 0.5 * 0.8 * (1 + math.cos(math.pi / 4))
    expected = [0.1, 0.55, halves, None, 0.6, None, None, None, 0.2, 0.2]
    for step, value in enumerate(expected):
        if value is not None:
            assert schedule.rate(step, peak=1.0) == pytest.approx(value, rel=1e-12), step


def test_without_warmup_it_starts_at_the_peak() -> None:
    schedule = WarmupCosine(total_steps=1)
    assert schedule.rate(0, 3.0) == 3.0
    assert schedule.rate(1, 3.0) == 0.0


@pytest.mark.parametrize("warmup", [0, 7])
def test_it_is_timms_scheduler_at_every_step(warmup: int) -> None:
    peak, total = 0.3, 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    theirs = CosineLRScheduler(
        optimizer, t_initial=total, lr_min=0.01, warmup_t=warmup, warmup_lr_init=0.02, t_in_epochs=False
    )
    schedule = WarmupCosine(total_steps=total, warmup_steps=warmup, warmup_lr=0.02, min_lr=0.01)
    for step in range(total):
        theirs.step_update(step)
        assert schedule.rate(step, peak) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step


def test_attached_every_group_keeps_its_own_peak() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1, 0.0)]
    optimizer = torch.optim.AdamW(groups)
    schedule = WarmupCosine(total_steps=6, warmup_steps=2, warmup_lr=0.05, min_lr=0.01)
    attached = schedule.attach(optimizer)
    for step in range(7):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates[:2] == pytest.approx([schedule.rate(step, 1.0), schedule.rate(step, 0.1)], rel=1e-12), step
        assert rates[2] == 0.0, "a frozen group must stay frozen"
        optimizer.step()
        attached.step()


def test_a_restored_schedule_goes_on_where_it_stopped() -> None:
    schedule = WarmupCosine(total_steps=10, warmup_steps=3, warmup_lr=0.1)

    def attach() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return optimizer, schedule.attach(optimizer)

    first, attached = attach()
    for _ in range(5):
        first.step()
        attached.step()
    second, resumed = attach()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(attached.state_dict())
    for step in range(5, 10):
        assert second.param_groups[0]["lr"] == pytest.approx(schedule.rate(step, 1.0)), step
        second.step()
        resumed.step()


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (10, 10), (10, 11), (10, -1), (1, 1)])
def test_a_warmup_as_long_as_the_training_is_refused(total: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="warm-up must be shorter"):
        WarmupCosine(total_steps=total, warmup_steps=warmup)
