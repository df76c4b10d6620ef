"""How accuracy falls as pictures are changed more and more, network by network: a figure and tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from internimage.structures import Robustness
from internimage.visualization.page import Table
from internimage.visualization.style import (
    AMBER,
    BLUE,
    GREY,
    INK,
    LINE,
    RIGHT,
    SOFT_INK,
    WRONG,
    name_families,
    new_figure,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 5
# Lines differ in colour and in their marks.
_LOOKS = ((BLUE, "o"), (AMBER, "s"), (RIGHT, "^"), (WRONG, "D"), (GREY, "v"))
MOST_NETWORKS = len(_LOOKS)


def robustness_figure(results: Sequence[Robustness]) -> Figure:
    """Accuracy over severity, a panel for each change; severity 0 is the picture as it is.

    Args:
        results: of one or more networks, five at most, with the same changes.

    Raises:
        ValueError: no network, too many, or other changes than the first has.
    """
    _check(results)
    changes = list(results[0].accuracy)
    columns = min(_COLUMNS, len(changes))
    rows = -(-len(changes) // columns)
    figure = new_figure(2.25 * columns + 0.4, 2.0 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = [axes for row in grid for axes in row]
    for axes, change in zip(panels, changes, strict=False):
        _draw(axes, change, results)
    for axes in panels[len(changes) :]:
        axes.set_visible(False)
    soft: dict[str, Any] = {"color": SOFT_INK, "fontsize": 9}
    figure.supxlabel("severity of the change; 0 is the picture as it is", **soft)
    figure.supylabel("accuracy", **soft)
    handles = panels[0].get_legend_handles_labels()[0]
    names = [_in_words(each) for each in results]
    legend = figure.legend(handles, names, loc="outside upper left", ncols=len(results), frameon=False, fontsize=9.5)
    for text in legend.get_texts():
        text.set(color=INK, parse_math=False, fontfamily=name_families())
    return figure


def _draw(axes: Axes, change: str, results: Sequence[Robustness]) -> None:
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    for result, (colour, mark) in zip(results, _LOOKS, strict=False):
        values = [result.clean, *result.accuracy[change]]
        axes.plot(range(len(values)), values, color=colour, marker=mark, markersize=3.5, linewidth=1.6)
        axes.lines[-1].set_label(result.name)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MultipleLocator(0.25))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    quiet_axes(axes, in_words(change))
    axes.title.set_fontsize(9.5)
    axes.tick_params(colors=SOFT_INK, labelsize=8)


def _in_words(result: Robustness) -> str:
    return f"{result.name}: {_percent(result.clean)} as they are, {_percent(result.mean_accuracy)} over all changes"


def robustness_table(results: Sequence[Robustness]) -> Table:
    """Mean over the severities, for each change and network: accuracy, and the share named as without the change.

    Arguments and errors are those of `robustness_figure`.

    >>> found = Robustness("a", 4, 0.75, {"motion_blur": (0.5, 0.25)}, {"motion_blur": (1.0, 0.5)})
    >>> robustness_table([found]).rows
    [('none', '75.0%', '100.0%'), ('motion blur', '37.5%', '75.0%'), ('mean of all changes', '37.5%', '75.0%')]
    """
    _check(results)
    rows = [("none", *(text for each in results for text in (_percent(each.clean), _percent(1))))]
    for change in results[0].accuracy:
        values = [mean(values[change]) for each in results for values in (each.accuracy, each.consistency)]
        rows.append((in_words(change), *map(_percent, values)))
    means = [value for each in results for value in (each.mean_accuracy, each.mean_consistency)]
    rows.append(("mean of all changes", *map(_percent, means)))
    header = ("change", *(f"{each.name}: {what}" for each in results for what in ("accuracy", "same class")))
    caption = f"{results[0].num_images:,} pictures; mean over the severities."
    return Table("Robustness", caption, header, rows)


def in_words(change: str) -> str:
    """A change's name as people write it."""
    return change.replace("_", " ").replace("jpeg", "JPEG").replace("gaussian", "Gaussian")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _check(results: Sequence[Robustness]) -> None:
    if not 1 <= len(results) <= MOST_NETWORKS:
        raise ValueError(f"give the results of 1 to {MOST_NETWORKS} networks, got {len(results)}")
    for each in results:
        if list(each.accuracy) != list(results[0].accuracy) or not each.accuracy:
            raise ValueError(f"{each.name} was shown other changes than {results[0].name}; measure them together")
