"""Networks that were trained under equal conditions: what they cost, and what they reached, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from statistics import mean, median, stdev
from typing import Any, cast

import numpy as np


@dataclass(frozen=True)
class SearchedDesign:
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

    @property
    def final(self) -> tuple[float, ...]:
        """Accuracy after each seed's last epoch; 0 where no epoch was measured."""
        return _final(self.accuracy)

    @property
    def mean_accuracy(self) -> float:
        """Of the seeds."""
        return mean(self.final)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the seeds' accuracies; None for a single seed."""
        return _spread(self.final)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchedDesign:
        """The inverse of `to_dict`; raises ``ValueError`` for other keys."""
        return cls(**_values_of(cls, values))


@dataclass(frozen=True)
class TrainedForm:
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
    def final(self) -> tuple[float, ...]:
        """Accuracy after each seed's last epoch; 0 where no epoch was measured."""
        return _final(self.accuracy)

    @property
    def mean_accuracy(self) -> float:
        """Of the seeds."""
        return mean(self.final)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the seeds' accuracies; None for a single seed.

        >>> TrainedForm("a", 1, 1, ((0.1, 0.5), (0.2, 0.7)), ((), ()), (1.0, 1.0), (None, None)).spread
        0.141...
        """
        return _spread(self.final)

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainedForm:
        """The inverse of `to_dict`; raises ``ValueError`` for other keys."""
        return cls(**_values_of(cls, values))


def _final(accuracy: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    return tuple(each[-1] if each else 0.0 for each in accuracy)


def _spread(values: tuple[float, ...]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _values_of(kind: type[SearchedDesign] | type[TrainedForm], values: Mapping[str, Any]) -> dict[str, Any]:
    if set(values) != (known := {field.name for field in fields(kind)}):
        raise ValueError(f"{kind.__name__} has the keys {sorted(known)}, got {sorted(values)}")
    return {key: _as_tuples(value) for key, value in values.items()}


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, cast("list[Any]", value))) if isinstance(value, list) else value
