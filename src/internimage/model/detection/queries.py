"""The truth and the answers of detectors whose queries become boxes: center, width and height relative to a picture.

Shape legend: R objects of an image, Q queries, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from internimage.model.detection.boxes import clip_boxes
from internimage.model.detection.results import Detected
from internimage.model.detection.targets import Objects
from internimage.structures import Placement

NEEDS = "detectors of the DETR family need {}: pip install 'internimage-torch[detection,transformers]'"


class Target(TypedDict):
    """The truth of an image: labels (R,), and boxes (R, 4): center x and y, width, height, in [0, 1]."""

    class_labels: Tensor
    boxes: Tensor


def target_of(truth: Objects, unit: tuple[int, int]) -> Target:
    """Objects relative to ``unit``, a height and a width in pixels."""
    height, width = unit
    x1, y1, x2, y2 = truth.boxes.float().unbind(-1)
    boxes = torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)
    return {"class_labels": truth.labels, "boxes": boxes / boxes.new_tensor((width, height, width, height))}


def detected(
    logits_QK: Tensor, boxes_Q4: Tensor, unit: tuple[int, int], place: Placement, *, limit: int, threshold: float
) -> Detected:
    """The ``limit`` best pairs of query and class above a score, in the picture's own pixels; a query may come twice.

    Args:
        logits_QK: of each class.
        boxes_Q4: relative to ``unit``, a height and a width in pixels of the input.
        unit: see ``boxes_Q4``.
        place: how the input came from its picture.
    """
    scores_QK = logits_QK.float().sigmoid()
    scores, rows = scores_QK.flatten().topk(min(limit, scores_QK.numel()))
    x, y, width, height = boxes_Q4.float()[rows // scores_QK.shape[1]].unbind(-1)
    corners = torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), -1)
    per_x, per_y = unit[1] / place.scale_xy[0], unit[0] / place.scale_xy[1]
    boxes = clip_boxes(corners * corners.new_tensor((per_x, per_y, per_x, per_y)), *place.original_size)
    # What is no number is kept: whoever asked can see that the network gives none.
    kept = ~((scores <= threshold) | (boxes[:, 2:] <= boxes[:, :2]).any(-1))
    return Detected(boxes[kept], scores[kept], (rows % scores_QK.shape[1])[kept])


def check_positions(size: tuple[int, int], strides: Sequence[int], queries: int, option: str) -> None:
    """Raise ``ValueError`` if a batch of ``size`` (height, width) has fewer positions to propose than queries.

    Args:
        size: in pixels.
        strides: pixels between the positions of each map.
        queries: how many are wanted.
        option: of the detector, that sets it.
    """
    positions = sum(math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in strides)
    if positions < queries:
        raise ValueError(
            f"{size[0]} x {size[1]} pixels have {positions} positions for {queries} queries; take larger images, or "
            f"set {option} in the detector's options"
        )


def placed(image_NCHW: Tensor, placements: Sequence[Placement] | None, strides: Sequence[int]) -> list[Placement]:
    """The placements, or those of pictures that fill the batch.

    Raises:
        ValueError: sides that are no multiples of the backbone's last stride.
    """
    height, width = image_NCHW.shape[-2], image_NCHW.shape[-1]
    if height % strides[-1] or width % strides[-1]:
        raise ValueError(f"sides must be multiples of {strides[-1]} pixels, got {height} x {width}; pad the images")
    return list(placements or [Placement((height, width), (height, width))] * len(image_NCHW))
