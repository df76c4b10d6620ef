"""Precision over recall of a detector as figures, and its average precision in a table.

Shape legend: T thresholds of IoU, R recalls evenly from 0 to 1, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from internimage.structures import LabelMap
from internimage.visualization.page import MISSING, Table
from internimage.visualization.style import (
    AMBER,
    BLUE,
    ELLIPSIS,
    INK,
    LINE,
    QUIET,
    RIGHT,
    SOFT_INK,
    WRONG,
    class_colour,
    darker,
    name_families,
    new_figure,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COCO_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# Beyond this many classes only the extremes are named: more curves can't be told apart.
MAX_NAMED_CLASSES = 12
EXTREMES = 3
MAX_NAME_LENGTH = 22


def precision_recall_figure(
    curves: Mapping[str, np.ndarray], labels: LabelMap, *, thresholds: Sequence[float] = COCO_THRESHOLDS
) -> Figure:
    """Precision over recall: the mean over the classes at several IoUs, and, if there are more, every class at IoU 0.5.

    Up to 12 classes each has a curve in the colour it has on pictures. Beyond that the three best and the three worst
    are named beside the mean, and the others are faint. The legends give average precisions.

    Args:
        curves: precision (T, R, K) in [0, 1] by what is compared, such as ``box`` and ``mask``: one row of panels
            each. A class without objects has -1 or NaN.
        labels: the K class names.
        thresholds: the T thresholds of IoU; 0.5 must be one of them.

    Raises:
        ValueError: if an array has another shape or values, or no class has objects.
    """
    known = _check(curves, labels, thresholds)
    # One class is its own mean.
    columns = 1 if all(_classes(precision_TRK).size == 1 for precision_TRK in known.values()) else 2
    figure = new_figure(5.3 * columns, 3.7 * len(known))
    rows = figure.subplots(len(known), columns, squeeze=False)
    for (kind, precision_TRK), row in zip(known.items(), rows, strict=True):
        count = _classes(precision_TRK).size
        _draw_means(row[0], precision_TRK, thresholds)
        _finish(row[0], f"{kind.capitalize()} AP, {f'mean of {count} classes' if count > 1 else 'one class'}")
        if columns > 1:
            _draw_classes(row[1], precision_TRK[_at(thresholds, 0.5)], labels)
            _finish(row[1], f"{kind.capitalize()} AP of classes at IoU 0.5")
    return figure


def average_precision_table(
    curves: Mapping[str, np.ndarray],
    labels: LabelMap,
    objects: Sequence[int] | np.ndarray,
    *,
    thresholds: Sequence[float] = COCO_THRESHOLDS,
) -> Table:
    """Average precision of every class over all IoUs, at 0.5 and at 0.75, and its number of objects.

    What is not defined is a dash: a class without objects, an IoU that was not measured.

    Args:
        curves: as in `precision_recall_figure`.
        labels: the K class names.
        objects: (K,), how many objects of each class there are.
        thresholds: the T thresholds of IoU.

    Raises:
        ValueError: as `precision_recall_figure`, and if there isn't one number of objects per class.

    >>> perfect = np.ones((10, 101, 1))
    >>> average_precision_table({"box": perfect}, LabelMap(("cat",)), [7]).rows
    [('cat', '100.0%', '100.0%', '100.0%', 7)]
    """
    known = _check(curves, labels, thresholds)
    counts = np.asarray(objects)
    if counts.shape != (len(labels),):
        raise ValueError(
            f"there are {len(labels)} classes but numbers of objects of shape {counts.shape}: give one each"
        )
    names, columns = [], []
    for kind, precision_TRK in known.items():
        for name, threshold in (("AP", None), ("AP50", 0.5), ("AP75", 0.75)):
            names.append(f"{kind} {name}" if len(known) > 1 else name)
            columns.append(_average_precisions(precision_TRK, thresholds, threshold))
    rows = [
        (name, *(_percent(column[index]) for column in columns), int(counts[index]))
        for index, name in enumerate(labels)
    ]
    means = [f"{name} {_percent(_mean(column))}" for name, column in zip(names, columns, strict=True)]
    caption = f"Mean over the classes that have objects: {', '.join(means)}."
    return Table("Average precision", caption, ("class", *names, "objects"), rows)


def _check(
    curves: Mapping[str, np.ndarray], labels: LabelMap, thresholds: Sequence[float]
) -> dict[str, NDArray[np.float64]]:
    """The curves as float64, NaN for classes without objects."""
    if not curves:
        raise ValueError("there is no precision to show: give at least one array, such as that of boxes")
    _at(thresholds, 0.5)
    known: dict[str, NDArray[np.float64]] = {}
    for kind, given in curves.items():
        precision_TRK = np.array(given, np.float64)
        shape, (first, last) = precision_TRK.shape, (len(thresholds), len(labels))
        if len(shape) != 3 or (shape[0], shape[2]) != (first, last) or shape[1] < 2:
            raise ValueError(
                f"the {kind} precision has shape {shape}, but {first} thresholds and {last} classes "
                f"need ({first}, number of recalls, {last})"
            )
        precision_TRK[precision_TRK == -1] = np.nan
        if (precision_TRK < 0).any() or (precision_TRK > 1).any():
            raise ValueError(f"the {kind} precision must be in [0, 1], or -1 for a class without objects")
        if not _classes(precision_TRK).size:
            raise ValueError(f"the {kind} precision has no class with objects: evaluate at least one before drawing it")
        known[kind] = precision_TRK
    return known


def _classes(precision_TRK: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the classes that have objects."""
    return np.flatnonzero(~np.isnan(precision_TRK).any(axis=(0, 1)))


