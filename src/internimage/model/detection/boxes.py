"""Boxes and deltas as mmdetection codes them, and its choice among overlapping boxes.

Shape legend: R boxes, C classes. Boxes are (x1, y1, x2, y2) in pixels.
"""

# torchvision's detection parts are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder as TorchvisionCoder
from torchvision.ops import batched_nms

# A delta never makes a side more than 62.5 times as long, or as short; torchvision has the first limit only.
_LARGEST_LOG = abs(math.log(16 / 1000))


class BoxCoder(TorchvisionCoder):
    """torchvision's coder with mmdetection's clamp on both sides.

    Source: ``delta2bbox`` of mmdet 2.28, core/bbox/coder/delta_xywh_bbox_coder.py.
    """

    def __init__(self, stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        x, y, width, height = (1.0 / std for std in stds)
        super().__init__((x, y, width, height))
        self.stds = stds

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (R, 4*C) on boxes (R, 4) to boxes (R, 4*C), not clipped."""
        boxes = boxes.to(rel_codes.dtype)
        deltas_RC4 = rel_codes.unflatten(1, (-1, 4)) * rel_codes.new_tensor(self.stds)
        low_R12, high_R12 = boxes[:, None, :2], boxes[:, None, 2:]
        size_R12, center_R12 = high_R12 - low_R12, (low_R12 + high_R12) * 0.5
        shift_RC2, log_RC2 = deltas_RC4[..., :2], deltas_RC4[..., 2:].clamp(-_LARGEST_LOG, _LARGEST_LOG)
        center_RC2, half_RC2 = center_R12 + shift_RC2 * size_R12, size_R12 * log_RC2.exp() * 0.5
        return torch.cat((center_RC2 - half_RC2, center_RC2 + half_RC2), -1).flatten(1)


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """(..., 4) with x in [0, width], y in [0, height]."""
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), -1)


@dataclass(frozen=True)
class Kept:
    """Which boxes of an image are detections, best first: boxes (R, 4), scores (R,), labels (R,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def suppress(boxes_RC4: Tensor, scores_RC: Tensor, *, score_threshold: float, nms_threshold: float, limit: int) -> Kept:
    """Every (box, class) above the threshold is a candidate; overlapping ones of a class leave the best.

    Source: ``multiclass_nms`` of mmdet 2.28, core/post_processing/bbox_nms.py.
    """
    rows, labels = (scores_RC > score_threshold).nonzero(as_tuple=True)
    boxes, scores = boxes_RC4[rows, labels], scores_RC[rows, labels]
    kept = batched_nms(boxes, scores, labels, nms_threshold)[:limit]
    return Kept(boxes[kept], scores[kept], labels[kept])
