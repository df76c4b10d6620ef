"""Masks of objects as arrays (R, H, W) of bool: at another size, and the boxes around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resize_masks(masks_RHW: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks at another size, each pixel taken from the one it starts in, as OpenCV's ``INTER_NEAREST`` does.

    Args:
        size: new height and width, in pixels.

    >>> resize_masks(np.array([[[True, False]]]), (1, 4)).astype(int).tolist()
    [[[1, 1, 0, 0]]]
    """
    rows, columns = (
        (np.arange(new) * (old / new)).astype(np.intp).clip(max=old - 1)
        for old, new in zip(masks_RHW.shape[1:], size, strict=True)
    )
    # In this order the larger copy is of whole rows.
    return masks_RHW.take(columns, axis=2).take(rows, axis=1)


def mask_boxes(masks_RHW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The box (x1, y1, x2, y2) around each mask, (R, 4); x2 and y2 are past the last pixel, zeros for an empty mask.

    >>> mask_boxes(np.array([[[0, 0, 0], [0, 1, 1]]], bool)).tolist()
    [[1.0, 1.0, 3.0, 2.0]]
    """
    sides: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for axis in (1, 2):
        taken = np.any(masks_RHW, axis=axis)
        sides.append((taken.argmax(1), np.where(taken.any(1), taken.shape[1] - taken[:, ::-1].argmax(1), 0)))
    (x1, x2), (y1, y2) = sides
    return np.stack((x1, y1, x2, y2), 1).astype(np.float32)
