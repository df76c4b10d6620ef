"""How well label maps agree: everything from one confusion matrix, whose counts add up over pictures and processes.

Source: ``intersect_and_union`` and ``total_area_to_metrics`` of mmseg 0.27, core/evaluation/metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from internimage.structures import IGNORED


def confusions(truth: Tensor, found: Tensor, num_classes: int) -> Tensor:
    """How often each class was taken for each, (C, C) of int64: rows are the truth, columns what was found.

    Args:
        truth: class indices of any shape; `IGNORED` (255) is left out.
        found: of the same shape, without ignored pixels.
        num_classes: C.

    Raises:
        ValueError: other shapes, or a value that is no class.

    >>> confusions(torch.tensor([0, 0, 1, 255]), torch.tensor([0, 1, 1, 0]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if truth.shape != found.shape:
        raise ValueError(f"truth and found must have one shape, got {tuple(truth.shape)} and {tuple(found.shape)}")
    is_counted = truth != IGNORED
    true_P, found_P = truth[is_counted].long(), found[is_counted].long()
    for what, values_P in (("truth", true_P), ("found", found_P)):
        if values_P.numel() and int(values_P.max()) >= num_classes:
            raise ValueError(f"{what} holds {int(values_P.max())}, which is none of {num_classes} classes")
    return torch.bincount(true_P * num_classes + found_P, minlength=num_classes**2).view(num_classes, num_classes)


@dataclass(frozen=True, eq=False)
class Measures:
    """What a confusion matrix is worth.

    Args:
        iou: (C,) of float64: intersection over union of each class; NaN for one that is neither there nor found.
        accuracy: (C,): of each class's pixels, the share that was found; NaN for one that is not there.
        miou: mean over the classes that have one.
        mean_accuracy: mean over the classes that have one.
        pixel_accuracy: of all pixels that count, the share that is right; NaN where none counts.
    """

    iou: Tensor
    accuracy: Tensor
    miou: float
    mean_accuracy: float
    pixel_accuracy: float

    @classmethod
    def of(cls, confusion_CC: Tensor) -> Measures:
        """From counts, (C, C), as `confusions` gives them.

        >>> found = Measures.of(torch.tensor([[1, 1], [0, 2]]))
        >>> found.iou.tolist(), found.pixel_accuracy
        ([0.5, 0.6666666666666666], 0.75)
        """
        counts_CC = confusion_CC.double()
        right_C, there_C, seen_C = counts_CC.diagonal(), counts_CC.sum(1), counts_CC.sum(0)
        iou_C, accuracy_C = right_C / (there_C + seen_C - right_C), right_C / there_C
        pixels = float(right_C.sum() / counts_CC.sum())
        return cls(iou_C, accuracy_C, float(iou_C.nanmean()), float(accuracy_C.nanmean()), pixels)

    def metrics(self) -> dict[str, float]:
        """The three numbers of a whole set, by name."""
        return {"miou": self.miou, "mean_accuracy": self.mean_accuracy, "pixel_accuracy": self.pixel_accuracy}
