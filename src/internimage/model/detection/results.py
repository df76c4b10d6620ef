"""What was found in a picture, and masks pasted into it.

Shape legend: R detections, H W the original picture, S side of a predicted mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Detected:
    """What a detector found in one picture, best first.

    Args:
        boxes: (R, 4), x1, y1, x2, y2 in pixels of the original picture.
        scores: (R,), in (0, 1).
        labels: (R,), class indices from 0.
        masks: (R, H, W) of bool at the original size, or None.
        mask_probabilities: (R, S, S) of each object's class inside its box, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    mask_probabilities: Tensor | None = None


def paste_masks(probabilities_RSS: Tensor, boxes_R4: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Masks of boxes as masks of the picture, (R, H, W) of bool.

    Every pixel's centre is looked up in its box's mask, bilinear, zero outside. One box at a time: all at once would
    take R*H*W floats.

    Source: ``_do_paste_mask`` of mmdet 2.28, roi_heads/mask_heads/fcn_mask_head.py.
    """
    height, width = size
    masks_RHW = torch.zeros(len(boxes_R4), height, width, dtype=torch.bool, device=boxes_R4.device)
    for mask_HW, probability_SS, box in zip(masks_RHW, probabilities_RSS, boxes_R4, strict=True):
        x1, y1, x2, y2 = (float(number) for number in box)
        left, right = max(math.floor(x1) - 1, 0), min(math.ceil(x2) + 1, width)
        top, bottom = max(math.floor(y1) - 1, 0), min(math.ceil(y2) + 1, height)
        if left >= right or top >= bottom or x1 >= x2 or y1 >= y2:
            continue
        x = (torch.arange(left, right, device=box.device) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(top, bottom, device=box.device) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        pasted = functional.grid_sample(probability_SS[None, None].float(), grid, align_corners=False)[0, 0]
        mask_HW[top:bottom, left:right] = pasted >= threshold
    return masks_RHW
