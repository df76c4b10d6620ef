"""Targets and losses by hand, and a detector that learns a picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from internimage import InternImageConfig
from internimage.model.detection import DetectorConfig, InternImageDetector, Objects
from internimage.model.detection.boxes import BoxCoder, clip_boxes, suppress
from internimage.model.detection.losses import _box_loss
from internimage.model.detection.pooling import RoIPooling
from internimage.model.detection.results import paste_masks
from internimage.model.detection.targets import Sampled, mask_targets, sample

TRUTH = Objects(torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), torch.tensor([2, 0]))


def detector(stages: int, **options: int) -> InternImageDetector:
    backbone = InternImageConfig.stacked(16, 16, 1, 1, num_classes=0)
    convs, layers = (0, 2) if stages == 1 else (1, 1)
    config = DetectorConfig(
        backbone, 3, stages, fpn_channels=32, head_convs=convs, head_layers=layers, head_channels=64, **options
    )
    return InternImageDetector(config)


def test_boxes_go_to_the_object_they_overlap_most() -> None:
    """IoU 1/1, 81/100, 25/175, 0; the truth itself is added."""
    proposals = torch.tensor([[20.0, 20, 40, 40], [0, 0, 9, 9], [5, 5, 15, 15], [60, 60, 70, 70]])
    chosen = sample(proposals, TRUTH, num_classes=3, iou=0.5)
    rows = zip(chosen.boxes.tolist(), chosen.labels.tolist(), chosen.is_truth.tolist(), strict=True)
    found = {tuple(box): label for box, label, own in rows if not own}
    assert found == {
        (20, 20, 40, 40): 0,
        (0, 0, 9, 9): 2,
        (5, 5, 15, 15): 3,
        (60, 60, 70, 70): 3,
    }
    assert int(chosen.is_truth.sum()) == 2
    stricter = sample(proposals, TRUTH, num_classes=3, iou=0.85, add_truth=False)
    assert sorted(stricter.labels.tolist()) == [0, 3, 3, 3]


def test_without_objects_all_is_background() -> None:
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    chosen = sample(torch.rand(7, 4).cumsum(1), nothing, num_classes=3, iou=0.5)
    assert chosen.labels.tolist() == [3] * 7


def test_a_mask_inside_its_box() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[1, 2:6, 4:8] = True
    truth = Objects(torch.tensor([[0.0, 0, 1, 1], [2, 2, 6, 6]]), torch.tensor([0, 0]), masks)
    target = mask_targets(truth, torch.tensor([[2.0, 2, 6, 6]]), torch.tensor([1]), 4)
    assert target[0].tolist() == [[0, 0, 1, 1]] * 4


def test_box_losses_by_hand() -> None:
    """One box on an object of four: L1 of deltas (2, 0, 0, 0) over 4; GIoU of a box beside it."""
    chosen = Sampled(
        torch.tensor([[0.0, 0, 10, 10]] * 4),
        torch.tensor([2, 3, 3, 3]),
        torch.zeros(4, dtype=torch.long),
        torch.zeros(4, dtype=torch.bool),
    )
    deltas = torch.zeros(4, 12)
    deltas[0, 8] = 2.0
    coder = BoxCoder((0.5, 0.5, 0.5, 0.5))
    loss = _box_loss(coder, deltas, [chosen], [TRUTH], 3, is_decoded=False)
    assert float(loss) == pytest.approx(2 / 4)
    # Moved by 2 * 0.5 of its width: the boxes touch, IoU 0, and fill their hull: GIoU 0, loss 10 * (1 - 0) / 4.
    assert float(_box_loss(coder, deltas, [chosen], [TRUTH], 3, is_decoded=True)) == pytest.approx(10 / 4, rel=1e-5)


def test_coder_goes_back_and_is_clamped() -> None:
    coder, boxes = BoxCoder((0.1, 0.1, 0.2, 0.2)), torch.tensor([[10.0, 20, 40, 60]])
    wanted = torch.tensor([[12.0, 18, 50, 55]])
    torch.testing.assert_close(coder.decode_single(coder.encode_single(wanted, boxes), boxes), wanted)
    small = coder.decode_single(torch.tensor([[0.0, 0, -1000, 1000]]), boxes)[0]
    assert (small[2:] - small[:2]).tolist() == pytest.approx([30 * 16 / 1000, 40 * 1000 / 16])
    assert clip_boxes(torch.tensor([-5.0, 2, 200, 300]), 100, 150).tolist() == [0, 2, 150, 100]


def test_suppression_by_hand() -> None:
    """Of one class the better of two that overlap stays; another class has its own; a score at the limit is none."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])[:, None].expand(3, 2, 4)
    scores = torch.tensor([[0.9, 0.05], [0.8, 0.7], [0.3, 0.04]])
    kept = suppress(boxes, scores, score_threshold=0.05, nms_threshold=0.5, limit=10)
    assert list(zip(kept.labels.tolist(), [round(score, 2) for score in kept.scores.tolist()], strict=True)) == [
        (0, 0.9),
        (1, 0.7),
        (0, 0.3),
    ]


