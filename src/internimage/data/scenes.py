"""Pictures composed of the sample images, with exact boxes, masks and label maps: detection and segmentation offline.

Shape legend: R items of one scene, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.data.class_folders import Split
from internimage.data.detection.dataset import Raw
from internimage.data.detection.masks import mask_boxes
from internimage.data.detection.rle import encode_masks
from internimage.data.samples.cutouts import cut_out
from internimage.data.samples.fashion_mnist import SAMPLE_LABELS, check_export
from internimage.data.samples.painting import Item, draw_item, paint_background, paint_item
from internimage.structures import LabelMap

BACKGROUND = len(SAMPLE_LABELS)
"""The background's value in label maps, after the ten classes."""

_MOST_ITEMS = 6
_SMALLEST_SCENE = 64
# The side of an item's sample image as a share of the scene's shorter side: 26 to 64 pixels of 128.
_SMALLEST, _LARGEST = 0.2, 0.5
# What later items leave to see of an item, at the least.
_LEAST_VISIBLE = 0.6
_TRIES = 8
_GRAIN = 0.05


class Scenes:
    """Pictures of one to six garments, shoes and bags, turned, tinted and partly hidden, on backgrounds of all kinds.

    Every scene is drawn when it is asked for, the same each time: it depends on ``seed``, ``split`` and its index
    alone. Each split has items of its own, those of `open_samples`.

    The boxes are exact: the masks hold the pixels in which an item shows, and each box is the one around them. At
    least 60 % of every item shows.

    Args:
        split: ``train``, ``val`` or ``test``.
        count: number of scenes.
        size: height and width in pixels, 64 or more; an item takes up to half of the shorter side.
        seed: another number gives other scenes.

    Attributes:
        labels: the ten classes, `SAMPLE_LABELS`.
        items: which of the sample images appear in this split.

    >>> scenes = Scenes("val", 100)
    >>> image, boxes, labels, masks = scenes.read(0)
    >>> image.size, boxes.shape[1], masks.shape[1:]
    ((128, 128), 4, (128, 128))
    """

    labels: LabelMap = SAMPLE_LABELS

    def __init__(self, split: Split, count: int, *, size: tuple[int, int] = (128, 128), seed: int = 0) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split must be train, val or test, got {split!r}")
        if count < 1:
            raise ValueError(f"count must be 1 or more, got {count}")
        if len(size) != 2 or min(size) < _SMALLEST_SCENE:
            raise ValueError(f"size must be a height and a width of {_SMALLEST_SCENE} pixels or more, got {size}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.split = split
        self.count = count
        self.size = (size[0], size[1])
        self.seed = seed
        self.cutouts = cut_out("test" if split == "test" else "train")
        numbers = np.arange(len(self.cutouts.labels))
        self.items = numbers if split == "test" else numbers[(numbers // 10 % 10 == 9) == (split == "val")]

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """As the scene's file is called when it is written, without the suffix."""
        return f"{self.split}_{index:05d}"

    def read(self, index: int) -> Raw:
        """The scene at ``index``: picture, boxes around what is visible, labels, masks of what is visible."""
        rng, items, owners_HW = self._compose(index)
        pixels_HWC = paint_background(self.size, rng)
        for item in items:
            paint_item(pixels_HWC, item)
        grain = (rng.integers(0, 256, (*self.size, 1), np.uint8) / np.float32(255) - 0.5) * _GRAIN
        image = Image.fromarray(((pixels_HWC + grain).clip(0, 1) * 255).astype(np.uint8))
        masks = owners_HW == np.arange(1, len(items) + 1, dtype=np.uint8)[:, None, None]
        return Raw(image, mask_boxes(masks), np.array([item.label for item in items], np.int64), masks)

    def label_map(self, index: int) -> NDArray[np.uint8]:
        """The class of each pixel of the scene at ``index``, (H, W): 0 to 9, and 10 for the background."""
        _, items, owners_HW = self._compose(index)
        return np.array([BACKGROUND, *(item.label for item in items)], np.uint8)[owners_HW]

    def _compose(self, index: int) -> tuple[np.random.Generator, list[Item], NDArray[np.uint8]]:
        """The items of a scene, front ones last, and of each pixel the item that it shows, from 1; 0 for none."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng((self.seed, get_args(Split).index(self.split), index))
        items, owners_HW = list[Item](), np.zeros(self.size, np.uint8)
        # How many pixels each of them may still lose; the background all.
        spare = np.array([np.inf] + [0.0] * _MOST_ITEMS)
        for chosen in rng.integers(len(self.items), size=1 + rng.binomial(_MOST_ITEMS - 1, 0.55)):
            side = rng.uniform(_SMALLEST, _LARGEST) * min(self.size)
            item = draw_item(self.cutouts, int(self.items[chosen]), side, rng)
            place = _find_place(item.mask, owners_HW, spare, rng)
            if place is not None:
                items.append(item._replace(place=place))
                owners_HW[place][item.mask] = len(items)
                spare[len(items)] = (1 - _LEAST_VISIBLE) * item.mask.sum()
        return rng, items, owners_HW


def _find_place(
    mask: NDArray[np.bool_], owners_HW: NDArray[np.uint8], spare: NDArray[np.float64], rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """A place where a new item leaves enough to see of the others, or None; takes what it hides from ``spare``."""
    (height, width), (rows, columns) = owners_HW.shape, mask.shape
    for _ in range(_TRIES):
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        place = (slice(top, top + rows), slice(left, left + columns))
        hidden = np.bincount(owners_HW[place][mask], minlength=len(spare))
        if (hidden <= spare).all():
            spare -= hidden
            return place
    return None


def export_coco(directory: Path | str, *scenes: Scenes) -> list[Path]:
    """Write scenes as PNG files with annotations in COCO's format, and return the annotation files.

    The pictures go to ``images/<split>``, boxes and masks (run lengths) to ``annotations/<split>.json``.

    Args:
        directory: a new or empty folder.
        scenes: one for each split.

    Raises:
        ValueError: ``directory`` is not empty, or two of the scenes are of one split.
        ImportError: faster-coco-eval is not installed.
    """
    root, splits = Path(directory), [each.split for each in scenes]
    if len(set(splits)) < len(splits):
        raise ValueError(f"give the scenes of each split once, got {', '.join(splits)}")
    check_export(root, {})
    return [_export(root, each) for each in scenes]


def _export(root: Path, scenes: Scenes) -> Path:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(scenes)):
        raw, name = scenes.read(index), f"{scenes.name(index)}.png"
        for entry in _entries(raw):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **entry})
        images.append({"id": index + 1, "file_name": name, "width": raw.image.width, "height": raw.image.height})
        path = root / "images" / scenes.split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw.image.save(path)
    content = {
        "info": {"description": "Scenes composed of Fashion-MNIST images (Zalando SE, MIT licence)"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(scenes.labels, 1)],
    }
    path = root / "annotations" / f"{scenes.split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _entries(raw: Raw) -> Iterator[dict[str, Any]]:
    """What COCO's format says of each object."""
    assert raw.masks is not None
    for (x1, y1, x2, y2), label, mask, code in zip(
        raw.boxes.tolist(), raw.labels.tolist(), raw.masks, encode_masks(raw.masks), strict=True
    ):
        yield {
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": code,
        }
