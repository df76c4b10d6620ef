"""The candidates of a budget as points: what they compute, how long they take, what they keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot
from typing import TYPE_CHECKING, Any

from internimage.structures import DesignCost
from internimage.visualization.style import (
    AMBER,
    BLUE,
    GREY,
    INK,
    LINE,
    PAPER,
    RIGHT,
    SOFT_INK,
    WRONG,
    new_figure,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By C1, and by C': told apart without colours as well, by the lines and the legend's order.
_COLOURS = (BLUE, AMBER, RIGHT, WRONG, GREY)
_MARKS = ("o", "s", "D", "^", "v")
_POINT = 11.5
_MIB = 2**20


def design_space_figure(
    costs: Sequence[DesignCost], marked: tuple[int, int, int, int] | None = None, batch: int = 1
) -> Figure:
    """Latency (if it was measured) and kept activations over multiply-adds; the number in a point is its L1.

    Colour is C1 and form is C'; points that are not by the rules as written are hollow, and lines join what differs in
    depth alone.

    Args:
        costs: at least one; of no more than five widths and five group widths.
        marked: the four numbers of a design to point at.
        batch: images per latency.

    Raises:
        ValueError: no designs, or more widths than there are colours.
    """
    widths, group_widths = (sorted({each.numbers[place] for each in costs}) for place in (0, 1))
    if not costs or len(widths) > len(_COLOURS) or len(group_widths) > len(_MARKS):
        raise ValueError(
            f"a figure shows designs of 1 to {len(_COLOURS)} widths and group widths, "
            f"got {len(widths)} and {len(group_widths)}"
        )
    images = "one image" if batch == 1 else f"{batch} images"
    panels: list[tuple[str, Callable[[DesignCost], float]]] = []
    if all(each.latency_ms is not None for each in costs):
        panels.append((f"Latency in ms, {images}", lambda each: each.latency_ms or 0.0))
    panels.append(("Activations kept for training in MiB, one image", lambda each: each.activation_bytes / _MIB))
    figure = new_figure(5.4 * len(panels) + 0.2, 5.0)
    for axes, (title, value) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        for width, colour in zip(widths, _COLOURS, strict=False):
            for group_width, mark in zip(group_widths, _MARKS, strict=False):
                chosen = [each for each in costs if each.numbers[:2] == (width, group_width)]
                # The marked design lies above others.
                _draw(axes, [each for each in chosen if each.numbers != marked], value, (colour, mark), 3)
                _draw(axes, [each for each in chosen if each.numbers == marked], value, (colour, mark), 4)
                _join(axes, chosen, value, colour)
        quiet_axes(axes, title)
        unit = 1e9 if max(each.multiply_adds for each in costs) >= 1e9 else 1e6
        axes.xaxis.set_major_formatter(lambda x, _, unit=unit: f"{x / unit:g}")
        axes.set_xlabel(f"multiply-adds of one image, {'billions' if unit == 1e9 else 'millions'}")
        axes.grid(color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(0.1)
        places = [(each.multiply_adds, value(each)) for each in costs]
        for each, place in zip(costs, places, strict=True):
            if each.numbers == marked:
                _point_at(axes, str(marked), place, places)
    _explain(figure, widths, group_widths, any(each.note or each.is_least for each in costs))
    return figure


def _join(axes: Axes, costs: Sequence[DesignCost], value: Callable[[DesignCost], float], colour: str) -> None:
    joined = sorted((each for each in costs if not each.is_least), key=lambda each: each.numbers[2])
    x, y = [each.multiply_adds for each in joined], [value(each) for each in joined]
    axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.4, zorder=2)


def _draw(
    axes: Axes, costs: Sequence[DesignCost], value: Callable[[DesignCost], float], look: tuple[str, str], above: int
) -> None:
    colour, mark = look
    for each in costs:
        place = each.multiply_adds, value(each)
        is_hollow = bool(each.note) or each.is_least
        inside, text, edge = (PAPER, colour, colour) if is_hollow else (colour, PAPER, PAPER)
        colours: dict[str, Any] = {"markerfacecolor": inside, "markeredgecolor": edge, "markeredgewidth": 1.2}
        axes.plot([place[0]], [place[1]], linestyle="none", marker=mark, markersize=_POINT, zorder=above, **colours)
        number = str(each.numbers[2])
        axes.annotate(number, place, ha="center", va="center_baseline", fontsize=8, color=text, zorder=above + 0.5)


def _point_at(axes: Axes, text: str, place: tuple[float, float], others: Sequence[tuple[float, float]]) -> None:
    """A ring, and the text in whichever corner has the most room."""
    look: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.5}
    axes.plot(*([each] for each in place), linestyle="none", marker="o", markersize=_POINT + 8, zorder=5, **look)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    shares = [((x - left) / (right - left), (y - low) / (high - low)) for x, y in others]
    corners = [(x, y) for x in (0.14, 0.86) for y in (0.93, 0.07)]
    corner = max(corners, key=lambda each: min(hypot(each[0] - x, each[1] - y) for x, y in shares))
    axes.annotate(
        text,
        place,
        xytext=corner,
        textcoords="axes fraction",
        ha="center",
        va="center",
        fontsize=10,
        fontweight="bold",
        color=INK,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.9, "shrinkB": 10},
        zorder=1.5,
    )


def _explain(figure: Figure, widths: Sequence[int], group_widths: Sequence[int], has_notes: bool) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, mark: str, colour: str, inside: str | None = None) -> Line2D:
        look: dict[str, Any] = {"markerfacecolor": colour if inside is None else inside, "markeredgecolor": colour}
        return Line2D([], [], linestyle="none", marker=mark, markersize=9, label=label, **look)

    handles = [entry(f"C1 = {width}", "o", colour) for width, colour in zip(widths, _COLOURS, strict=False)]
    handles += [entry(f"C' = {width}", mark, SOFT_INK) for width, mark in zip(group_widths, _MARKS, strict=False)]
    if has_notes:
        handles.append(entry("not by the rules as written", "o", SOFT_INK, PAPER))
    legend = figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9, handletextpad=0.2
    )
    for text in legend.get_texts():
        text.set_color(INK)
    figure.supxlabel("The number in a point is L1; lines join designs that differ in depth alone.", x=0.02, ha="left")
    found: Any = figure
    found._supxlabel.set(color=SOFT_INK, fontsize=9)
