"""Noisy copies of the truth, checked by hand: how many, how wrong, who may see whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from internimage.model.detection.dino.denoising import Copies, make_copies, visible

from .conftest import TINY

# Far from the picture's border, so that nothing is cut off; the second picture has one object fewer.
BOXES = [torch.tensor([[0.5, 0.5, 0.2, 0.1], [0.4, 0.6, 0.1, 0.1]]), torch.tensor([[0.5, 0.4, 0.1, 0.2]])]
LABELS = [torch.tensor([2, 0]), torch.tensor([1])]


def copies(**settings: float) -> Copies:
    torch.manual_seed(3)
    made = make_copies(BOXES, LABELS, replace(TINY, **settings))
    assert made is not None
    return made


def corners(copied: Copies) -> Tensor:
    """(N, G, 2, R, 2, 2): low and high corners."""
    center, side = copied.logits.sigmoid().unflatten(1, (copied.groups, 2, copied.rows)).split(2, -1)
    return torch.stack((center - side / 2, center + side / 2), -2)


def test_groups_fill_the_wanted_number() -> None:
    """Six copies for at most two objects are three groups, each of two better and two worse ones."""
    made = copies()
    assert (made.groups, made.rows, made.labels.shape[1]) == (3, 2, 12)
    assert made.better().tolist() == [[0, 1], [4, 5], [8, 9]]
    assert made.is_object[0].all()
    assert made.is_object[1].tolist() == [True, False] * 6
    assert not made.logits[1, 1::2].any()


def test_one_group_at_least() -> None:
    assert copies(denoising_queries=1).groups == 1


def test_without_objects_or_queries_there_are_none() -> None:
    nothing = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2
    assert make_copies(*nothing, TINY) is None
    assert make_copies(BOXES, LABELS, replace(TINY, denoising_queries=0)) is None


def test_without_noise_better_copies_are_the_truth() -> None:
    made = copies(label_noise=0.0, box_noise=0.0)
    boxes = made.logits.sigmoid()
    for group in range(3):
        rows = slice(4 * group, 4 * group + 2)
        assert torch.allclose(boxes[0, rows], BOXES[0], atol=1e-6)
        assert made.labels[0, rows].tolist() == [2, 0]


def test_corners_move_as_far_as_they_should() -> None:
    """Better copies by less than half a side times the noise, worse ones by once to twice that, either way."""
    made = copies(box_noise=0.4, denoising_queries=2000)
    center, side = BOXES[0].split(2, -1)
    truth = torch.stack((center - side / 2, center + side / 2), -2)
    moved = (corners(made)[0] - truth) / (0.4 * side / 2)[:, None]
    better, worse = moved[:, 0].abs(), moved[:, 1].abs()
    assert better.max() <= 1 + 1e-3
    assert better.max() > 0.95
    assert better.min() < 0.05
    assert worse.min() >= 1 - 1e-3
    assert worse.max() > 1.95
    assert 0.45 < (moved > 0).float().mean() < 0.55


def test_corners_stay_in_the_picture() -> None:
    made = make_copies([torch.tensor([[0.05, 0.95, 0.1, 0.1]])], [torch.tensor([0])], replace(TINY, box_noise=1.0))
    assert made is not None
    low_high = corners(made)
    assert low_high.min() >= -1e-3
    assert low_high.max() <= 1 + 1e-3


def test_half_of_the_label_noise_becomes_another_draw() -> None:
    """A drawn label is the right one in a third of the cases here: 0.5 / 2 * 2 / 3 are wrong."""
    made = copies(label_noise=0.5, denoising_queries=20_000)
    right = torch.tensor([2, 0]).repeat(2 * made.groups)
    assert (made.labels[0] != right).float().mean() == pytest.approx(1 / 6, abs=0.01)


def test_who_may_see_whom() -> None:
    """Two groups of two copies, and two queries; written out by hand."""
    made = Copies(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 4), torch.ones(1, 4, dtype=torch.bool), 2)
    assert visible(made, 2).int().tolist() == [
        [1, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]
