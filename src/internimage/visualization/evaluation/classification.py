"""The figures of a classifier's evaluation.

Shape legend: N pictures, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.structures import Classification, LabelMap
from internimage.visualization.classification import MAX_COLUMNS, confusion_matrix_figure, draw_predictions
from internimage.visualization.evaluation.store import Shelf
from internimage.visualization.page import Picture

# Pixels; the page shows a card at half of them.
_CELL = 336


@dataclass(frozen=True, eq=False)
class Guesses:
    """Pictures, and what the classifier says of them.

    Args:
        images: as the network saw them, at least one.
        probabilities: (N, C), in [0, 1].
        truth: (N,), indices of the true classes.
    """

    images: list[Image.Image]
    probabilities: NDArray[np.float32]
    truth: NDArray[np.int64]

    def sheet(self, labels: LabelMap, cell: int) -> Image.Image:
        """A contact sheet, up to six cards of ``cell`` pixels in a row."""
        results = [Classification(tuple(row), labels) for row in self.probabilities.tolist()]
        columns = min(MAX_COLUMNS, len(self.images))
        return draw_predictions(self.images, results, self.truth.tolist(), columns=columns, cell=cell)

    def put(self, shelf: Shelf, name: str) -> None:
        """Store these under ``name``."""
        shelf.put_pictures(name, self.images)
        shelf.arrays.update({f"{name}.probabilities": self.probabilities, f"{name}.truth": self.truth})

    @classmethod
    def take(cls, shelf: Shelf, name: str) -> Guesses:
        """The inverse of `put`."""
        arrays = shelf.arrays
        return cls(shelf.pictures(name), arrays[f"{name}.probabilities"], arrays[f"{name}.truth"])


@dataclass(frozen=True, eq=False)
class ClassificationEvaluation:
    """What a classifier made of the images of one split.

    Args:
        split: in words, such as ``validation``.
        labels: the C class names.
        confusion: (C, C), numbers of images; rows are true classes, columns predictions.
        examples: some of the images, evenly spaced.
        mistakes: the wrong predictions that the network was surest of, or None.
    """

    task: ClassVar[str] = "classification"
    split: str
    labels: LabelMap
    confusion: NDArray[np.int64]
    examples: Guesses
    mistakes: Guesses | None = None

    def pictures(self, enlarge: float = 1.0) -> dict[str, Picture]:
        """Sheets of predictions and the confusion matrix, by the names of their files.

        Args:
            enlarge: of the sheets' sides.
        """
        total, cell = int(self.confusion.sum()), round(_CELL * enlarge)
        count = len(self.examples.images)
        caption = f"{count} of {total:,} {self.split} images, evenly spaced: the three most probable classes each."
        pictures = {"predictions": Picture("Predictions", caption, self.examples.sheet(self.labels, cell))}
        if self.mistakes is not None:
            caption = "The mistakes that the network was surest of: hard images, or wrong labels."
            sheet = self.mistakes.sheet(self.labels, cell)
            pictures["mistakes"] = Picture("Confident mistakes", caption, sheet)
        caption = f"{total:,} {self.split} images; rows are the true classes, columns the predictions."
        figure = confusion_matrix_figure(self.confusion, self.labels)
        pictures["confusion_matrix"] = Picture("Confusion matrix", caption, figure)
        return pictures

    def shelve(self) -> Shelf:
        """Everything, ready for the file."""
        has_mistakes = self.mistakes is not None
        shelf = Shelf({"split": self.split, "labels": list(self.labels), "has_mistakes": has_mistakes})
        shelf.arrays["confusion"] = self.confusion
        self.examples.put(shelf, "examples")
        if self.mistakes is not None:
            self.mistakes.put(shelf, "mistakes")
        return shelf

    @classmethod
    def unshelve(cls, shelf: Shelf) -> ClassificationEvaluation:
        """The inverse of `shelve`."""
        mistakes = Guesses.take(shelf, "mistakes") if shelf.header["has_mistakes"] else None
        labels, examples = LabelMap(tuple(shelf.header["labels"])), Guesses.take(shelf, "examples")
        return cls(shelf.header["split"], labels, shelf.arrays["confusion"], examples, mistakes)
