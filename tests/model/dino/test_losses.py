"""Matching and losses of DINO, against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from internimage.model.detection.dino.denoising import Copies
from internimage.model.detection.dino.losses import dino_losses
from internimage.model.detection.dino.transformer import Answers
from internimage.model.detection.queries import Target

pytest.importorskip("scipy")

LEFT, RIGHT = [0.25, 0.5, 0.2, 0.2], [0.75, 0.5, 0.2, 0.2]
TARGET: Target = {"class_labels": torch.tensor([1, 0]), "boxes": torch.tensor([LEFT, RIGHT])}
NOTHING: Target = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}


def answers(logits: Tensor, boxes: Tensor) -> Answers:
    """The same from the proposals and from one layer: each name's ``_aux`` is then the proposals' alone."""
    return Answers(logits[None], boxes[None], logits, boxes, boxes[None], boxes)


def focal(logit: float, is_class: bool) -> float:
    probability = 1 / (1 + math.exp(-logit))
    own = probability if is_class else 1 - probability
    return (0.25 if is_class else 0.75) * (1 - own) ** 2 * -math.log(own)


def test_one_layer_by_hand() -> None:
    """Query 0 lies on the right object, query 1 a tenth beside the left one, query 2 nowhere."""
    logits = torch.tensor([[[2.0, -1.0], [-1.0, 1.0], [-2.0, -2.0]]])
    boxes = torch.tensor([[RIGHT, [0.35, 0.5, 0.2, 0.2], [0.5, 0.1, 0.1, 0.1]]])
    found = dino_losses(answers(logits, boxes), [TARGET], None)
    wanted = torch.tensor([[True, False], [False, True], [False, False]])
    pairs = zip(logits.flatten().tolist(), wanted.flatten().tolist(), strict=True)
    assert found["class"] == pytest.approx(sum(itertools.starmap(focal, pairs)) / 2, rel=1e-5)
    assert found["box"] == pytest.approx(5 * 0.1 / 2, rel=1e-5)
    # Half of each overlaps: an IoU of a third, and the hull is 0.3 x 0.2, filled.
    assert found["giou"] == pytest.approx(2 * (1 - 1 / 3) / 2, rel=1e-5)
    assert all(found[f"{name}_aux"] == pytest.approx(float(found[name])) for name in ("class", "box", "giou"))
    assert set(found) == {"class", "box", "giou", "class_aux", "box_aux", "giou_aux"}


def test_matching_is_the_cheapest_of_all() -> None:
    """Every assignment tried: 2 * focal difference + 5 * L1 + 2 * (1 - GIoU) of the pairs."""
    torch.manual_seed(0)
    logits, boxes = torch.randn(1, 4, 2), torch.rand(1, 4, 4) * 0.4 + 0.3
    found = dino_losses(answers(logits, boxes), [TARGET], None)

    def gap(query: int, row: int) -> Tensor:
        return (boxes[0, query] - TARGET["boxes"][row]).abs().sum()

    def cost(query: int, row: int) -> float:
        logit, box = float(logits[0, query, TARGET["class_labels"][row]]), boxes[0, query]
        return 2 * (focal(logit, True) - focal(logit, False)) + 5 * float(gap(query, row)) - 2 * giou(box, row)

    best = min(itertools.permutations(range(4), 2), key=lambda pair: cost(pair[0], 0) + cost(pair[1], 1))
    assert found["box"] == pytest.approx(float(5 * (gap(best[0], 0) + gap(best[1], 1)) / 2), rel=1e-5)


def giou(box: Tensor, row: int) -> float:
    sides = [(float(each[0] - each[2] / 2), float(each[0] + each[2] / 2)) for each in (box, TARGET["boxes"][row])]
    sides += [(float(each[1] - each[3] / 2), float(each[1] + each[3] / 2)) for each in (box, TARGET["boxes"][row])]
    both = hull = 1.0
    areas = [1.0, 1.0]
    for one, other in (sides[:2], sides[2:]):
        both *= max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
        hull *= max(one[1], other[1]) - min(one[0], other[0])
        areas = [areas[0] * (one[1] - one[0]), areas[1] * (other[1] - other[0])]
    union = sum(areas) - both
    return both / union - (hull - union) / hull


def test_copies_mend_their_own_object() -> None:
    """Two groups, each of one better copy and a worse one, before one query; nobody is matched anew."""
    target: Target = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([LEFT])}
    made = Copies(
        torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 4), torch.ones(1, 4, dtype=torch.bool), groups=2
    )
    logits = torch.tensor([[[-3.0, 1.0], [-3.0, 0.5], [-3.0, 2.0], [-3.0, -1.0], [-3.0, 3.0]]])
    # The worse copies lie better: it must not count.
    shifts = (0.1, 0.0, 0.05, 0.0, 0.0)
    boxes = torch.tensor([[[LEFT[0] + shift, *LEFT[1:]] for shift in shifts]])
    whole = Answers(logits[None], boxes[None], logits[:, 4:], boxes[:, 4:], boxes[None], boxes)
    found = dino_losses(whole, [target], made)
    assert found["box_dn"] == pytest.approx(5 * (0.1 + 0.05) / 2, rel=1e-5)
    others = 4 * focal(-3, False) + focal(0.5, False) + focal(-1, False)
    assert found["class_dn"] == pytest.approx((focal(1, True) + focal(2, True) + others) / 2, rel=1e-5)
    assert found["box"] == 0
    assert found["class"] == pytest.approx(focal(-3, False) + focal(3, True), rel=1e-5)


def test_pictures_without_objects_are_background() -> None:
    logits, boxes = torch.zeros(2, 3, 2), torch.rand(2, 3, 4)
    found = dino_losses(answers(logits, boxes), [NOTHING, NOTHING], None)
    assert found["box"] == found["giou"] == 0
    # Divided by 1 where there is nothing.
    assert found["class"] == pytest.approx(12 * focal(0, False), rel=1e-5)


def test_masked_classes_do_not_count() -> None:
    logits, boxes = torch.randn(1, 3, 2), torch.tensor([[RIGHT, LEFT, LEFT]])
    alone = dino_losses(answers(logits, boxes), [TARGET], None, torch.tensor([True, False]))
    every = dino_losses(answers(logits, boxes), [TARGET], None, torch.tensor([True, True]))
    other = dino_losses(answers(logits, boxes), [TARGET], None, torch.tensor([False, True]))
    assert 0 < alone["class"] < every["class"]
    assert float(alone["class"] + other["class"]) == pytest.approx(float(every["class"]), rel=1e-5)


def test_tiny_boxes_overlap_as_large_ones() -> None:
    """A pixel of a 1000 x 1000 picture, met exactly, and by half."""
    target: Target = {"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 1e-3, 1e-3]])}
    for shift, overlap in ((0.0, 1.0), (5e-4, 1 / 3)):
        found = dino_losses(
            answers(torch.zeros(1, 1, 2), target["boxes"][None] + torch.eye(4)[0] * shift), [target], None
        )
        assert float(found["giou"]) == pytest.approx(2 * (1 - overlap), abs=2e-3)


def test_losses_are_shared_out_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has 7 objects in 1 group of copies; this one 1 in 2 groups: means are 4, and 4.5 copies."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts: counts.add_(torch.tensor([7.0, 7.0])))
    target: Target = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([LEFT])}
    made = Copies(
        torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 4), torch.ones(1, 4, dtype=torch.bool), groups=2
    )
    boxes = torch.tensor([[[LEFT[0] + 0.1, *LEFT[1:]]] * 5])
    whole = Answers(torch.zeros(1, 1, 5, 2), boxes[None], torch.zeros(1, 1, 2), boxes[:, 4:], boxes[None], boxes)
    found = dino_losses(whole, [target], made)
    assert found["box"] == pytest.approx(5 * 0.1 / 4, rel=1e-5)
    assert found["box_dn"] == pytest.approx(5 * (0.1 + 0.1) / 4.5, rel=1e-5)
    # A process without objects has no copies, but must take part in as many sums.
    alone = dino_losses(answers(torch.zeros(1, 3, 2), torch.rand(1, 3, 4)), [NOTHING], None)
    assert alone["class"] == pytest.approx(6 * focal(0, False) / 3.5, rel=1e-5)


def test_answers_that_are_no_numbers_are_a_loss_that_is_none() -> None:
    """So that training says or skips it, as for every other network."""
    logits, boxes = torch.full((1, 3, 2), math.nan), torch.full((1, 3, 4), math.nan)
    assert all(each.isnan() for each in dino_losses(answers(logits, boxes), [TARGET], None).values())
