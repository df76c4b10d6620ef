"""Learning rate over steps: a linear warm-up, then half a cosine, falls at given steps, or a power of what is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class WarmupCosine:
    """The released recipe's schedule, per step.

    During warm-up the rate grows linearly from ``warmup_lr``; afterwards it follows the cosine from the peak at step 0
    to ``min_lr`` at ``total_steps`` (the warm-up hides the cosine's beginning, as in timm's scheduler).

    ``warmup_lr`` and ``min_lr`` belong to the fastest group. A group with a share of its peak (layer decay, slower
    offsets) has the same share of every rate, as with timm's ``lr_scale``; so none rises above its peak.

    Args:
        total_steps: optimizer steps of the whole training, at least 1.
        warmup_steps: steps of warm-up, less than ``total_steps``.
        warmup_lr: rate of the first step, of the fastest group.
        min_lr: rate at the end, of the fastest group.

    >>> schedule = WarmupCosine(total_steps=100, warmup_steps=10, warmup_lr=0.0, min_lr=0.0)
    >>> [round(schedule.rate(step, peak=1.0), 3) for step in (0, 5, 50, 100)]
    [0.0, 0.5, 0.5, 0.0]
    """

    total_steps: int
    warmup_steps: int = 0
    warmup_lr: float = 0.0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if self.total_steps < 1 or not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(
                f"the warm-up must be shorter than the training, got {self.warmup_steps} of {self.total_steps} steps"
            )

    def rate(self, step: int, peak: float) -> float:
        """Learning rate of ``step`` (from 0) for the fastest group, whose highest rate is ``peak``."""
        if step < self.warmup_steps:
            return self.warmup_lr + (peak - self.warmup_lr) * step / self.warmup_steps
        progress = min(step / self.total_steps, 1.0)
        return self.min_lr + 0.5 * (peak - self.min_lr) * (1 + math.cos(math.pi * progress))

    def attach(self, optimizer: Optimizer) -> LambdaLR:
        """A scheduler to step once per optimizer step; see `attach`."""
        return attach(self.rate, optimizer)


@dataclass(frozen=True)
class WarmupSteps:
    """The released detectors' schedule: a linear warm-up, then the peak, which falls at given steps.

    Source: ``StepLrUpdaterHook`` of mmcv 1.7 with detection/configs/_base_/schedules, 31c962d.

    Args:
        falls: steps from which on the rate is multiplied by ``factor`` once more, rising.
        factor: in (0, 1].
        warmup_steps: steps of warm-up.
        warmup_share: of the peak at the first step, in [0, 1].

    >>> schedule = WarmupSteps(falls=(80, 110), warmup_steps=10, warmup_share=0.001)
    >>> [round(schedule.rate(step, peak=1.0), 4) for step in (0, 5, 10, 79, 80, 110)]
    [0.001, 0.5005, 1.0, 1.0, 0.1, 0.01]
    """

    falls: tuple[int, ...]
    factor: float = 0.1
    warmup_steps: int = 0
    warmup_share: float = 0.001

    def __post_init__(self) -> None:
        if list(self.falls) != sorted(set(self.falls)) or min(self.falls, default=0) < 0:
            raise ValueError(f"the steps at which the rate falls must rise from 0 on, got {self.falls}")
        if not 0 < self.factor <= 1 or not 0 <= self.warmup_share <= 1 or self.warmup_steps < 0:
            raise ValueError(
                f"factor must lie in (0, 1], warmup_share in [0, 1] and warmup_steps be 0 or more; got {self}"
            )

    def rate(self, step: int, peak: float) -> float:
        """Learning rate of ``step`` (from 0) for a group whose highest rate is ``peak``."""
        rate = peak * self.factor ** sum(step >= fall for fall in self.falls)
        if step >= self.warmup_steps:
            return rate
        return rate * (self.warmup_share + (1 - self.warmup_share) * step / self.warmup_steps)

    def attach(self, optimizer: Optimizer) -> LambdaLR:
        """A scheduler to step once per optimizer step; see `attach`."""
        return attach(self.rate, optimizer)


@dataclass(frozen=True)
class WarmupPower:
    """The released segmenters' schedule, per step: a linear warm-up times a power of the share of steps that is left.

    Source: ``PolyLrUpdaterHook`` of mmcv 1.7 with segmentation/configs, 31c962d.

    Args:
        total_steps: optimizer steps of the whole training, at least 1.
        power: 1 falls on a straight line.
        min_lr: rate at the end, of the fastest group.
        warmup_steps: steps of warm-up, less than ``total_steps``.
        warmup_share: of the rate at the first step, in [0, 1].

    >>> schedule = WarmupPower(total_steps=100, warmup_steps=10, warmup_share=0.0)
    >>> [round(schedule.rate(step, peak=1.0), 3) for step in (0, 5, 10, 50, 100)]
    [0.0, 0.475, 0.9, 0.5, 0.0]
    """

    total_steps: int
    power: float = 1.0
    min_lr: float = 0.0
    warmup_steps: int = 0
    warmup_share: float = 1e-6

    def __post_init__(self) -> None:
        if self.total_steps < 1 or not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(
                f"the warm-up must be shorter than the training, got {self.warmup_steps} of {self.total_steps} steps"
            )
        if self.power <= 0 or not 0 <= self.warmup_share <= 1:
            raise ValueError(f"power must be positive and warmup_share lie in [0, 1], got {self}")

    def rate(self, step: int, peak: float) -> float:
        """Learning rate of ``step`` (from 0) for the fastest group, whose highest rate is ``peak``."""
        left = max(1 - step / self.total_steps, 0.0)
        rate = self.min_lr + (peak - self.min_lr) * left**self.power
        if step >= self.warmup_steps:
            return rate
        return rate * (self.warmup_share + (1 - self.warmup_share) * step / self.warmup_steps)

    def attach(self, optimizer: Optimizer) -> LambdaLR:
        """A scheduler to step once per optimizer step; see `attach`."""
        return attach(self.rate, optimizer)


def attach(rate: Callable[[int, float], float], optimizer: Optimizer) -> LambdaLR:
    """A scheduler to step once per optimizer step; every group keeps its own peak (its ``lr`` now).

    Of a saved state it takes the step alone: resumed with other settings, the training goes on with the new rates.
    Restore the optimizer first, for its state holds the old ones.

    Args:
        rate: of a step (from 0) and the fastest group's peak.
        optimizer: whose groups follow.
    """
    for group in optimizer.param_groups:
        # What an earlier schedule left here would count as the peak.
        group["initial_lr"] = float(group["lr"])
    top = max(group["initial_lr"] for group in optimizer.param_groups)
    # LambdaLR multiplies every group's peak by this; where all are frozen (peak 0), they stay so.
    return _ResumableLR(optimizer, lambda step: rate(step, top) / top if top else 0.0)


class _ResumableLR(LambdaLR):
    """A LambdaLR that does not go back to the peaks of the training it resumes."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the step, and put the rates that belong to it into the optimizer."""
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        factors = [factor(self.last_epoch) for factor in self.lr_lambdas]
        self._last_lr = [peak * factor for peak, factor in zip(self.base_lrs, factors, strict=True)]
        for group, peak, rate in zip(self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True):
            group["initial_lr"], group["lr"] = peak, rate
