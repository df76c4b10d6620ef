"""Objects of one picture on another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internimage.data.detection.copy_paste import paste
from internimage.data.detection.masks import mask_boxes
from support.pictures import rectangles


def test_one_object_on_another_by_hand() -> None:
    """The right half of one object is covered, another is gone, a third keeps a box that is not around its mask."""
    below = rectangles((40, 60), (0, 0, 20, 10), (12, 2, 18, 8), (40, 20, 50, 30))
    below.boxes[2] = [40.5, 20, 50, 30]
    above = rectangles((40, 60), (10, 0, 30, 12))._replace(labels=np.array([7]))
    pasted = paste(below, above)
    assert pasted.labels.tolist() == [0, 2, 7]
    assert pasted.boxes.tolist() == [[0, 0, 10, 10], [40.5, 20, 50, 30], [10, 0, 30, 12]]
    assert pasted.masks is not None
    assert pasted.masks.sum((1, 2)).tolist() == [100, 100, 240]
    pixels = np.asarray(pasted.image)
    assert (pixels[:12, 10:30] == 200).all()
    elsewhere = ~pasted.masks[2]
    np.testing.assert_array_equal(pixels[elsewhere], np.asarray(below.image)[elsewhere])


def test_how_much_may_be_hidden() -> None:
    below, above = rectangles((20, 20), (0, 0, 10, 10)), rectangles((20, 20), (0, 0, 8, 20))
    assert paste(below, above, max_hidden=0.8).boxes.tolist() == [[8, 0, 10, 10], [0, 0, 8, 20]]
    assert paste(below, above, max_hidden=0.79).boxes.tolist() == [[0, 0, 8, 20]]


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (20, 20), (100, 100)])
def test_pictures_of_different_sizes(size: tuple[int, int]) -> None:
    below = rectangles((50, 60), (30, 30, 40, 40))
    above = rectangles(size, (5, 5, 18, 15), (2, 0, 9, 4))
    boxes = set[tuple[float, ...]]()
    for _ in range(20):
        pasted = paste(below, above)
        assert pasted.image.size == (60, 50)
        assert pasted.masks is not None
        np.testing.assert_array_equal(mask_boxes(pasted.masks), pasted.boxes)
        assert (np.asarray(pasted.image)[pasted.masks.any(0)] >= 200).all()
        boxes |= {tuple(box) for box in pasted.boxes.tolist()}
    assert len(boxes) > 2


def test_every_number_of_objects_is_pasted() -> None:
    above = rectangles((20, 60), (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    chosen = [tuple(sorted(paste(rectangles((20, 60)), above).labels.tolist())) for _ in range(100)]
    assert set(chosen) == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_nothing_to_paste_or_to_paste_on() -> None:
    torch.manual_seed(0)
    empty, full = rectangles((20, 20)), rectangles((20, 20), (0, 0, 9, 9))
    assert paste(full, empty) is full
    assert paste(empty, full).boxes.tolist() == [[0, 0, 9, 9]]


def test_masks_are_needed() -> None:
    with pytest.raises(ValueError, match="copy-paste needs masks"):
        paste(rectangles((20, 20)), rectangles((20, 20), with_masks=False))
