"""The learning rate over steps: by hand, against timm's scheduler, and through an optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from internimage.training import WarmupCosine, WarmupPower


def parameter() -> Tensor:
    return torch.zeros(1, requires_grad=True)


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
        top = schedule.rate(step, 1.0)
        assert rates[:2] == pytest.approx([top, 0.1 * top], rel=1e-12), step
        assert rates[2] == 0.0, "a frozen group must stay frozen"
        optimizer.step()
        attached.step()


def test_slow_groups_never_outgrow_their_peak() -> None:
    """Layer decay makes peaks below warmup_lr and min_lr, which are the fastest group's, as with timm's lr_scale."""
    scales, total, warmup = (1.0, 1e-2, 1e-4), 20, 5
    ours = torch.optim.SGD([{"params": [parameter()], "lr": 0.3 * scale} for scale in scales], lr=0.3)
    attached = WarmupCosine(total, warmup, warmup_lr=0.02, min_lr=0.01).attach(ours)
    groups = [{"params": [parameter()], "lr_scale": scale} for scale in scales]
    reference = torch.optim.SGD(groups, lr=0.3)
    theirs = CosineLRScheduler(
        reference, t_initial=total, lr_min=0.01, warmup_t=warmup, warmup_lr_init=0.02, t_in_epochs=False
    )
    for step in range(total):
        theirs.step_update(step)
        rates = [group["lr"] for group in ours.param_groups]
        assert rates == pytest.approx([group["lr"] for group in reference.param_groups], rel=1e-9), step
        assert all(rate <= 0.3 * scale for rate, scale in zip(rates, scales, strict=True)), step
        ours.step()
        attached.step()


def test_nothing_moves_where_every_group_is_frozen() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.0)
    attached = WarmupCosine(total_steps=4, warmup_steps=1, warmup_lr=0.1, min_lr=0.1).attach(optimizer)
    for _ in range(5):
        assert optimizer.param_groups[0]["lr"] == 0.0
        optimizer.step()
        attached.step()


def test_attached_again_the_peak_is_the_rate_of_now() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=1.0)
    WarmupCosine(total_steps=10).attach(optimizer)
    optimizer.param_groups[0]["lr"] = 0.25
    schedule = WarmupCosine(total_steps=6, warmup_steps=2)
    attached = schedule.attach(optimizer)
    for step in range(6):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule.rate(step, 0.25), rel=1e-12), step
        optimizer.step()
        attached.step()


def test_a_restored_schedule_goes_on_where_it_stopped() -> None:
    schedule = WarmupCosine(total_steps=10, warmup_steps=3, warmup_lr=0.1)

    def attach() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([parameter()], lr=1.0)
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


def test_a_resumed_training_takes_the_new_settings() -> None:
    def attach(schedule: WarmupCosine, peak: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer = torch.optim.SGD([{"params": [parameter()], "lr": rate} for rate in (peak, peak / 4)])
        return optimizer, schedule.attach(optimizer)

    first, attached = attach(WarmupCosine(total_steps=10, warmup_steps=3, warmup_lr=0.1), 1.0)
    for _ in range(5):
        first.step()
        attached.step()
    changed = WarmupCosine(total_steps=20, warmup_steps=2, min_lr=0.05)
    second, resumed = attach(changed, 0.4)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(attached.state_dict())
    assert resumed.get_last_lr() == [group["lr"] for group in second.param_groups]
    for step in range(5, 20):
        top = changed.rate(step, 0.4)
        assert [group["lr"] for group in second.param_groups] == pytest.approx([top, top / 4], rel=1e-12), step
        second.step()
        resumed.step()
    # A second resume starts from what the first one left.
    third, again = attach(changed, 0.4)
    third.load_state_dict(second.state_dict())
    again.load_state_dict(resumed.state_dict())
    assert [group["initial_lr"] for group in third.param_groups] == [0.4, 0.1]
    assert third.param_groups[0]["lr"] == pytest.approx(changed.rate(20, 0.4))


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (10, 10), (10, 11), (10, -1), (1, 1)])
def test_a_warmup_as_long_as_the_training_is_refused(total: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="warm-up must be shorter"):
        WarmupCosine(total_steps=total, warmup_steps=warmup)


def test_a_power_of_the_steps_that_are_left_by_hand() -> None:
    """As mmcv computes it: (1 - step / steps) ** power, during warm-up times a share that grows on a line."""
    schedule = WarmupPower(total_steps=8, power=2.0, min_lr=0.2, warmup_steps=2, warmup_share=0.1)
    after = [0.2 + 0.8 * (1 - step / 8) ** 2 for step in range(9)]
    expected = [0.1 * after[0], 0.55 * after[1], *after[2:], 0.2]
    assert [schedule.rate(step, peak=1.0) for step in range(10)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"total_steps": 0}, "shorter than the training"),
        ({"total_steps": 4, "warmup_steps": 4}, "got 4 of 4 steps"),
        ({"total_steps": 4, "power": 0.0}, "power must be positive"),
        ({"total_steps": 4, "warmup_share": 1.5}, "warmup_share lie in"),
    ],
)
def test_powers_that_make_no_schedule(settings: dict[str, float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        WarmupPower(**settings)  # pyright: ignore[reportArgumentType]
