"""What a design of the paper's stacking rules costs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class DesignCost:
    """One design and its costs.

    Args:
        numbers: C1, C', L1 and L3, the paper's four.
        parameters: of the classifier.
        multiply_adds: for one image.
        activation_bytes: kept for the backward pass, for one image, by the operators that a CPU runs here.
        plain_activation_bytes: the same by PyTorch's own operators.
        latency_samples_ms: milliseconds per batch, one for each round; none if it was not timed.
        note: what of its groups is not by the rules, or "".
        is_least: a budget asked for less depth than the rules allow; this is the least, above the budget.

    >>> DesignCost((64, 16, 4, 18), 3, 2, 1, 1, (5.0, 9.0, 4.0)).latency_ms
    5.0
    """

    numbers: tuple[int, int, int, int]
    parameters: int
    multiply_adds: int
    activation_bytes: int
    plain_activation_bytes: int
    latency_samples_ms: tuple[float, ...] = ()
    note: str = ""
    is_least: bool = False

    @property
    def latency_ms(self) -> float | None:
        """The middle sample, or None without one."""
        return median(self.latency_samples_ms) if self.latency_samples_ms else None
