"""Pictures of image classification: contact sheets of predictions and the confusion matrix, beside a run's curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from internimage.structures import Classification, LabelMap
from internimage.visualization.card import CardStyle, arrange, draw_card, even_columns
from internimage.visualization.curves import curves_figure
from internimage.visualization.style import (
    ELLIPSIS,
    INK,
    SOFT_INK,
    name_families,
    new_figure,
    percent,
    quiet_axes,
    quiet_colormap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "check_matrix",
    "confusion_matrix_figure",
    "curves_figure",
    "draw_prediction",
    "draw_predictions",
    "shares_figure",
    "shares_of_truth",
    "short_names",
]

MAX_COLUMNS = 6
# Smaller text would not be readable.
MIN_CELL = 96
# Six cards of 168 pixels and their gaps then fill the page's column of 1078 pixels exactly.
GAP = 10
# Beyond this many classes names and numbers would be too small to read.
MAX_NAMED_CLASSES = 30
MAX_NAME_LENGTH = 22
# Percent from which white text has more contrast than ink on the colour map.
WHITE_TEXT_ABOVE = 64


def draw_predictions(
    images: Sequence[Image.Image],
    results: Sequence[Classification],
    truth: Sequence[int] | None = None,
    *,
    columns: int | None = None,
    cell: int = 168,
) -> Image.Image:
    """A contact sheet: each picture with its three most probable classes, and whether the first is right.

    Args:
        images: at least one picture of any size and mode.
        results: what the classifier says, one per picture.
        truth: the true class of each picture as an index into its result's labels, or None where it is unknown.
        columns: number of cards in a row; None takes up to 6 and leaves few places of the last row empty.
        cell: width of a card in pixels, at least 96; text and bars grow with it.

    Returns:
        An RGB picture.

    Raises:
        ValueError: if there is no picture, the lengths differ, or an index or a probability is out of range.

    >>> labels = LabelMap(("cat", "dog"))
    >>> sheet = draw_predictions([Image.new("L", (28, 28))] * 3, [Classification((0.9, 0.1), labels)] * 3, [0, 1, 0])
    >>> sheet.mode, sheet.width == 3 * 168 + 4 * 10
    ('RGB', True)
    """
    _check_sheet(images, results, truth, columns, cell)
    return _draw_sheet(images, results, truth, columns or even_columns(len(images), MAX_COLUMNS), cell, bars=3)


def draw_prediction(image: Image.Image, result: Classification) -> Image.Image:
    """One picture as a large card with its five most probable classes; see `draw_predictions`."""
    _check_sheet([image], [result], None, 1, 336)
    return _draw_sheet([image], [result], None, 1, 336, bars=5)


def _draw_sheet(
    images: Sequence[Image.Image],
    results: Sequence[Classification],
    truth: Sequence[int] | None,
    columns: int,
    cell: int,
    bars: int,
) -> Image.Image:
    style = CardStyle(cell, min(bars, max(len(result.labels) for result in results)), graded=truth is not None)
    targets = truth if truth is not None else [None] * len(images)
    cards = [
        draw_card(image, result, target, style) for image, result, target in zip(images, results, targets, strict=True)
    ]
    return arrange(cards, columns, style.px(GAP))


def _check_sheet(
    images: Sequence[Image.Image],
    results: Sequence[Classification],
    truth: Sequence[int] | None,
    columns: int | None,
    cell: int,
) -> None:
    if not images:
        raise ValueError("there is no picture to draw: give at least one image")
    if len(images) != len(results):
        raise ValueError(f"{len(images)} images but {len(results)} results: give one result per image")
    if truth is not None and len(truth) != len(images):
        raise ValueError(f"{len(images)} images but {len(truth)} true classes: give one per image, or None")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if cell < MIN_CELL:
        raise ValueError(f"cell must be at least {MIN_CELL} pixels, got {cell}")
    for number, (image, result) in enumerate(zip(images, results, strict=True)):
        if 0 in image.size:
            raise ValueError(f"image {number} is empty: its size is {image.width} x {image.height}")
        if not result.probabilities or not all(0 <= value <= 1 for value in result.probabilities):
            raise ValueError(f"result {number} needs probabilities in [0, 1], one per class")
        if truth is not None and not 0 <= truth[number] < len(result.labels):
            raise ValueError(f"true class {truth[number]} of image {number} is not in [0, {len(result.labels)})")


def confusion_matrix_figure(matrix: np.ndarray, labels: LabelMap) -> Figure:
    """The confusion matrix in percent of each true class, readable for 2 to about 1000 classes.

    Up to 30 classes every row and column is named and every share printed (nothing where it is zero). Beyond that
    the picture shows colours only, on a square-root scale so that rare confusions remain visible.

    Args:
        matrix: (C, C) counts, rows are true classes and columns predictions; grey rows are classes without images.
        labels: the C class names.

    Raises:
        ValueError: if the matrix is not C x C, has negative or missing values, or counts no image.
    """
    counts = check_matrix(matrix, labels)
    right, total = counts.trace(), counts.sum()
    title = f"Accuracy {100 * right / total:.1f}%  ({right:,.0f} of {total:,.0f} images)"
    return shares_figure(shares_of_truth(counts), labels, title)


def shares_of_truth(counts: np.ndarray) -> np.ndarray:
    """Counts (C, C) as percent of their row, the true class; NaN in the rows of classes that don't occur."""
    totals = counts.sum(axis=1, keepdims=True)
    return 100 * np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def shares_figure(shares: np.ndarray, labels: LabelMap, title: str) -> Figure:
    """As `confusion_matrix_figure`, of percentages (C, C); NaN is grey."""
    named = len(labels) <= MAX_NAMED_CLASSES
    figure = new_figure(*(_named_matrix_size(labels) if named else (9.4, 8.4)))
    axes = figure.add_subplot(anchor="W")
    quiet_axes(axes, title)
    axes.spines["bottom"].set_visible(False)
    if named:
        _draw_named_matrix(axes, shares, labels)
    else:
        _draw_large_matrix(figure, axes, shares)
    return figure


