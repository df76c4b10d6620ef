"""Simple copy-paste: objects of one picture laid on another.

Source: arXiv:2012.07177, section 3, without the smoothed borders, which it finds to make no difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from internimage.data.detection.dataset import Raw, keep
from internimage.data.detection.masks import mask_boxes


def paste(below: Raw, above: Raw, *, max_hidden: float = 0.9) -> Raw:
    """``below`` with some of the objects of ``above`` in front of its own.

    How many and which, and where they lie when the pictures differ in size, is drawn from ``torch``'s generator.
    Partly covered objects get new boxes, around what is left of their masks.

    Args:
        max_hidden: an object of ``below`` of which a larger share is now covered is dropped.

    Raises:
        ValueError: one of the two has no masks.
    """
    if below.masks is None or above.masks is None:
        raise ValueError("copy-paste needs masks: read the pictures with them, or set copy_paste to 0")
    if not len(above.masks):
        return below
    chosen = torch.randperm(len(above.masks))[: int(torch.randint(1, len(above.masks) + 1, ()))].numpy()
    pixels_CHW, front_CHW = (np.asarray(each.image).transpose(2, 0, 1) for each in (below, above))
    offset = [_offset(*sides) for sides in zip(pixels_CHW.shape[1:], front_CHW.shape[1:], strict=True)]
    pasted_RHW = _move(above.masks[chosen], below.masks, offset)
    cover_HW = pasted_RHW.any(0)
    pixels_CHW = np.where(cover_HW, _move(front_CHW, pixels_CHW, offset), pixels_CHW)

    behind_RHW = below.masks & ~cover_HW
    left, before = (masks.sum((1, 2)) for masks in (behind_RHW, below.masks))
    boxes = np.where((left < before)[:, None], mask_boxes(behind_RHW), below.boxes)
    kept = np.concatenate(((left >= (1 - max_hidden) * before) & (left > 0), pasted_RHW.any((1, 2))))
    boxes = np.concatenate((boxes, mask_boxes(pasted_RHW)))
    labels = np.concatenate((below.labels, above.labels[chosen]))
    image = Image.fromarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)))
    return keep(Raw(image, boxes, labels, np.concatenate((behind_RHW, pasted_RHW))), kept)


def _offset(side: int, other: int) -> int:
    """Where the other picture begins: inside if it is smaller, before the border if it is larger."""
    return int(torch.randint(min(side - other, 0), max(side - other, 0) + 1, ()))


def _move(layers_XHW: NDArray[Any], like_XHW: NDArray[Any], offset: list[int]) -> NDArray[Any]:
    """The layers moved down and to the right, in the height and width of ``like_XHW``; zeros around them."""
    moved = np.zeros((len(layers_XHW), *like_XHW.shape[1:]), layers_XHW.dtype)
    (top, left), (height, width) = offset, layers_XHW.shape[1:]
    target = moved[:, max(top, 0) : top + height, max(left, 0) : left + width]
    target[:] = layers_XHW[:, max(-top, 0) :, max(-left, 0) :][:, : target.shape[1], : target.shape[2]]
    return moved
