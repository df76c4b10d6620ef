"""Detections of several views of a picture become one list, class by class.

Shape legend: R boxes of all views, K boxes that remain. Boxes are (x1, y1, x2, y2) in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from internimage.model.detection import Detected
from internimage.structures import Merging

Numbers = NDArray[np.float64]
Share = Callable[[Numbers], Numbers]
"""What a score keeps, by the IoU with a better box."""

# Of rules and detectors that say none.
_IOU = 0.5


@dataclass(frozen=True)
class Merged:
    """What remains, best first.

    Args:
        boxes: (K, 4).
        scores: (K,).
        labels: (K,).
        rows: (K,), the best of the given boxes behind each, whose mask is the object's.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor


def merge(
    boxes_R4: Tensor,
    scores_R: Tensor,
    labels_R: Tensor,
    merging: Merging,
    *,
    views: int,
    score_threshold: float = 0.0,
    limit: int = 100,
) -> Merged:
    """Put together what several views of one picture show, on the CPU.

    Source: greedy suppression; arXiv:1704.04503, Sec. 3 (``soft_nms``, ``soft_nms_linear``); arXiv:1505.01749, Sec. 5
    (``box_voting``, whose scores stay those of the kept boxes); arXiv:1910.13302, Sec. 3.2 (``box_fusion``, where a box
    joins the fused box that it overlaps most).

    Args:
        boxes_R4: of all views, in float32.
        scores_R: in (0, 1).
        labels_R: class indices, int64.
        merging: the rule; without its ``iou`` the threshold is 0.5.
        views: how many there were.
        score_threshold: a new score at or below it is no detection.
        limit: most boxes that remain.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])
    >>> scores, labels = torch.tensor([0.9, 0.6]), torch.tensor([0, 0])
    >>> merge(boxes, scores, labels, Merging("box_voting"), views=2).boxes
    tensor([[ 0.0000,  0.0000, 10.0000,  9.2000]])
    """
    # Of equal scores the first view's counts as better, whatever the rule.
    order = scores_R.argsort(descending=True, stable=True)
    boxes_R4, scores_R, labels_R = boxes_R4[order], scores_R[order], labels_R[order]
    iou = _IOU if merging.iou is None else merging.iou
    if merging.rule == "box_fusion":
        boxes, scores, rows = _fused(boxes_R4, scores_R, labels_R, iou, views)
    elif merging.rule in ("soft_nms", "soft_nms_linear"):
        share = _gaussian(merging.sigma) if merging.rule == "soft_nms" else _linear(iou)
        scores, rows = _softened(boxes_R4, scores_R, labels_R, share, score_threshold, limit)
        boxes = boxes_R4[rows]
    else:
        rows = batched_nms(boxes_R4, scores_R, labels_R, iou)[:limit]
        boxes, scores = boxes_R4[rows], scores_R[rows]
        if merging.rule == "box_voting":
            boxes = _voted(boxes_R4, scores_R, labels_R, rows, merging.votes)
    kept = (scores > score_threshold).nonzero()[:limit, 0]
    rows = rows[kept]
    return Merged(boxes[kept], scores[kept], labels_R[rows], order[rows])


