"""Training curves, for any task that logs a loss, an accuracy, an average precision, an IoU or a learning rate."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from internimage.visualization.style import AMBER, BLUE, GREY, LINE, RIGHT, SOFT_INK, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS_FILE = "metrics.csv"
"""Where a run keeps a row per epoch."""

LOSS, ACCURACY, PRECISION, RATE = "Loss", "Validation accuracy", "Validation AP", "Learning rate"
REGIONS = "Validation IoU and accuracy"
AVERAGE_PRECISIONS = ("val/map", "val/map50", "val/mask_map")
# Curves with more points than this are drawn faintly, with their running mean on top.
SMOOTH_ABOVE = 120
# The running mean takes this share of a curve's points.
SMOOTH_SHARE = 0.025
# Single points are marked while they can be told apart.
MARK_UP_TO = 30


def curves_figure(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss, accuracy, average precision, IoU and learning rate over a run: one panel for each that was logged.

    The horizontal axis counts finished epochs when every epoch has one row, and steps otherwise.

    Args:
        history: rows in order of time with any of the keys ``epoch`` and ``step`` (from 0), ``train/loss``,
            its parts ``train/decode`` and ``train/auxiliary``, ``val/loss``, ``val/accuracy`` and
            ``val/accuracy_top5`` (in [0, 1]), the average precisions ``val/map`` and ``val/map50`` of boxes and
            ``val/mask_map`` of masks (in [0, 1], or -1 where there are no objects), ``val/miou``,
            ``val/mean_accuracy`` and ``val/pixel_accuracy`` of regions (in [0, 1]) and ``lr``. A value that is
            missing, None, empty or NaN is left out.

    Raises:
        ValueError: if no row has any of these values.
    """
    panels = [
        (
            LOSS,
            [
                ("train/loss", "training", GREY),
                ("val/loss", "validation", BLUE),
                ("train/decode", "of the head", AMBER),
                ("train/auxiliary", "of the auxiliary head", RIGHT),
            ],
        ),
        (ACCURACY, [("val/accuracy_top5", "top 5", AMBER), ("val/accuracy", "top 1", BLUE)]),
        (
            PRECISION,
            [("val/map50", "box AP50", AMBER), ("val/map", "box AP", BLUE), ("val/mask_map", "mask AP", RIGHT)],
        ),
        (
            REGIONS,
            [
                ("val/pixel_accuracy", "pixel accuracy", RIGHT),
                ("val/mean_accuracy", "mean accuracy", AMBER),
                ("val/miou", "mean IoU", BLUE),
            ],
        ),
        (RATE, [("lr", "learning rate", BLUE)]),
    ]
    panels = [(title, lines) for title, lines in panels if any(_values(history, key)[1].size for key, *_ in lines)]
    if not panels:
        raise ValueError(
            "the history has no loss, accuracy or learning rate to draw, nor an average precision or IoU: "
            "log at least one"
        )
    figure = new_figure(3.6 * len(panels), 3.1)
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key, name, colour in lines:
            _draw_curve(axes, *_values(history, key), name, colour)
        _finish_panel(axes, title, "epoch" if _one_row_per_epoch(history) else "step")
    return figure


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``; empty if there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _values(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The horizontal and vertical values of every row that has a finite number under ``key``."""
    by_epoch = _one_row_per_epoch(history)
    points: list[tuple[float, float]] = []
    for number, row in enumerate(history):
        value = _number(row.get(key))
        # An average precision of -1 means that there was nothing to find.
        if value is None or (key in AVERAGE_PRECISIONS and value < 0):
            continue
        epoch, step = _number(row.get("epoch")), _number(row.get("step"))
        place = (None if epoch is None else epoch + 1) if by_epoch else step
        points.append((number + 1 if place is None else place, value))
    pairs = np.array(points, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _number(value: Any) -> float | None:
    """A finite number, or None for what CSV rows hold where nothing was logged."""
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _one_row_per_epoch(history: Sequence[Mapping[str, Any]]) -> bool:
    epochs = [_number(row.get("epoch")) for row in history]
    return None not in epochs and len(set(epochs)) == len(epochs)


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, name: str, colour: str) -> None:
    if not y.size:
        return
    if len(y) > SMOOTH_ABOVE:
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
        window = max(2, round(SMOOTH_SHARE * len(y)))
        kernel = np.full(window, 1 / window)
        x, y = np.convolve(x, kernel, "valid"), np.convolve(y, kernel, "valid")
        name = f"{name} (mean of {window})"
    axes.plot(x, y, color=colour, linewidth=1.8, label=name, marker="o" if len(y) <= MARK_UP_TO else "", markersize=3.5)


def _finish_panel(axes: Axes, title: str, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    places = np.unique(np.concatenate([line.get_xdata() for line in axes.lines]))
    if len(places) == 1:
        axes.set_xticks(places)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    if title in (ACCURACY, PRECISION, REGIONS):
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    elif title == RATE:
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.set_ylim(bottom=0)
    quiet_axes(axes, title)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=SOFT_INK, loc="best")
