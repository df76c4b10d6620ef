"""Figures of ablations and searches: whose lines are drawn, where, and what the labels say."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("matplotlib")

from internimage.structures import SearchedDesign, TrainedForm
from internimage.visualization.design.ablation import ablation_figure
from internimage.visualization.design.search import search_figure
from internimage.visualization.style import BLUE, QUIET


def form(name: str, accuracy: tuple[tuple[float, ...], ...], norms: tuple[tuple[float, ...], ...]) -> TrainedForm:
    return TrainedForm(name, 1, 1, accuracy, norms, (1.0,) * len(accuracy), (None,) * len(accuracy))


def test_ablation() -> None:
    """The mean of the seeds that got so far, a band from worst to best, gradients as medians over all seeds."""
    first = form("DCNv3", ((0.2, 0.4), (0.4, 0.8)), ((1.0,) * 80, (3.0,) * 80))
    second = form("sigmoid", ((0.1, 0.2, 0.3), (0.3,)), ((5.0, 5.0), ()))
    figure = ablation_figure([first, second])
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.get_lines()] == [
        pytest.approx([0.3, 0.6]),
        pytest.approx([0.2, 0.2, 0.3]),
    ]
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.2, 0.8)
    ours, other = right.get_lines()
    assert list(ours.get_ydata()) == [2.0] * 40
    assert list(ours.get_xdata()) == list(range(2, 81, 2))
    assert list(other.get_ydata()) == [5.0, 5.0]
    assert right.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DCNv3", "sigmoid"]


def test_too_many_forms() -> None:
    with pytest.raises(ValueError, match="shows 1 to 6 forms, got 7"):
        ablation_figure([form(str(number), ((0.5,),), ((1.0,),)) for number in range(7)])


def test_search() -> None:
    """The finalists have colours and bars of their seeds' spread; those that were cut off are quiet."""
    best = SearchedDesign((8, 4, 1, 2), 1, 1, ((0.2, 0.4), (0.4, 0.6)), (1.0, 1.0))
    cut = SearchedDesign((8, 8, 1, 4), 1, 1, ((0.1,),), (1.0,))
    left, right = search_figure([best, cut]).axes
    colours = {line.get_color() for line in left.get_lines()}
    assert colours == {BLUE, QUIET}
    assert [label.get_text() for label in right.get_yticklabels()] == ["8, 4, 1, 2", "8, 8, 1, 4"]
    assert [text.get_text() for text in right.texts] == ["2 epochs, 2 seeds", "1 epoch"]
    bar = right.get_lines()[0]
    assert list(bar.get_xdata()) == pytest.approx([0.5 - math.sqrt(0.02), 0.5 + math.sqrt(0.02)])
    with pytest.raises(ValueError, match="without designs"):
        search_figure([])
