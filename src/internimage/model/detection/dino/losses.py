"""What DINO minimises: each layer's answers matched with the truth, and the mending of noisy copies.

Shape legend: N images, Q queries, K classes, R objects of an image, M matched queries of a batch.

Source: ``DINOHead.loss`` of the released code, 31c962d, with its configurations' weights.
"""

# transformers and torchvision are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss

from internimage.model.detection.dino.denoising import Copies
from internimage.model.detection.dino.transformer import Answers
from internimage.model.detection.queries import NEEDS, Target

_ALPHA, _GAMMA = 0.25, 2.0
_WEIGHTS = {"class": 1.0, "box": 5.0, "giou": 2.0}
# Of the same three, in matching.
_COSTS = (2.0, 5.0, 2.0)
# A side of a picture in the loss of overlaps: torchvision adds 1e-7 to areas, a tenth of what a pixel of a
# 1000 x 1000 picture would have if the side was 1.
_UNIT = 1000.0
# Image, query and object of each match.
Pairs: TypeAlias = tuple[Tensor, Tensor, Tensor]


def dino_losses(
    answers: Answers, targets: Sequence[Target], copies: Copies | None, class_mask_K: Tensor | None = None
) -> dict[str, Tensor]:
    """Weighted losses by name: of the last layer, ``_aux`` of the earlier ones and the proposals, ``_dn`` of copies.

    Args:
        answers: of the detector; the copies' come first.
        targets: of each image.
        copies: that the detector was asked about, or None.
        class_mask_K: classes that count; all by default.

    Raises:
        ImportError: scipy is missing.
    """
    count = 0 if copies is None else copies.labels.shape[1]
    logits, boxes = answers.logits.float(), answers.boxes.float()
    layers = [(answers.proposed_logits.float(), answers.proposed_boxes.float())]
    layers += list(zip(logits[:, :, count:], boxes[:, :, count:], strict=True))
    # Where there are more objects than queries, as many as are matched.
    here = sum(min(len(each["boxes"]), layers[0][0].shape[1]) for each in targets)
    copied = sum(len(each["boxes"]) for each in targets)
    groups = 0 if copies is None else copies.groups
    objects, mended = _means_over_processes((here, copied * groups), logits)
    matcher = _matcher()
    found = [_losses(*layer, targets, _matched(matcher, *layer, targets), objects, class_mask_K) for layer in layers]
    summed = {name: found[-1][name] for name in _WEIGHTS}
    summed |= {f"{name}_aux": _sum(each[name] for each in found[:-1]) for name in _WEIGHTS}
    if copies is not None:
        found = [
            _losses(*layer, targets, _own(copies, targets), mended, class_mask_K)
            for layer in zip(logits[:, :, :count], boxes[:, :, :count], strict=True)
        ]
        summed |= {f"{name}_dn": _sum(each[name] for each in found) for name in _WEIGHTS}
    return summed


def _losses(
    logits_NQK: Tensor,
    boxes_NQ4: Tensor,
    targets: Sequence[Target],
    pairs: Pairs,
    objects: Tensor,
    class_mask_K: Tensor | None,
) -> Mapping[str, Tensor]:
    """Of one layer."""
    images, queries, rows = pairs
    starts = torch.tensor([0, *(len(each["boxes"]) for each in targets)], device=rows.device).cumsum(0)
    # Objects are counted through all images.
    labels_M = torch.cat([each["class_labels"] for each in targets])[rows + starts[images]]
    wanted_M4 = torch.cat([each["boxes"].float() for each in targets])[rows + starts[images]]
    is_class = torch.zeros_like(logits_NQK)
    is_class[images, queries, labels_M] = 1
    focal_NQK: Any = sigmoid_focal_loss(logits_NQK, is_class, alpha=_ALPHA, gamma=_GAMMA)
    if class_mask_K is not None:
        focal_NQK = focal_NQK * class_mask_K
    found_M4 = boxes_NQ4[images, queries]
    corners = [_UNIT * box_convert(each, "cxcywh", "xyxy") for each in (found_M4, wanted_M4)]
    found = {
        "class": focal_NQK.sum(),
        "box": functional.l1_loss(found_M4, wanted_M4, reduction="sum"),
        "giou": generalized_box_iou_loss(*corners, reduction="sum"),
    }
    return {name: _WEIGHTS[name] * value / objects for name, value in found.items()}


def _matcher() -> Any:
    if find_spec("scipy") is None:
        raise ImportError(NEEDS.format("scipy to train"))
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher

    return DeformableDetrHungarianMatcher(*_COSTS)


def _matched(matcher: Any, logits_NQK: Tensor, boxes_NQ4: Tensor, targets: Sequence[Target]) -> Pairs:
    """Each object's cheapest query, one for each."""
    # transformers' raises for a box that is no number; here the loss becomes none, which training knows how to take.
    found = matcher({"logits": logits_NQK, "pred_boxes": boxes_NQ4.nan_to_num()}, targets)
    images = [torch.full_like(queries, image) for image, (queries, _) in enumerate(found)]
    columns = (images, [queries for queries, _ in found], [rows for _, rows in found])
    image, query, row = (torch.cat(column).to(logits_NQK.device) for column in columns)
    return image, query, row


def _own(copies: Copies, targets: Sequence[Target]) -> Pairs:
    """The better copies and their objects."""
    better_GR = copies.better()
    pairs = [
        (torch.full_like(queries, image), queries, rows)
        for image, each in enumerate(targets)
        for queries, rows in [
            (better_GR[:, : len(each["boxes"])].flatten(), torch.arange(len(each["boxes"])).repeat(copies.groups))
        ]
    ]
    image, query, row = (torch.cat(column).to(better_GR.device) for column in zip(*pairs, strict=True))
    return image, query, row


def _means_over_processes(counts: Sequence[int], like: Tensor) -> Tensor:
    """Counts per process, 1 at least: gradients are averaged, so whatever is counted weighs the same everywhere.

    Groups of copies are as many as each process has room for, so they must be counted, not taken from this one.
    """
    means = like.new_tensor([float(count) for count in counts])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(means)
        means = means / torch.distributed.get_world_size()
    return means.clamp(min=1)


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
