"""Pictures with rectangles for objects, and a set of given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from internimage.data.detection.dataset import Raw
from internimage.structures import LabelMap


def rectangles(size: tuple[int, int], *boxes: tuple[int, int, int, int], with_masks: bool = True) -> Raw:
    """Random grey pixels below 100 with rectangles of 200, 201, ... on them, of the classes 0, 1, ...; size (h, w)."""
    pixels = np.random.default_rng(0).integers(0, 100, (*size, 3), np.uint8)
    masks = np.zeros((len(boxes), *size), bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        masks[number, y1:y2, x1:x2] = True
        pixels[y1:y2, x1:x2] = 200 + number
    listed = np.array(boxes, np.float32).reshape(-1, 4)
    return Raw(Image.fromarray(pixels), listed, np.arange(len(boxes)), masks if with_masks else None)


@dataclass
class Listed:
    """A source of these pictures."""

    pictures: Sequence[Raw]
    labels: LabelMap = field(default_factory=lambda: LabelMap(("a", "b", "c")))

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> Raw:
        return self.pictures[index]
