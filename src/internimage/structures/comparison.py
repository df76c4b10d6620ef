"""Networks that were trained under equal conditions: what they cost, and what they reached, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from statistics import mean, median, stdev
from typing import Any, Self, cast

import numpy as np


class _Trained:
    """What both have: accuracies, seed by seed, and a form as plain values."""

    accuracy: tuple[tuple[float, ...], ...]

    @property
    def final(self) -> tuple[float, ...]:
        """Accuracy after each seed's last epoch; 0 where no epoch was measured."""
        return tuple(each[-1] if each else 0.0 for each in self.accuracy)

    @property
    def mean_accuracy(self) -> float:
        """Of the seeds."""
        return mean(self.final)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the seeds' accuracies; None for a single seed."""
        return stdev(self.final) if len(self.final) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(cast(Any, self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises ``ValueError`` for other keys."""
        if set(values) != (known := {field.name for field in fields(cast(Any, cls))}):
            raise ValueError(f"{cls.__name__} has the keys {sorted(known)}, got {sorted(values)}")
        return cls(**{key: _as_tuples(value) for key, value in values.items()})


@dataclass(frozen=True)
class SearchedDesign(_Trained):
    """A design that a search trained, for as long as it looked promising.

    Args:
        design: C1, C', L1, L3.
        parameters: of the whole network.
        multiply_adds: for one image.
        accuracy: of the validation images, in [0, 1]: for each seed one value per epoch; the first
            seed's is the search's own.
        seconds: of each seed's training.
        problem: why the first training failed, or None.
    """

    design: tuple[int, ...]
    parameters: int
    multiply_adds: int
    accuracy: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]
    problem: str | None = None

    @property
    def epochs(self) -> int:
        """How long the search trained it."""
        return len(self.accuracy[0])


@dataclass(frozen=True)
class TrainedForm(_Trained):
    """One network of several, trained with every seed.

    Args:
        name: what people call it.
        parameters: of the whole network.
        activation_bytes: kept from the forward for the backward pass, per image.
        accuracy: of the validation images, in [0, 1]: for each seed one value per epoch; fewer where it ended early.
        gradient_norms: 2-norm of all gradients before clipping: for each seed one value per step.
        seconds: of each seed's training.
        problems: why a seed's training ended early; None where it did not.
    """

    name: str
    parameters: int
    activation_bytes: int
    accuracy: tuple[tuple[float, ...], ...]
    gradient_norms: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]
    problems: tuple[str | None, ...]

    @property
    def typical_gradient(self) -> float:
        """Median norm over the steps of all seeds; NaN if none was kept."""
        norms = [each for norms in self.gradient_norms for each in norms]
        return median(norms) if norms else float("nan")

    @property
    def unsteadiness(self) -> float:
        """How far the largest gradients stand out: 99th percentile over median of a seed's steps, mean of the seeds.

        >>> TrainedForm("a", 1, 1, ((0.5,),), ((1.0, 2.0, 3.0),), (1.0,), (None,)).unsteadiness
        1.49
        """
        ratios = [float(np.percentile(norms, 99) / np.median(norms)) for norms in self.gradient_norms if len(norms)]
        return mean(ratios) if ratios else float("nan")


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, cast("list[Any]", value))) if isinstance(value, list) else value
