"""``internimage predict`` with a segmenter: the class of every pixel as label maps, a table, JSON, CSV and pictures."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internimage.cli.predict.names import CLASSES, MAPS, PICTURES, ROWS, picture_names
from internimage.data import ImageReadError, read_image
from internimage.data.segmentation.palettes import label_image
from internimage.inference.bulk.rows import map_row
from internimage.inference.segmentation import Segmenter
from internimage.structures import SegmentationMap
from internimage.visualization.segmentation import draw_segmentation, draw_sheet

_SHEET_IMAGES = 24
# Longest side of an image on the sheet: twice that of its place there.
_SHEET_SIDE = 1040
# More than this on a side is no JPEG.
_JPEG_SIDE = 65_500
# In what is printed; the files name all.
_NAMED = 6


def predict_maps(segmenter: Segmenter, paths: Sequence[Path], output: Path, *, batch_size: int) -> int:
    """Write the four files, a label map per image in ``maps/`` and a picture per image in ``pictures/``.

    Returns the exit status.

    Args:
        segmenter: names the pixels.
        paths: the images.
        output: the folder, which is there.
        batch_size: windows of an image that go through the network together.
    """
    rows: list[dict[str, Any]] = []
    shown: list[tuple[Image.Image, SegmentationMap]] = []
    bad: list[ImageReadError] = []
    names = picture_names(paths)
    for path, name, found in zip(paths, names, segmenter.stream(paths, batch_size=batch_size), strict=True):
        if isinstance(found, ImageReadError):
            bad.append(found)
            continue
        for folder in (MAPS, PICTURES):
            (output / folder).mkdir(exist_ok=True)
        label_map = (output / MAPS / name).with_suffix(".png")
        label_image(found.labels, found.palette).save(label_map)
        image = read_image(path)
        draw_segmentation(*in_small(image, found, _JPEG_SIDE)).save(output / PICTURES / name, quality=92)
        rows.append(map_row(found, f"{MAPS}/{label_map.name}"))
        shown += [in_small(image, found, _SHEET_SIDE)] if len(shown) < _SHEET_IMAGES else []
        print(f"{path}  {_in_words(found)}", flush=True)
    if rows:
        write_maps(rows, segmenter.labels.names, output)
        draw_sheet(*zip(*shown, strict=True)).save(output / "predictions.png")
    print(f"\n{len(rows)} of {len(paths)} images: {output}")
    for error in bad:
        print(f"internimage: {error}", file=sys.stderr)
    return 1 if bad else 0


def write_maps(rows: Sequence[dict[str, Any]], names: Sequence[str], output: Path) -> None:
    """``predictions.json`` and ``.csv`` with the share of each class; ``classes.txt`` names the values of the maps."""
    # A file's name need not be valid text; JSON reads the escape back as the same name.
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (output / ROWS).write_text(f"[\n{lines}\n]\n", encoding="utf-8", errors="backslashreplace")
    with (output / "predictions.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "share"])
        for row in rows:
            writer.writerows([row["image"], label, f"{share:.6f}"] for label, share in row["shares"].items())
    (output / CLASSES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def in_small(image: Image.Image, found: SegmentationMap, side: int) -> tuple[Image.Image, SegmentationMap]:
    """An image and its label map with at most ``side`` pixels on a side: the sheet can't hold two dozen of any size."""
    step = math.ceil(max(found.size) / side)
    if step == 1:
        return image, found
    labels_HW = np.ascontiguousarray(found.labels[::step, ::step])
    return image.reduce(step), SegmentationMap(labels_HW, found.classes, found.palette, source=found.source)


def _in_words(found: SegmentationMap) -> str:
    shares = list(found.shares().items())
    more = f", {len(shares) - _NAMED} more" if len(shares) > _NAMED else ""
    return ", ".join(f"{label} {100 * share:.1f}%" for label, share in shares[:_NAMED]) + more
