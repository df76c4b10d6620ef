"""Detections of several views become one list: every rule by hand, and against plain loops on many random boxes."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from inference.merging_loops import Found, merged
from internimage import Merging
from internimage.inference.merging import Merged, merge, merge_views
from internimage.model.detection import Detected
from internimage.structures import Framing, MergeRule, View, Views

RULES = get_args(MergeRule)
# IoU with the first: 1, 0.8, 0.25, 0.
BOXES = ((0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0), (0.0, 0.0, 5.0, 5.0), (20.0, 20.0, 30.0, 30.0))
SCORES = (0.9, 0.6, 0.5, 0.4)


def by(rule: Any, labels: tuple[int, ...] = (0, 0, 0, 0), *, views: int = 2, **settings: Any) -> Merged:
    """The four boxes under one rule."""
    limits = {name: settings.pop(name) for name in ("score_threshold", "limit") if name in settings}
    return merge(
        torch.tensor(BOXES),
        torch.tensor(SCORES),
        torch.tensor(labels),
        Merging(rule, **settings),
        views=views,
        **limits,
    )


def near(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_nms_by_hand() -> None:
    found = by("nms")
    assert found.rows.tolist() == [0, 2, 3]
    near(found.boxes, [BOXES[0], BOXES[2], BOXES[3]])
    near(found.scores, [0.9, 0.5, 0.4])
    assert by("nms", iou=0.81).rows.tolist() == [0, 1, 2, 3]
    assert by("nms", iou=0.2).rows.tolist() == [0, 3]


def test_soft_nms_by_hand() -> None:
    """Gaussian: after the first, 0.6 * exp(-0.64 / 0.5) = 0.1668, 0.5 * exp(-0.0625 / 0.5) = 0.4412."""
    found = by("soft_nms")
    assert found.rows.tolist() == [0, 2, 3, 1]
    # The second box overlaps the third, taken before it, by 25 / 80.
    last = 0.6 * math.exp(-(0.8**2) / 0.5) * math.exp(-(0.3125**2) / 0.5)
    near(found.scores, [0.9, 0.5 * math.exp(-0.125), 0.4, last])
    near(found.boxes, [BOXES[0], BOXES[2], BOXES[3], BOXES[1]])
    assert by("soft_nms", sigma=0.05).scores[3] < 1e-6


def test_linear_soft_nms_by_hand() -> None:
    """Only the second overlaps the first by 0.5 or more: 0.6 * (1 - 0.8) = 0.12."""
    found = by("soft_nms_linear")
    assert found.rows.tolist() == [0, 2, 3, 1]
    near(found.scores, [0.9, 0.5, 0.4, 0.12])
    near(by("soft_nms_linear", iou=0.25).scores, [0.9, 0.4, 0.375, 0.12 * 0.6875])


def test_box_voting_by_hand() -> None:
    """(0.9 * 10 + 0.6 * 8) / 1.5 = 9.2; the score stays."""
    found = by("box_voting")
    assert found.rows.tolist() == [0, 2, 3]
    near(found.boxes, [(0, 0, 10, 9.2), BOXES[2], BOXES[3]])
    near(found.scores, [0.9, 0.5, 0.4])
    # With the third's vote: (9 + 6 + 2.5) / 2, (9 + 4.8 + 2.5) / 2. It is asked for its own object by all three, too.
    third = [(0.9 * 10 + 0.6 * 10 + 0.5 * 5) / 2, (0.9 * 10 + 0.6 * 8 + 0.5 * 5) / 2]
    near(by("box_voting", votes=0.25).boxes, [(0, 0, *third), (0, 0, *third), BOXES[3]])


def test_box_fusion_by_hand() -> None:
    """The first two are one object, in both views: mean score 0.75. One view saw the others: half their scores."""
    found = by("box_fusion")
    assert found.rows.tolist() == [0, 2, 3]
    near(found.boxes, [(0, 0, 10, 9.2), BOXES[2], BOXES[3]])
    near(found.scores, [0.75, 0.25, 0.2])
    # More boxes than views count no more than all views; a third view that saw nothing lowers the score.
    near(by("box_fusion", views=1).scores, [0.75, 0.5, 0.4])
    near(by("box_fusion", views=3).scores, [0.5, 0.5 / 3, 0.4 / 3])


@pytest.mark.parametrize("rule", RULES)
def test_classes_never_meet(rule: MergeRule) -> None:
    found = by(rule, (0, 1, 2, 3), views=1)
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert found.labels.tolist() == [0, 1, 2, 3]
    near(found.boxes, BOXES)
    near(found.scores, SCORES)


@pytest.mark.parametrize("rule", RULES)
def test_limits_hold_for_the_new_scores(rule: MergeRule) -> None:
    every = by(rule)
    assert by(rule, limit=2).rows.tolist() == every.rows[:2].tolist()
    least = float(every.scores[1])
    assert by(rule, score_threshold=least).rows.tolist() == every.rows[:1].tolist()


@pytest.mark.parametrize("rule", RULES)
def test_nothing_and_boxes_without_area(rule: MergeRule) -> None:
    nothing = merge(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), Merging(rule), views=2)
    assert (nothing.boxes.shape, nothing.scores.shape, nothing.rows.shape) == ((0, 4), (0,), (0,))
    assert (nothing.boxes.dtype, nothing.labels.dtype) == (torch.float32, torch.int64)
    flat = torch.tensor([[3.0, 3, 3, 9]] * 2)
    found = merge(flat, torch.tensor([0.5, 0.7]), torch.tensor([1, 1]), Merging(rule), views=1)
    assert found.rows.tolist() == [1, 0]
    near(found.boxes, flat.tolist())
    near(found.scores, [0.7, 0.5])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [{}, {"iou": 0.3, "sigma": 0.2, "votes": 0.7}])
@pytest.mark.parametrize("rule", RULES)
def test_random_boxes_as_the_loops_say(rule: MergeRule, settings: dict[str, float], seed: int) -> None:
    """120 boxes of four classes, in crowds, so that every rule has something to do."""
    draw = np.random.default_rng(seed)
    centers = draw.uniform(20, 80, (12, 2))[draw.integers(12, size=120)] + draw.normal(0, 3, (120, 2))
    sides = draw.uniform(10, 30, (120, 2))
    boxes = np.concatenate((centers - sides / 2, centers + sides / 2), 1).astype(np.float32)
    scores, labels = draw.uniform(0.05, 1, 120).astype(np.float32), draw.integers(4, size=120)
    used = {"iou": rule != "soft_nms", "sigma": rule == "soft_nms", "votes": rule == "box_voting"}
    own = {name: value for name, value in settings.items() if used[name]}
    given = [
        Found(tuple(map(float, box)), float(s), int(k), row)
        for row, (box, s, k) in enumerate(zip(boxes, scores, labels, strict=True))
    ]
    expected = merged(given, rule, views=3, **{"iou": 0.5, "sigma": 0.5, "votes": 0.5} | own)
    found = merge(*map(torch.from_numpy, (boxes, scores, labels)), Merging(rule, **own), views=3, limit=120)  # pyright: ignore
    assert found.rows.tolist() == [each.row for each in expected if each.score > 0]
    assert rule.startswith("soft") or len(found.rows) < 100
    near(found.scores, [each.score for each in expected])
    torch.testing.assert_close(found.boxes, torch.tensor([each.box for each in expected]), atol=1e-4, rtol=0)
    assert found.labels.tolist() == [each.label for each in expected]


def seen(*rows: int) -> Detected:
    """Some of the four boxes, each with a mask of its own number of pixels."""
    masks = torch.stack([torch.arange(16).view(4, 4) < 1 + row for row in rows]) if rows else torch.zeros(0, 4, 4) > 0
    boxes = torch.tensor([BOXES[row] for row in rows]).view(-1, 4)
    return Detected(
        boxes, torch.tensor([SCORES[row] for row in rows]), torch.zeros(len(rows), dtype=torch.int64), masks
    )


@pytest.mark.parametrize("rule", RULES)
def test_masks_are_those_of_the_best_boxes(rule: MergeRule) -> None:
    views = [seen(1, 3), seen(), seen(0, 2)]
    found = merge_views(views, Merging(rule), score_threshold=0.0, limit=3)
    assert found.masks is not None
    # Of box 0 one pixel, of box 2 three, of box 3 four.
    assert found.masks.sum((1, 2)).tolist() == [1, 3, 4]
    empty = merge_views([seen(), seen()], Merging(rule), score_threshold=0.0, limit=3)
    assert empty.masks is not None
    assert empty.masks.shape == (0, 4, 4)


@pytest.mark.parametrize("rule", RULES)
def test_a_single_view_stays_as_it_is(rule: MergeRule) -> None:
    view = seen(0, 1, 2)
    assert merge_views([view], Merging(rule), score_threshold=0.95, limit=1) is view


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "wbf"}, "merge must be one of nms, soft_nms, soft_nms_linear, box_voting, box_fusion, got 'wbf'"),
        ({"iou": 0.0}, r"iou of merge must lie in \(0, 1\], got 0.0"),
        ({"rule": "box_voting", "votes": 1.5}, r"votes of merge must lie in \(0, 1\]"),
        ({"rule": "soft_nms", "sigma": 0.0}, "sigma of merge must be positive"),
        ({"rule": "soft_nms", "sigma": math.nan}, "sigma of merge must be positive"),
        ({"rule": "soft_nms", "iou": 0.5}, "soft_nms has no iou; leave it out"),
        ({"rule": "nms", "sigma": 0.4}, "nms has no sigma; leave it out"),
        ({"rule": "box_fusion", "votes": 0.4}, "box_fusion has no votes; leave it out"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Merging(**settings)


def test_views() -> None:
    framing = Framing((96, 160))
    assert Views().of(framing) == [View(framing)]
    assert Views(flip=True).of(framing) == [View(framing), View(framing, mirrored=True)]
    assert [view.framing.frame for view in Views((64, 128)).of(framing)] == [(64, 107), (128, 213)]
    assert Views((64, 96), merge="soft_nms").merging == Merging("soft_nms")
    for settings in ({"merge": "soft_nms"}, {"sides": (64,), "merge": Merging("nms", iou=0.7)}):
        with pytest.raises(ValueError, match="is for several views; add sides or flip, or leave merge out"):
            Views(**settings)  # pyright: ignore
    with pytest.raises(ValueError, match=r"sides must be 32 pixels or more, got \[64, 31\]"):
        Views((64, 31))
    with pytest.raises(ValueError, match="merge must be one of nms"):
        Views((64, 96), merge="best")  # pyright: ignore