def check_matrix(matrix: np.ndarray, labels: LabelMap, unit: str = "image") -> np.ndarray:
    """``matrix`` as float64 (C, C) counts of the C ``labels``; raises ``ValueError`` when it is anything else."""
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"a confusion matrix of {len(labels)} classes is square, but its shape is {counts.shape}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("a confusion matrix holds counts, but this one has negative or missing values")
    if not counts.sum():
        raise ValueError(f"the confusion matrix counts no {unit}: evaluate at least one before drawing it")
    return counts


def _matrix_text_size(num_classes: int) -> float:
    return float(np.interp(num_classes, [10, MAX_NAMED_CLASSES], [9.5, 6.5]))


def short_names(labels: LabelMap) -> list[str]:
    """The names as they stand at the axes of a figure: of 22 characters at most."""
    return [name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + ELLIPSIS for name in labels]


def _named_matrix_size(labels: LabelMap) -> tuple[float, float]:
    """Inches for the squares, the title (at least 5 wide) and the names (a letter is about 0.6 of its height wide)."""
    squares = min(7.8, 2.1 + 0.4 * len(labels))
    names = max(map(len, short_names(labels))) * 0.6 * _matrix_text_size(len(labels)) / 72
    return max(5.0, squares + names + 0.5), squares + 0.7 * names + 0.9


def _draw_named_matrix(axes: Axes, shares: np.ndarray, labels: LabelMap) -> None:
    count, names, text_size = len(labels), short_names(labels), _matrix_text_size(len(labels))
    axes.imshow(np.ma.masked_invalid(shares), cmap=quiet_colormap(), vmin=0, vmax=100)
    # A dollar sign in a name is not the beginning of a formula.
    text: dict[str, Any] = {"parse_math": False, "fontfamily": name_families()}
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", **text)
    axes.set_yticks(range(count), names, **text)
    axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 if count <= 15 else 0.8)
    axes.tick_params(which="both", length=0, labelsize=text_size)
    axes.set(xlabel="predicted class", ylabel="true class")
    for row, column in np.argwhere(shares > 0):
        share = float(shares[row, column])
        axes.text(
            column,
            row,
            percent(share / 100).rstrip("%"),
            ha="center",
            va="center",
            color="white" if share > WHITE_TEXT_ABOVE else INK,
            fontsize=text_size,
        )


def _draw_large_matrix(figure: Figure, axes: Axes, shares: np.ndarray) -> None:
    from matplotlib.colors import PowerNorm

    picture = axes.imshow(np.ma.masked_invalid(shares), cmap=quiet_colormap(), norm=PowerNorm(0.5, vmin=0, vmax=100))
    axes.set_xticks([])
    axes.set_yticks([])
    last = len(shares) - 1
    axes.set(
        xlabel=f"predicted class, from 0 to {last} · on the diagonal prediction and truth agree",
        ylabel=f"true class, from 0 to {last}",
    )
    bar = figure.colorbar(picture, ax=axes, shrink=0.5, aspect=28, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("percent of the true class", color=SOFT_INK, fontsize=9)
    bar.ax.tick_params(colors=SOFT_INK, labelsize=8, length=0)
    bar.outline.set_visible(False)
