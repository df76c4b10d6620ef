"""The released detectors' schedule: by hand, as mmcv computes it, and through an optimizer that is resumed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from internimage.training import WarmupSteps


def parameter() -> Tensor:
    return torch.zeros(1, requires_grad=True)


def test_hand_computed_values() -> None:
    schedule = WarmupSteps(falls=(6, 8), factor=0.5, warmup_steps=4, warmup_share=0.2)
    expected = [0.4, 0.8, 1.2, 1.6, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5]
    assert [schedule.rate(step, peak=2.0) for step in range(10)] == pytest.approx(expected, rel=1e-12)


def test_a_fall_within_the_warm_up_lowers_it_too() -> None:
    """mmcv warms up towards the rate that the schedule has at that step."""
    schedule = WarmupSteps(falls=(2,), factor=0.1, warmup_steps=4, warmup_share=0.0)
    assert [schedule.rate(step, 1.0) for step in range(5)] == pytest.approx([0.0, 0.25, 0.05, 0.075, 0.1])


def test_without_falls_and_warm_up_the_rate_stays() -> None:
    assert [WarmupSteps(falls=()).rate(step, 3.0) for step in (0, 1, 10**9)] == [3.0] * 3
    assert [WarmupSteps(falls=(0, 1)).rate(step, 1.0) for step in (0, 1)] == pytest.approx([0.1, 0.01])


def test_it_is_mmcvs_rule_at_every_step() -> None:
    """``policy='step', warmup='linear', warmup_iters=500, warmup_ratio=0.001, step=[8, 11]`` with 70 steps an epoch."""
    schedule, peak = WarmupSteps(falls=(8 * 70, 11 * 70), warmup_steps=500, warmup_share=0.001), 1e-4
    for step in range(12 * 70):
        epoch = step // 70
        regular = peak * 0.1 ** (2 if epoch >= 11 else 1 if epoch >= 8 else 0)
        missing = (1 - step / 500) * (1 - 0.001) if step < 500 else 0.0
        assert schedule.rate(step, peak) == pytest.approx(regular * (1 - missing), rel=1e-9), step


def test_attached_every_group_keeps_its_own_peak() -> None:
    groups = [{"params": [parameter()], "lr": lr} for lr in (1.0, 0.1, 0.0)]
    optimizer = torch.optim.AdamW(groups)
    schedule = WarmupSteps(falls=(4,), warmup_steps=2, warmup_share=0.5)
    attached = schedule.attach(optimizer)
    for step in range(7):
        top = schedule.rate(step, 1.0)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([top, 0.1 * top, 0.0]), step
        optimizer.step()
        attached.step()


def attach(schedule: WarmupSteps, peak: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = torch.optim.SGD([{"params": [parameter()], "lr": rate} for rate in (peak, peak / 4)])
    return optimizer, schedule.attach(optimizer)


def walked(schedule: WarmupSteps, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer, attached = attach(schedule, 1.0)
    for _ in range(steps):
        optimizer.step()
        attached.step()
    return optimizer, attached


def test_a_restored_schedule_goes_on_where_it_stopped() -> None:
    schedule = WarmupSteps(falls=(4, 7), warmup_steps=3, warmup_share=0.1)
    for stop in (1, 3, 5):
        first, attached = walked(schedule, stop)
        second, resumed = attach(schedule, 1.0)
        second.load_state_dict(first.state_dict())
        resumed.load_state_dict(attached.state_dict())
        for step in range(stop, 10):
            top = schedule.rate(step, 1.0)
            assert [group["lr"] for group in second.param_groups] == pytest.approx([top, top / 4], rel=1e-12), step
            second.step()
            resumed.step()


def test_a_resumed_training_takes_the_new_settings() -> None:
    first, attached = walked(WarmupSteps(falls=(3,), warmup_steps=2), 5)
    changed = WarmupSteps(falls=(8,), factor=0.5, warmup_steps=1)
    second, resumed = attach(changed, 0.4)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(attached.state_dict())
    assert resumed.get_last_lr() == [group["lr"] for group in second.param_groups] == [0.4, 0.1]
    for step in range(5, 12):
        assert second.param_groups[0]["lr"] == pytest.approx(0.2 if step >= 8 else 0.4, rel=1e-12), step
        second.step()
        resumed.step()
    third, again = attach(changed, 0.4)
    third.load_state_dict(second.state_dict())
    again.load_state_dict(resumed.state_dict())
    assert [group["initial_lr"] for group in third.param_groups] == [0.4, 0.1]


@pytest.mark.parametrize("falls", [(3, 3), (4, 2), (-1, 5)])
def test_falls_must_rise(falls: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"steps at which the rate falls must rise from 0 on, got \("):
        WarmupSteps(falls=falls)


@pytest.mark.parametrize(
    "settings",
    [
        {"factor": 0.0},
        {"factor": 1.5},
        {"factor": float("nan")},
        {"warmup_share": -0.1},
        {"warmup_share": 1.1},
        {"warmup_share": float("nan")},
        {"warmup_steps": -1},
    ],
)
def test_values_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"factor must lie in \(0, 1\], warmup_share in \[0, 1\] and warmup_steps"):
        WarmupSteps(falls=(), **settings)
