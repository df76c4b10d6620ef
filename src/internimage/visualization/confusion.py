"""A segmenter's confusion of pixels: as a figure, as IoU per class in a figure, and in a table.

Shape legend: C classes; rows of a matrix are true classes, columns predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from internimage.structures import Colour, LabelMap, Measures
from internimage.visualization.classification import (
    MAX_NAMED_CLASSES,
    check_matrix,
    shares_figure,
    shares_of_truth,
    short_names,
)
from internimage.visualization.page import MISSING, Table
from internimage.visualization.style import BLUE, INK, LINE, QUIET, SOFT_INK, name_families, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In percent.
LEAST_SHARE = 0.5

Floats = NDArray[np.float64]


def _measures(confusion: np.ndarray, classes: LabelMap) -> Measures:
    """``ValueError`` for a matrix of another shape, other values or no pixel at all."""
    return Measures.of(check_matrix(confusion, classes, "pixel"))


def class_table(confusion: np.ndarray, classes: LabelMap) -> Table:
    """IoU, accuracy, precision and share of the pixels of every class, in the classes' order.

    What is not defined is a dash: everything of a class that neither occurs nor is predicted, the accuracy of one
    that doesn't occur, the precision of one that is never predicted.

    Args:
        confusion: (C, C), numbers of pixels; rows are true classes, columns predictions.
        classes: the C class names.

    Raises:
        ValueError: if the matrix is not C x C, has negative or missing values, or counts no pixel.

    >>> class_table(np.array([[3, 1], [2, 4]]), LabelMap(("sky", "road"))).rows
    [('sky', '50.0%', '75.0%', '60.0%', '40.0%'), ('road', '57.1%', '66.7%', '80.0%', '60.0%')]
    """
    measures = _measures(confusion, classes)
    columns = [map(_percent, each) for each in (measures.iou, measures.accuracy, measures.precision)]
    rows = list(zip(classes, *columns, map(_share, measures.shares), strict=True))
    means = f"IoU {_percent(measures.miou)}, accuracy {_percent(measures.mean_accuracy)}"
    right = f"{_percent(measures.pixel_accuracy)} are right"
    caption = f"Mean over the classes: {means}. Of {np.sum(confusion):,} pixels, {right}."
    return Table("Per class", caption, ("class", "IoU", "accuracy", "precision", "pixels"), rows)


def _percent(share: float) -> str:
    return MISSING if np.isnan(share) else f"{100 * share:.1f}%"


def _share(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else _percent(share)


def confusion_figure(confusion: np.ndarray, classes: LabelMap) -> Figure:
    """The confusion matrix in percent of each true class, with all names up to 30 classes.

    Of more classes it shows the 30 with the most mistaken pixels, in their order; rows are still percent of all
    pixels of the true class. Shares below half a percent are left out. `confusion_caption` says all this.

    Arguments and errors are those of `class_table`.
    """
    counts = check_matrix(confusion, classes, "pixel")
    shares, kept = shares_of_truth(counts), _most_confused(counts)
    # Among so many pixels, there is a trace of nearly everything; what is not defined stays so.
    shares[shares < LEAST_SHARE] = 0
    right, total = counts.trace(), counts.sum()
    title = f"Pixel accuracy {100 * right / total:.1f}%  (of {total:,.0f} pixels)"
    names = LabelMap(tuple(classes[index] for index in kept))
    figure = shares_figure(shares[np.ix_(kept, kept)], names, title)
    if len(kept) < len(classes):
        figure.axes[0].set_xlabel(f"predicted class, {len(kept)} of {len(classes)}")
    return figure


def confusion_caption(confusion: np.ndarray, classes: LabelMap) -> str:
    """What `confusion_figure` shows, in words."""
    shown = len(_most_confused(check_matrix(confusion, classes, "pixel")))
    text = (
        "Which classes are taken for which others, in percent of the pixels of the true class; half a percent at least."
    )
    if shown == len(classes):
        return text
    return f"{text} Of the {len(classes)} classes, those {shown} with the most mistaken pixels."


def _most_confused(counts: Floats) -> list[int]:
    """Indices of at most 30 classes, ascending: those with the most pixels missed or wrongly claimed."""
    mistaken = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    ranked = np.lexsort((np.arange(len(counts)), -counts.sum(axis=1), -mistaken))
    return sorted(ranked[:MAX_NAMED_CLASSES].tolist())


def class_iou_figure(confusion: np.ndarray, classes: LabelMap, palette: Sequence[Colour] | None = None) -> Figure:
    """The classes' IoU as bars, the best first, each with a mark at its accuracy.

    Classes that neither occur nor are predicted are left out. Of more than 30, the 15 best and the 15 worst are shown.

    Args:
        confusion: (C, C), numbers of pixels; rows are true classes, columns predictions.
        classes: the C class names.
        palette: the C colours that the classes have on pictures; None has blue bars.

    Raises:
        ValueError: as `class_table`, and if there isn't one colour per class.
    """
    from matplotlib.ticker import PercentFormatter

    if palette is not None and len(palette) != len(classes):
        raise ValueError(f"there are {len(classes)} classes but {len(palette)} colours: give one each")
    measures = _measures(confusion, classes)
    ranked = sorted(np.flatnonzero(~np.isnan(measures.iou)).tolist(), key=lambda index: (-measures.iou[index], index))
    half = MAX_NAMED_CLASSES // 2
    shown = ranked if len(ranked) <= MAX_NAMED_CLASSES else [*ranked[:half], *ranked[-half:]]
    # A free line between the best and the worst.
    places = [row + (row >= half and len(shown) < len(ranked)) for row in range(len(shown))]
    figure = new_figure(7.4, 0.95 + 0.25 * (places[-1] + 1))
    axes = figure.add_subplot()
    colours = [BLUE if palette is None else tuple(value / 255 for value in palette[index]) for index in shown]
    iou, accuracy = measures.iou[shown], measures.accuracy[shown]
    axes.barh(places, iou, height=0.68, color=colours, edgecolor=QUIET, linewidth=0.6)
    axes.scatter(accuracy, places, marker="|", s=70, color=INK, linewidths=1.6, zorder=3, label="accuracy")
    for place, value in zip(places, iou, strict=True):
        axes.text(1.09, place, _percent(value), ha="right", va="center", fontsize=8.5, color=SOFT_INK)
    text: dict[str, Any] = {"parse_math": False, "fontfamily": name_families()}
    names = short_names(classes)
    axes.set_yticks(places, [names[index] for index in shown], **text)
    axes.set(xlim=(0, 1.1), ylim=(places[-1] + 0.6, -0.6), xticks=np.arange(0, 1.01, 0.2))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    count = "one class" if len(ranked) == 1 else f"{len(ranked)} classes"
    part = f"; the {half} best and the {half} worst" if len(shown) < len(ranked) else ""
    quiet_axes(axes, f"IoU, mean of {count} {_percent(measures.miou)}{part}")
    axes.set_xlabel("bar and number: IoU · mark: accuracy")
    return figure
