"""A search: how far each design was trained, and what the best of them reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from internimage.structures import SearchedDesign
from internimage.visualization.design.ablation import draw_accuracy, finish_accuracy
from internimage.visualization.style import AMBER, BLUE, INK, LINE, QUIET, RIGHT, WRONG, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, AMBER, RIGHT, WRONG)


def search_figure(found: Sequence[SearchedDesign]) -> Figure:
    """Accuracy over epochs, and the last one of each design; the best four have colours, bands are their seeds.

    Args:
        found: designs, best first.

    Raises:
        ValueError: none.
    """
    if not found:
        raise ValueError("a search without designs has no figure")
    figure = new_figure(10.6, max(3.8, 1.6 + 0.28 * len(found)))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    longest = max(each.epochs for each in found)
    whole = [each for each in found if each.epochs == longest][: len(_COLOURS)]
    colours = {each.design: colour for each, colour in zip(whole, _COLOURS, strict=False)}
    for each in reversed(found):
        chosen = each.design in colours
        draw_accuracy(left, each.accuracy, colours.get(each.design, QUIET), "-", 1.9 if chosen else 1.2)
        left.plot(
            [each.epochs], [each.accuracy[0][-1] if each.epochs else 0.0], ".", color=colours.get(each.design, QUIET)
        )
    finish_accuracy(left, "Accuracy of the validation images while they were trained")
    for place, each in enumerate(found):
        colour, x = colours.get(each.design, QUIET), each.mean_accuracy
        if each.spread is not None:
            right.plot([x - each.spread, x + each.spread], [place, place], color=colour, linewidth=5, alpha=0.3)
        right.plot([x], [place], "o", color=colour, markersize=7)
        epochs = f"{each.epochs} epoch{'s' * (each.epochs != 1)}"
        seeds = f", {len(each.accuracy)} seeds" if len(each.accuracy) > 1 else ""
        look: dict[str, Any] = {"fontsize": 8.5, "color": INK, "va": "center"}
        right.annotate(
            epochs + seeds, (x + (each.spread or 0.0), place), xytext=(12, 0), textcoords="offset points", **look
        )
    quiet_axes(right, "Accuracy after the last epoch, by C1, C', L1, L3")
    right.set_yticks(range(len(found)), [", ".join(map(str, each.design)) for each in found])
    right.tick_params(axis="y", labelsize=9, labelcolor=INK)
    right.invert_yaxis()
    right.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f}%")
    right.grid(axis="x", color=LINE, linewidth=0.8)
    right.set_axisbelow(True)
    right.margins(x=0.25)
    return figure