def _at(thresholds: Sequence[float], threshold: float) -> int:
    places = np.flatnonzero(np.isclose(thresholds, threshold))
    if not places.size:
        raise ValueError(f"IoU {threshold} is not among the thresholds {list(thresholds)}")
    return int(places[0])


def _average_precisions(
    precision_TRK: NDArray[np.float64], thresholds: Sequence[float], threshold: float | None
) -> NDArray[np.float64]:
    """Of each class (K,), at one threshold or over all of them."""
    if threshold is None:
        return precision_TRK.mean(axis=(0, 1))
    if not np.isclose(thresholds, threshold).any():
        return np.full(precision_TRK.shape[2], np.nan)
    return precision_TRK[_at(thresholds, threshold)].mean(axis=0)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def _percent(share: float) -> str:
    return MISSING if np.isnan(share) else f"{100 * share:.1f}%"


def _draw_means(axes: Axes, precision_TRK: NDArray[np.float64], thresholds: Sequence[float]) -> None:
    mean_TR = precision_TRK[:, :, _classes(precision_TRK)].mean(axis=2)
    measured = [each for each in (0.5, 0.75) if np.isclose(thresholds, each).any()]
    lines = [(f"IoU {each:g}", mean_TR[_at(thresholds, each)]) for each in measured]
    if len(thresholds) > 1:
        lines.append((f"IoU {min(thresholds):g} to {max(thresholds):g}", mean_TR.mean(axis=0)))
    recall = np.linspace(0, 1, mean_TR.shape[1])
    # Where curves coincide, the wider one shows on both sides.
    for (name, precision_R), colour, width in zip(lines, (BLUE, AMBER, INK), (2.8, 1.8, 1.8), strict=False):
        axes.plot(recall, precision_R, color=colour, linewidth=width, label=_entry(precision_R, name))
    _add_legend(axes, beside=False)


def _draw_classes(axes: Axes, precision_RK: NDArray[np.float64], labels: LabelMap) -> None:
    recall = np.linspace(0, 1, len(precision_RK))
    average = precision_RK.mean(axis=0)
    ranked = [int(index) for index in np.argsort(-average, kind="stable") if not np.isnan(average[index])]
    if len(ranked) <= MAX_NAMED_CLASSES:
        styles = {index: (darker(class_colour(index)), "-") for index in ranked}
    else:
        axes.plot(recall, precision_RK[:, ranked], color=QUIET, linewidth=0.5, alpha=0.4)
        mean_R = precision_RK[:, ranked].mean(axis=1)
        axes.plot(recall, mean_R, color=INK, linewidth=2.2, label=_entry(mean_R, f"mean of {len(ranked)} classes"))
        ends = [*zip(ranked[:EXTREMES], [RIGHT] * EXTREMES, ("-", "--", ":"), strict=True)]
        ends += zip(ranked[-EXTREMES:], [WRONG] * EXTREMES, (":", "--", "-"), strict=True)
        styles = {index: (colour, dashes) for index, colour, dashes in ends}
    for index, (colour, dashes) in styles.items():
        name = (
            labels[index] if len(labels[index]) <= MAX_NAME_LENGTH else labels[index][: MAX_NAME_LENGTH - 1] + ELLIPSIS
        )
        entry = _entry(precision_RK[:, index], name)
        axes.plot(recall, precision_RK[:, index], color=colour, linestyle=dashes, linewidth=1.6, label=entry)
    _add_legend(axes, beside=True)


def _entry(precision_R: NDArray[np.float64], name: str) -> str:
    return f"{_percent(float(precision_R.mean()))}  {name}"


def _add_legend(axes: Axes, *, beside: bool) -> None:
    legend = axes.legend(
        title="AP",
        alignment="left",
        frameon=False,
        labelcolor=SOFT_INK,
        prop={"family": name_families(), "size": 8.5},
        loc="center left" if beside else "best",
        bbox_to_anchor=(1.0, 0.5) if beside else None,
    )
    legend.get_title().set(color=SOFT_INK, fontsize=8.5)
    for text in legend.get_texts():
        # A dollar sign in a name is not the beginning of a formula.
        text.set_parse_math(False)


def _finish(axes: Axes, title: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    quiet_axes(axes, title)
