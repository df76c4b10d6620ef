"""Learning rate over steps: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class WarmupCosine:
    """The released recipe's schedule, per step.

    During warm-up the rate grows linearly from ``warmup_lr``; afterwards it follows the cosine from the peak at step 0
    to ``min_lr`` at ``total_steps`` (the warm-up hides the cosine's beginning, as in timm's scheduler).

    Args:
        total_steps: optimizer steps of the whole training, at least 1.
        warmup_steps: steps of warm-up, less than ``total_steps``.
        warmup_lr: rate of the first step.
        min_lr: rate at the end.

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
        """Learning rate of ``step`` (from 0) for a group whose highest rate is ``peak``."""
        if step < self.warmup_steps:
            return self.warmup_lr + (peak - self.warmup_lr) * step / self.warmup_steps
        progress = min(step / self.total_steps, 1.0)
        return self.min_lr + 0.5 * (peak - self.min_lr) * (1 + math.cos(math.pi * progress))

    def attach(self, optimizer: Optimizer) -> LambdaLR:
        """A scheduler to step once per optimizer step; every group keeps its own peak (its ``lr`` now)."""
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        # LambdaLR multiplies; a frozen group (peak 0) stays at 0.
        return LambdaLR(optimizer, [lambda step, p=peak: self.rate(step, p) / p if p else 0.0 for peak in peaks])
