"""What a detector should have found, and which boxes learn what.

Shape legend: R objects or sampled boxes of an image, H W the input.
"""

# torchvision's detection parts are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.ops import box_iou, roi_align

_POSITIVES = 0.25


@dataclass(frozen=True)
class Objects:
    """The truth of one image.

    Args:
        boxes: (R, 4), x1, y1, x2, y2 in pixels of the input, each of positive area.
        labels: (R,), class indices from 0.
        masks: (R, H, W) of bool, or None.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Sampled:
    """Boxes of one image that a stage learns from.

    Args:
        boxes: (R, 4).
        labels: (R,), the background is ``num_classes``.
        objects: (R,), which object each box belongs to; of a background box, any.
        is_truth: (R,), whether the box is an object's own.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    is_truth: Tensor

    def positives(self, num_classes: int) -> Tensor:
        """Rows of the boxes that hold an object."""
        return (self.labels < num_classes).nonzero()[:, 0]


def sample(
    proposals: Tensor, truth: Objects, *, num_classes: int, iou: float, count: int = 512, add_truth: bool = True
) -> Sampled:
    """``count`` boxes of an image, a quarter of them on objects if there are so many.

    A box belongs to the object that it overlaps most, if by at least ``iou``; the others are background.

    Source: ``MaxIoUAssigner`` and ``RandomSampler`` of mmdet 2.28 with the released configurations.
    """
    boxes, num_objects = proposals, len(truth.boxes)
    is_truth = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if add_truth:
        boxes = torch.cat((truth.boxes.to(boxes.dtype), boxes))
        is_truth = torch.cat((is_truth.new_ones(num_objects), is_truth))
    if num_objects:
        matched = Matcher(iou, iou, allow_low_quality_matches=False)(box_iou(truth.boxes, boxes))
    else:
        matched = torch.full((len(boxes),), Matcher.BELOW_LOW_THRESHOLD, device=boxes.device)
    objects, is_object = matched.clamp(min=0), matched >= 0
    labels = torch.full_like(objects, num_classes)
    if num_objects:
        labels = torch.where(is_object, truth.labels[objects], labels)
    (positive,), (negative,) = BalancedPositiveNegativeSampler(count, _POSITIVES)([is_object.long()])
    rows = (positive | negative).nonzero()[:, 0]
    return Sampled(boxes[rows], labels[rows], objects[rows], is_truth[rows])


def mask_targets(truth: Objects, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """What each box's object looks like inside the box, (R, side, side), 0 or 1.

    Source: ``BitmapMasks.crop_and_resize`` of mmdet 2.28, core/mask/structures.py.
    """
    assert truth.masks is not None
    rois = torch.cat((objects[:, None].to(boxes.dtype), boxes), 1)
    cropped = roi_align(truth.masks[:, None].to(boxes.dtype), rois, side, 1.0, -1, aligned=True)
    return (cropped[:, 0] >= 0.5).to(boxes.dtype)
