"""Forms of a layer trained under equal conditions: what they reach, and how large their gradients are on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from internimage.structures import TrainedForm
from internimage.visualization.style import AMBER, BLUE, GREY, INK, LINE, RIGHT, WRONG, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lines differ in colour and in their dashes.
_LOOKS = ((BLUE, "-"), (AMBER, "-"), (RIGHT, "-"), (WRONG, "--"), (GREY, "--"), (INK, ":"))
MOST_FORMS = len(_LOOKS)
# Points of a line of gradients: each the median of its share of the steps.
_POINTS = 40


def ablation_figure(forms: Sequence[TrainedForm]) -> Figure:
    """Accuracy over epochs (mean of the seeds, the band from the worst to the best), and gradient norms over steps.

    Args:
        forms: 1 to 6.

    Raises:
        ValueError: none, or more than there are colours.
    """
    if not 1 <= len(forms) <= MOST_FORMS:
        raise ValueError(f"a figure shows 1 to {MOST_FORMS} forms, got {len(forms)}")
    figure = new_figure(10.6, 4.6)
    left, right = figure.subplots(1, 2)
    for form, (colour, dashes) in zip(forms, _LOOKS, strict=False):
        draw_accuracy(left, form.accuracy, colour, dashes)
        _draw_gradients(right, form, colour, dashes)
    finish_accuracy(left, "Accuracy of the validation images")
    quiet_axes(right, "Norm of all gradients before clipping")
    right.set_yscale("log")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("{x:g}")
    right.tick_params(which="both", labelsize=9, length=0)
    right.set_xlabel("step")
    right.grid(color=LINE, linewidth=0.8)
    handles: list[Any] = left.get_lines()
    legend = figure.legend(
        handles, [form.name for form in forms], loc="outside upper left", ncols=len(forms), frameon=False, fontsize=9.5
    )
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def draw_accuracy(
    axes: Axes, accuracy: Sequence[Sequence[float]], colour: str, dashes: str, width: float = 1.8
) -> None:
    """The mean of the seeds that got so far, over the epochs, and a band from the worst to the best of them."""
    longest = max(map(len, accuracy), default=0)
    seeds = [[each[epoch] for each in accuracy if len(each) > epoch] for epoch in range(longest)]
    epochs, mean = range(1, longest + 1), [sum(each) / len(each) for each in seeds]
    if any(len(each) > 1 for each in seeds):
        axes.fill_between(epochs, list(map(min, seeds)), list(map(max, seeds)), color=colour, alpha=0.12, linewidth=0)
    axes.plot(epochs, mean, color=colour, linestyle=dashes, linewidth=width)


def finish_accuracy(axes: Axes, title: str) -> None:
    """Title, percent, epochs as whole numbers."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    quiet_axes(axes, title)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_gradients(axes: Axes, form: TrainedForm, colour: str, dashes: str) -> None:
    norms = [each for each in form.gradient_norms if each]
    if not norms:
        return
    shortest = min(map(len, norms))
    parts = np.array_split(np.asarray([each[:shortest] for each in norms]), min(_POINTS, shortest), axis=1)
    ends = np.cumsum([part.shape[1] for part in parts])
    axes.plot(ends, [float(np.median(part)) for part in parts], color=colour, linestyle=dashes, linewidth=1.8)