def _softened(
    boxes_R4: Tensor, scores_R: Tensor, labels_R: Tensor, share: Share, least: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Scores and rows in the order in which the best of what is left is taken.

    One order for all classes gives what each class alone would: no score rises, and classes do not meet.
    """
    corners_R4, labels, left_R = boxes_R4.double().numpy(), labels_R.numpy(), scores_R.double().numpy().copy()
    scores, rows = list[float](), list[int]()
    while len(rows) < min(limit, len(left_R)):
        row = int(left_R.argmax())
        if left_R[row] <= least:
            break
        scores.append(float(left_R[row]))
        rows.append(row)
        iou_R = np.where(labels == labels[row], _overlaps(corners_R4[row], corners_R4), 0.0)
        left_R *= share(iou_R)
        # Taken: below every score.
        left_R[row] = -1.0
    return scores_R.new_tensor(scores), labels_R.new_tensor(rows)


def _gaussian(sigma: float) -> Share:
    return lambda iou_R: np.exp(-(iou_R**2) / sigma)


def _linear(threshold: float) -> Share:
    return lambda iou_R: np.where(iou_R >= threshold, 1 - iou_R, 1.0)


def _voted(boxes_R4: Tensor, scores_R: Tensor, labels_R: Tensor, rows_K: Tensor, least: float) -> Tensor:
    """Each kept box as the mean of the boxes of its class around it, weighted by their scores; (K, 4)."""
    votes_KR = (box_iou(boxes_R4[rows_K], boxes_R4) >= least) & (labels_R[rows_K, None] == labels_R)
    # Also a box without area votes on itself.
    votes_KR[torch.arange(len(rows_K)), rows_K] = True
    weights_KR = scores_R.double() * votes_KR
    return ((weights_KR / weights_KR.sum(1, keepdim=True)) @ boxes_R4.double()).to(boxes_R4.dtype)


def _fused(
    boxes_R4: Tensor, scores_R: Tensor, labels_R: Tensor, iou: float, views: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Fused boxes (K, 4), their scores and the best row of each, best first."""
    corners_R4, weights_R, labels = boxes_R4.double().numpy(), scores_R.double().numpy(), labels_R.numpy()
    # Per fused box: the score-weighted sum of its boxes, the sum of their scores, their number, the first of them.
    fused_R4, sums_R4 = np.zeros_like(corners_R4), np.zeros_like(corners_R4)
    totals_R, counts_R, firsts_R = np.zeros_like(weights_R), np.zeros_like(weights_R), np.zeros_like(labels)
    count = 0
    for row, corners_4 in enumerate(corners_R4):
        is_same = labels[firsts_R[:count]] == labels[row]
        iou_K = np.where(is_same, _overlaps(corners_4, fused_R4[:count]), 0.0)
        place = int(iou_K.argmax()) if count and iou_K.max() > iou else count
        if place == count:
            firsts_R[place] = row
            count += 1
        sums_R4[place] += weights_R[row] * corners_4
        totals_R[place] += weights_R[row]
        counts_R[place] += 1
        fused_R4[place] = sums_R4[place] / totals_R[place]
    scores_K = totals_R[:count] / counts_R[:count] * counts_R[:count].clip(max=views) / views
    order = np.argsort(-scores_K, kind="stable")
    fused, scores, rows = (torch.from_numpy(each[:count][order]) for each in (fused_R4, scores_K, firsts_R))
    return fused.to(boxes_R4.dtype), scores.to(scores_R.dtype), rows


def _overlaps(box_4: Numbers, boxes_R4: Numbers) -> Numbers:
    """IoU of a box with others, (R,); of two boxes without area 0, not 0 / 0."""
    (x1, y1, x2, y2), (left, top, right, bottom) = box_4, boxes_R4.T
    width_R, height_R = np.minimum(right, x2) - np.maximum(left, x1), np.minimum(bottom, y2) - np.maximum(top, y1)
    shared_R = np.where((width_R > 0) & (height_R > 0), width_R * height_R, 0.0)
    union_R = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared_R
    return shared_R / np.where(union_R > 0, union_R, 1.0)


def merge_views(views: Sequence[Detected], merging: Merging, *, score_threshold: float, limit: int) -> Detected:
    """What several views of one picture show, each given in the picture's own pixels; a single one as it is.

    A mask is that of the best box behind its object.
    """
    if len(views) == 1:
        return views[0]
    boxes, scores, labels = (
        torch.cat([getattr(view, name) for view in views]) for name in ("boxes", "scores", "labels")
    )
    merged = merge(boxes, scores, labels, merging, views=len(views), score_threshold=score_threshold, limit=limit)
    masks = [view.masks for view in views if view.masks is not None]
    chosen = _chosen(masks, merged.rows) if len(masks) == len(views) else None
    return Detected(merged.boxes, merged.scores, merged.labels, chosen)


def _chosen(masks: Sequence[Tensor], rows_K: Tensor) -> Tensor:
    """The masks of these rows of all views; the views' masks are never in memory twice."""
    every = [mask_HW for masks_RHW in masks for mask_HW in masks_RHW]
    return torch.stack([every[row] for row in rows_K.tolist()]) if len(rows_K) else masks[0][:0]
