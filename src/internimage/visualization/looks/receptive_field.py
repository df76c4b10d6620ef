"""Effective receptive fields side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from internimage.structures import ReceptiveField
from internimage.visualization.card import even_columns
from internimage.visualization.looks.overlay import heat_colormap
from internimage.visualization.style import INK, PAPER, SOFT_INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL, MAX_COLUMNS = 2.9, 4
SHARES = (0.5, 0.9)
# Contributions fall off by orders of magnitude: their fourth root is shown, so that the rim can be seen.
ROOT = 0.25
# Letters of a name that fit above a panel.
LINE_LENGTH = 32


def receptive_field_figure(fields: Mapping[str, ReceptiveField]) -> Figure:
    """What of the input changes the middle of a map, one panel per network.

    Light pixels change it much; the fourth root is drawn, relative to each panel's largest value. Squares hold half
    and 90% of all change, with their sides in pixels.

    Args:
        fields: names and their receptive fields, at least one.

    Raises:
        ValueError: no fields.
    """
    if not fields:
        raise ValueError("there is nothing to show: name at least one network")
    columns = even_columns(len(fields), MAX_COLUMNS)
    rows = -(-len(fields) // columns)
    height, width = next(iter(fields.values())).values.shape
    figure = new_figure(PANEL * columns, rows * (PANEL * height / width + 0.7))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, field) in zip(panels, fields.items(), strict=False):
        _draw(axes, name, field)
    for axes in figure.axes[len(fields) :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, name: str, field: ReceptiveField) -> None:
    from matplotlib.patches import Rectangle

    height, width = field.values.shape
    axes.imshow(
        (field.values / field.values.max()) ** ROOT, cmap=heat_colormap(), vmin=0, vmax=1, interpolation="nearest"
    )
    row, column = field.center_yx
    sides = {share: field.side(share) for share in SHARES}
    for side, style in zip(sides.values(), ("-", (0, (4, 3))), strict=True):
        corner = column - side / 2, row - side / 2
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=PAPER, linewidth=1.2, linestyle=style))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(textwrap.fill(name, LINE_LENGTH), loc="left", fontsize=10, color=INK, pad=6)
    axes.set_xlabel(
        ", ".join(f"{share:.0%} within {side} px" for share, side in sides.items()),
        loc="left",
        fontsize=8,
        color=SOFT_INK,
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
