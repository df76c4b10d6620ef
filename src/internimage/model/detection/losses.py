"""What the heads lose, stage by stage.

Shape legend: R sampled boxes of all images, C classes.
"""

# torchvision's detection parts are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from internimage.model.detection.boxes import BoxCoder, clip_boxes
from internimage.model.detection.roi_heads import RoIHeads
from internimage.model.detection.targets import Objects, Sampled, mask_targets, sample
from internimage.structures import Placement

# Of the cascade's stages; Mask R-CNN has the first of each.
_IOUS, _WEIGHTS = (0.5, 0.6, 0.7), (1.0, 0.5, 0.25)
_GIOU_WEIGHT = 10.0


def roi_losses(
    heads: RoIHeads,
    maps: Sequence[Tensor],
    proposals: Sequence[Tensor],
    truths: Sequence[Objects],
    placements: Sequence[Placement],
) -> dict[str, Tensor]:
    """Losses of every stage, by names such as ``stage0_class``, already weighted.

    Source: ``forward_train`` of ``StandardRoIHead`` and ``CascadeRoIHead``, mmdet 2.28, roi_heads.
    """
    classes, losses, boxes = heads.config.num_classes, dict[str, Tensor](), list(proposals)
    for stage, (head, coder) in enumerate(zip(heads.box_heads, heads.coders, strict=True)):
        chosen = [
            sample(each, truth, num_classes=classes, iou=_IOUS[stage], count=heads.config.samples)
            for each, truth in zip(boxes, truths, strict=True)
        ]
        logits, deltas = head(heads.box_pooling(maps, [each.boxes for each in chosen]))
        labels = torch.cat([each.labels for each in chosen])
        weight = _WEIGHTS[stage]
        losses[f"stage{stage}_class"] = weight * functional.cross_entropy(logits, labels)
        is_cascade = heads.config.stages > 1
        losses[f"stage{stage}_box"] = weight * _box_loss(coder, deltas, chosen, truths, classes, is_decoded=is_cascade)
        if heads.config.masks:
            losses[f"stage{stage}_mask"] = weight * _mask_loss(heads, stage, maps, chosen, truths)
        if stage + 1 < heads.config.stages:
            boxes = _refined(coder, logits, deltas, chosen, placements, classes)
    return losses


def _box_loss(
    coder: BoxCoder,
    deltas_RC4: Tensor,
    chosen: Sequence[Sampled],
    truths: Sequence[Objects],
    num_classes: int,
    *,
    is_decoded: bool,
) -> Tensor:
    """L1 of deltas, or 10 times GIoU of boxes; a sum over boxes on objects, divided by the number of all."""
    labels = torch.cat([each.labels for each in chosen])
    rows = (labels < num_classes).nonzero()[:, 0]
    deltas = deltas_RC4.unflatten(1, (-1, 4))[rows, labels[rows]]
    boxes, wanted = torch.cat([each.boxes for each in chosen])[rows], _own_boxes(chosen, truths)[rows]
    if is_decoded:
        loss = _GIOU_WEIGHT * generalized_box_iou_loss(coder.decode_single(deltas, boxes), wanted, reduction="sum")
    else:
        loss = functional.l1_loss(deltas, coder.encode_single(wanted, boxes), reduction="sum")
    return loss / max(len(labels), 1)


def _mask_loss(
    heads: RoIHeads, stage: int, maps: Sequence[Tensor], chosen: Sequence[Sampled], truths: Sequence[Objects]
) -> Tensor:
    """Binary cross-entropy of each object's own class, the mean over pixels."""
    rows = [each.positives(heads.config.num_classes) for each in chosen]
    boxes = [each.boxes[row] for each, row in zip(chosen, rows, strict=True)]
    labels = torch.cat([each.labels[row] for each, row in zip(chosen, rows, strict=True)])
    logits = heads.mask_heads[stage](heads.mask_pooling(maps, boxes))
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    if not len(labels):
        # Nothing to learn, but every parameter takes part: data-parallel training waits for all of them.
        return logits.sum() * 0
    wanted = [
        mask_targets(truth, box, each.objects[row], own.shape[-1])
        for truth, box, each, row in zip(truths, boxes, chosen, rows, strict=True)
        if len(row)
    ]
    return functional.binary_cross_entropy_with_logits(own, torch.cat(wanted))


def _own_boxes(chosen: Sequence[Sampled], truths: Sequence[Objects]) -> Tensor:
    """Of each sampled box, its object's box; of background boxes, themselves where there is no object at all."""
    return torch.cat(
        [
            truth.boxes[each.objects].to(each.boxes.dtype) if len(truth.boxes) else each.boxes
            for each, truth in zip(chosen, truths, strict=True)
        ]
    )


@torch.no_grad()
def _refined(
    coder: BoxCoder,
    logits: Tensor,
    deltas_RC4: Tensor,
    chosen: Sequence[Sampled],
    placements: Sequence[Placement],
    num_classes: int,
) -> list[Tensor]:
    """The next stage's proposals: boxes moved by the deltas of their class, of background by those of the best one."""
    counts, refined = [len(each.labels) for each in chosen], list[Tensor]()
    for logit, delta, each, placement in zip(
        logits.split(counts), deltas_RC4.split(counts), chosen, placements, strict=True
    ):
        label = torch.where(each.labels == num_classes, logit[:, :-1].argmax(1), each.labels)
        own = delta.unflatten(1, (-1, 4))[torch.arange(len(label), device=label.device), label]
        moved = clip_boxes(coder.decode_single(own, each.boxes), *placement.size)
        # The truth itself is added anew.
        refined.append(moved[~each.is_truth])
    return refined
