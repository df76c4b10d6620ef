"""The plot of a budget's candidates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internimage.structures import DesignCost
from internimage.visualization.design.space import design_space_figure

MIB = 2**20
COSTS = [
    DesignCost((16, 8, 1, 3), 100, 5_000_000, 2 * MIB, 3 * MIB, (4.0, 9.0, 5.0)),
    DesignCost((16, 8, 2, 2), 110, 6_000_000, 3 * MIB, 4 * MIB, (7.0, 6.0, 8.0)),
    DesignCost((24, 16, 1, 1), 120, 7_000_000, 4 * MIB, 5 * MIB, (3.0, 3.0, 3.0), note="stage 1: 2 groups of 12"),
]


def test_every_design_is_a_point_in_both_panels() -> None:
    latency, memory = design_space_figure(COSTS, (16, 8, 2, 2)).axes
    for axes, values in ((latency, [5.0, 7.0, 3.0]), (memory, [2.0, 3.0, 4.0])):
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == "None"}
        assert points == set(zip((5e6, 6e6, 7e6), values, strict=True))
        assert [text.get_text() for text in axes.texts].count("(16, 8, 2, 2)") == 1
    hollow = [line for line in memory.lines if line.get_marker() == "s"]
    assert [line.get_markerfacecolor() for line in hollow] == ["#ffffff"]


def test_without_latency_there_is_one_panel_and_without_notes_no_word_of_them() -> None:
    figure = design_space_figure([replace(each, latency_samples_ms=(), note="") for each in COSTS])
    assert len(figure.axes) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["C1 = 16", "C1 = 24", "C' = 8", "C' = 16"]


def test_what_it_can_not_show() -> None:
    with pytest.raises(ValueError, match="1 to 5 widths and group widths, got 0 and 0"):
        design_space_figure([])
    many = [replace(COSTS[0], numbers=(2 * width, 2, 1, 1)) for width in range(1, 8)]
    with pytest.raises(ValueError, match="got 7 and 1"):
        design_space_figure(many)
