"""Learning rate over steps: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math
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
        """A scheduler to step once per optimizer step; every group keeps its own peak (its ``lr`` now).

        Of a saved state it takes the step alone: resumed with other settings, the training goes on with the new rates.
        Restore the optimizer first, for its state holds the old ones.
        """
        for group in optimizer.param_groups:
            # What an earlier schedule left here would count as the peak.
            group["initial_lr"] = float(group["lr"])
        top = max(group["initial_lr"] for group in optimizer.param_groups)
        # LambdaLR multiplies every group's peak by this; where all are frozen (peak 0), they stay so.
        return _ResumableLR(optimizer, lambda step: self.rate(step, top) / top if top else 0.0)


class _ResumableLR(LambdaLR):
    """A LambdaLR that does not go back to the peaks of the training it resumes."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the step, and put the rates that belong to it into the optimizer."""
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        factors = [factor(self.last_epoch) for factor in self.lr_lambdas]
        self._last_lr = [peak * factor for peak, factor in zip(self.base_lrs, factors, strict=True)]
        for group, peak, rate in zip(self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True):
            group["initial_lr"], group["lr"] = peak, rate
