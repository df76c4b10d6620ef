"""How well label maps agree, from counts of pixels that add up over pictures and processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measures:
    """What a confusion matrix of pixels is worth; NaN where a value is not defined.

    Source: ``total_area_to_metrics`` of mmseg 0.27, core/evaluation/metrics.py.

    Args:
        iou: (C,), of the pixels that are the class or taken for it, the share that is both: TP / (TP + FP + FN).
        accuracy: (C,), of its pixels, the share that is found: TP / (TP + FN).
        precision: (C,), of the pixels taken for it, the share that is right: TP / (TP + FP).
        shares: (C,), its share of all pixels.
        pixel_accuracy: of all pixels, the share that is right.
    """

    iou: Floats
    accuracy: Floats
    precision: Floats
    shares: Floats
    pixel_accuracy: float

    @classmethod
    def of(cls, confusion: NDArray[Any]) -> Measures:
        """From counts, (C, C): rows are true classes, columns what was found; ``ValueError`` for another shape.

        >>> found = Measures.of(np.array([[1, 1], [0, 2]]))
        >>> found.iou.tolist(), found.pixel_accuracy
        ([0.5, 0.6666666666666666], 0.75)
        """
        counts = np.asarray(confusion, np.float64)
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
            raise ValueError(f"a confusion matrix has shape (C, C), got {counts.shape}")
        hits, there, said, total = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0), counts.sum()
        right = float(hits.sum() / total) if total else float("nan")
        shares = _ratio(there, np.full_like(there, total))
        return cls(_ratio(hits, there + said - hits), _ratio(hits, there), _ratio(hits, said), shares, right)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one: those that are there or found; NaN where there is none."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes that are there; NaN where there is none."""
        return _mean(self.accuracy)

    def metrics(self) -> dict[str, float]:
        """The three numbers of a whole set, by name."""
        return {"miou": self.miou, "mean_accuracy": self.mean_accuracy, "pixel_accuracy": self.pixel_accuracy}


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
