"""Counting which class is taken for which; all measures of segmentation come from these counts."""

from __future__ import annotations

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
