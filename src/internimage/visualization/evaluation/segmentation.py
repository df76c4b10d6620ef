"""The figures of a segmenter's evaluation.

Shape legend: H W picture, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.structures import Colour, LabelMap, SegmentationMap
from internimage.visualization.confusion import class_iou_figure, confusion_caption, confusion_figure
from internimage.visualization.evaluation.store import Shelf
from internimage.visualization.page import Picture
from internimage.visualization.segmentation import draw_comparison

# Largest side of a picture on a sheet, in pixels; the page shows half of it.
_CELL = 520


@dataclass(frozen=True, eq=False)
class FoundRegions:
    """Pictures, the classes found at their pixels, and the true ones.

    Args:
        images: at least one.
        found: (H, W) label maps, one for each picture.
        truths: the same; 255 is of no class.
        captions: a line for each picture.
    """

    images: Sequence[Image.Image]
    found: Sequence[NDArray[np.uint8]]
    truths: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]

    def sheet(self, labels: LabelMap, palette: tuple[Colour, ...], cell: int) -> Image.Image:
        """Every picture with truth, prediction and mistakes, each up to ``cell`` pixels wide."""
        found, truths = (
            [SegmentationMap(each, labels, palette) for each in maps] for maps in (self.found, self.truths)
        )
        return draw_comparison(self.images, found, truths, captions=self.captions, cell=cell)

    def put(self, shelf: Shelf, name: str) -> None:
        """Store these under ``name``."""
        shelf.put_pictures(name, self.images)
        shelf.header[f"{name}.captions"] = list(self.captions)
        for number, (found, truth) in enumerate(zip(self.found, self.truths, strict=True)):
            shelf.arrays.update({f"{name}.{number}.found": found, f"{name}.{number}.truth": truth})

    @classmethod
    def take(cls, shelf: Shelf, name: str) -> FoundRegions:
        """The inverse of `put`."""
        found, truths = (
            [shelf.arrays[f"{name}.{number}.{kind}"] for number in shelf.numbers(name)] for kind in ("found", "truth")
        )
        return cls(shelf.pictures(name), found, truths, shelf.header[f"{name}.captions"])


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation:
    """What a segmenter made of the pictures of one split.

    Args:
        split: in words, such as ``validation``.
        labels: the C class names.
        palette: the C colours.
        total: how many pictures were evaluated.
        confusion: (C, C), numbers of pixels; rows are true classes, columns predictions.
        examples: some of the pictures, evenly spaced.
        worst: the pictures with the most pixels wrong, or None.
    """

    task: ClassVar[str] = "segmentation"
    split: str
    labels: LabelMap
    palette: tuple[Colour, ...]
    total: int
    confusion: NDArray[np.int64]
    examples: FoundRegions
    worst: FoundRegions | None = None

    def pictures(self, enlarge: float = 1.0) -> dict[str, Picture]:
        """Sheets of predictions beside the truth, the classes' IoU and their confusions, by the names of their files.

        Args:
            enlarge: of the sheets' sides.
        """
        cell, count = round(_CELL * enlarge), len(self.examples.images)
        caption = f"{count} of {self.total:,} {self.split} pictures, evenly spaced, with the share of right pixels."
        sheet = self.examples.sheet(self.labels, self.palette, cell)
        pictures = {"predictions": Picture("Predictions", caption, sheet)}
        if self.worst is not None:
            caption = f"Of all {self.split} pictures, those with the largest share of pixels wrong."
            sheet = self.worst.sheet(self.labels, self.palette, cell)
            pictures["worst"] = Picture("Worst cases", caption, sheet)
        if self.confusion.any():
            caption = "Of what a class and its finds cover together, the share that both cover."
            figure = class_iou_figure(self.confusion, self.labels, self.palette)
            pictures["classes"] = Picture("Classes", caption, figure)
            caption = confusion_caption(self.confusion, self.labels)
            figure = confusion_figure(self.confusion, self.labels)
            pictures["confusion_matrix"] = Picture("Confusions", caption, figure)
        return pictures

    def shelve(self) -> Shelf:
        """Everything, ready for the file."""
        shelf = Shelf({"split": self.split, "labels": list(self.labels), "total": self.total})
        shelf.header.update({"palette": [list(colour) for colour in self.palette], "has_worst": self.worst is not None})
        shelf.arrays["confusion"] = self.confusion
        self.examples.put(shelf, "examples")
        if self.worst is not None:
            self.worst.put(shelf, "worst")
        return shelf

    @classmethod
    def unshelve(cls, shelf: Shelf) -> SegmentationEvaluation:
        """The inverse of `shelve`."""
        header = shelf.header
        return cls(
            split=header["split"],
            labels=LabelMap(tuple(header["labels"])),
            palette=tuple((red, green, blue) for red, green, blue in header["palette"]),
            total=header["total"],
            confusion=shelf.arrays["confusion"],
            examples=FoundRegions.take(shelf, "examples"),
            worst=FoundRegions.take(shelf, "worst") if header["has_worst"] else None,
        )
