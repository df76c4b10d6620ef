"""Intersection over union by hand."""

from __future__ import annotations

import math

import pytest
import torch

from internimage.structures import IGNORED, Measures
from internimage.tasks.segmentation.confusions import confusions


def test_counted_by_hand() -> None:
    """Three classes; of nine pixels one is ignored.

    truth 0 0 0 / 1 1 2 / 2 2 x    found 0 0 1 / 1 1 2 / 0 2 2
    """
    truth = torch.tensor([[0, 0, 0], [1, 1, 2], [2, 2, IGNORED]], dtype=torch.uint8)
    found = torch.tensor([[0, 0, 1], [1, 1, 2], [0, 2, 2]], dtype=torch.uint8)
    counts = confusions(truth, found, 3)
    assert counts.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 2]]
    measures = Measures.of(counts.numpy())
    assert measures.iou.tolist() == pytest.approx([2 / 4, 2 / 3, 2 / 3])
    assert measures.accuracy.tolist() == pytest.approx([2 / 3, 1, 2 / 3])
    assert measures.metrics() == pytest.approx({"miou": 11 / 18, "mean_accuracy": 7 / 9, "pixel_accuracy": 6 / 8})


def test_a_class_that_is_nowhere_counts_nowhere() -> None:
    measures = Measures.of(confusions(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]), 3).numpy())
    assert math.isnan(measures.iou[2])
    assert math.isnan(measures.accuracy[2])
    assert measures.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert measures.mean_accuracy == pytest.approx((1 + 1 / 2) / 2)


def test_a_class_seen_where_there_is_none_counts_as_zero() -> None:
    measures = Measures.of(confusions(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]), 2).numpy())
    assert measures.iou.tolist() == [0.75, 0.0]
    assert measures.miou == 0.375
    assert math.isnan(measures.accuracy[1])
    assert measures.mean_accuracy == 0.75


def test_a_class_that_is_never_found() -> None:
    measures = Measures.of(confusions(torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.int64), 2).numpy())
    assert measures.iou.tolist() == [0.5, 0.0]
    assert measures.metrics() == {"miou": 0.25, "mean_accuracy": 0.5, "pixel_accuracy": 0.5}


def test_where_all_is_ignored_there_are_no_numbers() -> None:
    measures = Measures.of(confusions(torch.full((2, 2), IGNORED), torch.zeros(2, 2, dtype=torch.int64), 2).numpy())
    assert all(math.isnan(value) for value in measures.metrics().values())


def test_counts_of_parts_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, found = (torch.randint(0, 4, (6, 11), generator=generator) for _ in range(2))
    truth[2, 3] = IGNORED
    parts = [confusions(a, b, 4) for a, b in zip(truth, found, strict=True)]
    assert torch.stack(parts).sum(0).equal(confusions(truth, found, 4))
    by_hand = [[sum(((truth == i) & (found == j)).flatten().tolist()) for j in range(4)] for i in range(4)]
    assert confusions(truth, found, 4).tolist() == by_hand


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="truth holds 7, which is none of 3 classes"):
        confusions(torch.tensor([0, 7]), torch.tensor([0, 1]), 3)
    with pytest.raises(ValueError, match="found holds 3, which is none of 3 classes"):
        confusions(torch.tensor([0, 1]), torch.tensor([0, 3]), 3)
    with pytest.raises(ValueError, match=r"has shape \(C, C\), got \(2, 3\)"):
        Measures.of(torch.zeros(2, 3).numpy())
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        confusions(torch.zeros(2), torch.zeros(3), 3)