def test_levels_by_size() -> None:
    sides = torch.tensor([10.0, 111.9, 112.1, 224.1, 448.1, 4000])
    boxes = torch.stack((torch.zeros(6), torch.zeros(6), sides, sides), 1)
    assert RoIPooling(7, 56).levels(boxes).tolist() == [0, 0, 1, 2, 3, 3]


def test_pasting_by_hand() -> None:
    """A full mask fills its box's pixels, also where the box leaves the picture; a box without area fills none."""
    boxes = torch.tensor([[2.0, 1, 5, 4], [-2, -2, 2, 2], [3, 3, 3, 5]])
    pasted = paste_masks(torch.ones(3, 4, 4), boxes, (6, 8), 0.5)
    assert pasted[0].nonzero().tolist() == [[y, x] for y in range(1, 4) for x in range(2, 5)]
    assert pasted[1].nonzero().tolist() == [[y, x] for y in range(2) for x in range(2)]
    assert not pasted[2].any()


@pytest.mark.parametrize("stages", [1, 3])
def test_losses_reach_every_weight_also_without_objects(stages: int) -> None:
    model = detector(stages).train()
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, :10, :10], masks[1, 20:40, 20:40] = True, True
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), masks[:0])
    image = torch.rand(2, 3, 64, 96)
    losses = model.losses(image, [Objects(TRUTH.boxes, TRUTH.labels, masks), nothing])
    assert len(losses) == 2 + 3 * stages
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, each in model.named_parameters() if each.grad is None] == []
    background = model.losses(image, [nothing, nothing])
    assert all(each.isfinite() for each in background.values())
    with pytest.raises(ValueError, match=r"detector\.train\(\)"):
        model.eval().losses(image, [nothing, nothing])


@pytest.mark.parametrize(
    ("stages", "steps", "rate", "options"),
    [
        (1, 80, 2e-3, {"samples": 128, "proposals": 200, "proposals_per_level": 200}),
        pytest.param(3, 200, 1e-3, {}, marks=pytest.mark.slow),
    ],
    ids=["mask_rcnn", "cascade"],
)
def test_learns_one_picture(stages: int, steps: int, rate: float, options: dict[str, int]) -> None:
    """Two squares of different colours on noise: their boxes, classes and masks."""
    image = 0.1 * torch.randn(1, 3, 64, 96)
    boxes = torch.tensor([[8.0, 8, 32, 40], [52, 20, 84, 52]])
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        masks[number, y1:y2, x1:x2] = True
        image[0, number, y1:y2, x1:x2] += 2
    truth, model = Objects(boxes, torch.tensor([2, 0]), masks), detector(stages, **options).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    # Without a decay the last steps still move boxes by pixels, differently on every machine.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss: Tensor = torch.stack(list(model.losses(image, [truth]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        (found,) = model.eval()(image)
    assert found.masks is not None
    best = [int((found.labels == label).nonzero()[0, 0]) for label in (2, 0)]
    assert (box_iou(found.boxes[best], boxes).diag() > 0.85).all()
    assert (found.scores[best] > 0.5).all()
    assert [int((found.masks[row] ^ mask).sum()) < 150 for row, mask in zip(best, masks, strict=True)] == [True, True]
