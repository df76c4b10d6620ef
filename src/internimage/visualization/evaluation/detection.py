"""The figures of a detector's evaluation.

Shape legend: T thresholds of IoU, R recalls, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.structures import Detections, LabelMap
from internimage.visualization.detection import draw_comparison
from internimage.visualization.evaluation.store import Shelf
from internimage.visualization.page import Picture
from internimage.visualization.precision_recall import precision_recall_figure

# Largest side of a picture on a sheet, in pixels; the page shows half of it.
_CELL = 520


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """Pictures, what was found in them, and what there is.

    Args:
        images: at least one.
        found: of the scores that are shown, one for each picture.
        truths: one for each picture.
        captions: a line for each picture, such as ``5 of 6 found``.
    """

    images: Sequence[Image.Image]
    found: Sequence[Detections]
    truths: Sequence[Detections]
    captions: Sequence[str]

    def sheet(self, cell: int) -> Image.Image:
        """Every picture beside its truth, each up to ``cell`` pixels wide."""
        columns = 1 if len(self.images) == 1 else 2
        return draw_comparison(self.images, self.found, self.truths, captions=self.captions, columns=columns, cell=cell)

    def put(self, shelf: Shelf, name: str) -> None:
        """Store these under ``name``."""
        shelf.put_pictures(name, self.images)
        shelf.header[f"{name}.captions"] = list(self.captions)
        for kind, each in (("found", self.found), ("truth", self.truths)):
            for number, objects in enumerate(each):
                _put_objects(shelf, f"{name}.{number}.{kind}", objects)

    @classmethod
    def take(cls, shelf: Shelf, name: str, labels: LabelMap) -> FoundObjects:
        """The inverse of `put`."""
        found, truths = (
            [_take_objects(shelf, f"{name}.{number}.{kind}", labels) for number in shelf.numbers(name)]
            for kind in ("found", "truth")
        )
        return cls(shelf.pictures(name), found, truths, shelf.header[f"{name}.captions"])


def _put_objects(shelf: Shelf, name: str, objects: Detections) -> None:
    shelf.arrays.update(
        {
            f"{name}.boxes": objects.boxes,
            f"{name}.scores": objects.scores,
            f"{name}.labels": objects.labels,
            f"{name}.size": np.array(objects.size),
        }
    )
    if objects.masks is not None:
        shelf.arrays[f"{name}.masks"] = np.packbits(objects.masks)


def _take_objects(shelf: Shelf, name: str, labels: LabelMap) -> Detections:
    boxes, scores, indices, size = (shelf.arrays[f"{name}.{each}"] for each in ("boxes", "scores", "labels", "size"))
    height, width = size.tolist()
    masks, packed = None, shelf.arrays.get(f"{name}.masks")
    if packed is not None:
        shape = (len(scores), height, width)
        masks = np.unpackbits(packed, count=len(scores) * height * width).astype(bool).reshape(shape)
    return Detections(boxes, scores, indices, labels, (height, width), masks)


@dataclass(frozen=True, eq=False)
class DetectionEvaluation:
    """What a detector found in the pictures of one split.

    Args:
        split: in words, such as ``validation``.
        labels: the K class names.
        total: how many pictures were evaluated.
        score: objects below it are not shown.
        examples: some of the pictures, evenly spaced.
        worst: the pictures with the most mistakes, or None.
        curves: precision (T, R, K) of ``box`` and ``mask``; -1 or NaN for a class without objects.
    """

    task: ClassVar[str] = "detection"
    split: str
    labels: LabelMap
    total: int
    score: float
    examples: FoundObjects
    worst: FoundObjects | None
    curves: Mapping[str, NDArray[np.float64]]

    def pictures(self, enlarge: float = 1.0) -> dict[str, Picture]:
        """Sheets of predictions beside the truth, and precision over recall, by the names of their files.

        Args:
            enlarge: of the sheets' sides.
        """
        cell, count = round(_CELL * enlarge), len(self.examples.images)
        caption = (
            f"{count} of {self.total:,} {self.split} pictures, evenly spaced; objects of a score from {self.score} on."
        )
        pictures = {"predictions": Picture("Predictions", caption, self.examples.sheet(cell))}
        if self.worst is not None:
            caption = f"Of all {self.split} pictures, those with the most objects missed or seen where there are none."
            pictures["worst"] = Picture("Worst cases", caption, self.worst.sheet(cell))
        if any(np.isfinite(each).any() for each in self.curves.values()):
            caption = "Of what is found, how much is right, over how much of what there is is found."
            figure = precision_recall_figure(self.curves, self.labels)
            pictures["precision_recall"] = Picture("Precision and recall", caption, figure)
        return pictures

    def shelve(self) -> Shelf:
        """Everything, ready for the file."""
        shelf = Shelf({"split": self.split, "labels": list(self.labels), "total": self.total, "score": self.score})
        shelf.header.update({"has_worst": self.worst is not None, "curves": list(self.curves)})
        shelf.arrays.update({f"curves.{kind}": each for kind, each in self.curves.items()})
        self.examples.put(shelf, "examples")
        if self.worst is not None:
            self.worst.put(shelf, "worst")
        return shelf

    @classmethod
    def unshelve(cls, shelf: Shelf) -> DetectionEvaluation:
        """The inverse of `shelve`."""
        header, labels = shelf.header, LabelMap(tuple(shelf.header["labels"]))
        worst = FoundObjects.take(shelf, "worst", labels) if header["has_worst"] else None
        curves = {kind: shelf.arrays[f"curves.{kind}"] for kind in header["curves"]}
        examples = FoundObjects.take(shelf, "examples", labels)
        return cls(header["split"], labels, header["total"], header["score"], examples, worst, curves)
