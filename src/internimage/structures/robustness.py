"""What changes of the pictures do to a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any


@dataclass(frozen=True)
class Robustness:
    """A classifier's accuracy under each change and severity, and how often it stays with what it said before.

    Args:
        name: of the classifier.
        num_images: how many were shown.
        clean: share named rightly as they are.
        accuracy: for each change the share named rightly at severity 1, 2, ...
        consistency: for each change the share named, rightly or not, as without it.

    >>> found = Robustness("a", 4, 0.75, {"blur": (0.5, 0.25)}, {"blur": (1.0, 0.5)})
    >>> found.mean_accuracy, found.mean_consistency
    (0.375, 0.75)
    """

    name: str
    num_images: int
    clean: float
    accuracy: Mapping[str, tuple[float, ...]]
    consistency: Mapping[str, tuple[float, ...]]

    @property
    def mean_accuracy(self) -> float:
        """Over all changes and severities."""
        return mean(mean(each) for each in self.accuracy.values())

    @property
    def mean_consistency(self) -> float:
        """Over all changes and severities."""
        return mean(mean(each) for each in self.consistency.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
