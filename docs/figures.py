"""The figures of docs/explain/operator.md, computed by the operator itself: ``python docs/figures.py``.

Each is written twice, for light and for dark pages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from internimage import dcnv3
from internimage.ops.dcnv3 import DCNv3Geometry, sampling_positions_xy

IMAGES = Path(__file__).resolve().parent / "images"
# Without these, every run would write other bytes.
_SAME_BYTES: dict[Any, Any] = {"svg.hashsalt": "internimage", "svg.fonttype": "path", "font.family": "DejaVu Sans"}


@dataclass(frozen=True)
class Inks:
    """Colours that stand on one kind of page."""

    ink: str
    soft: str
    line: str
    map: str
    groups: tuple[str, str]


LIGHT = Inks("#1b2631", "#5a6876", "#c9d1da", "#e6ecf2", ("#2b6c9f", "#bf7a12"))
DARK = Inks("#e8edf2", "#a9b6c3", "#4a5564", "#2a3441", ("#6cb2e6", "#f0b040"))
SIZE, QUERY = 9, (4, 4)


def draw_bilinear(inks: Inks) -> Figure:
    """A point between four pixels, and what each of them gives to it."""
    figure, axes = _figure(inks, 1, 3.6)
    values = torch.tensor([[1.0, 3.0, 2.0, 0.0], [4.0, 8.0, 2.0, 1.0], [0.0, 6.0, 4.0, 2.0], [1.0, 0.0, 3.0, 5.0]])
    x, y = 1.7, 1.4
    # One point, whose place is told by its offset: what comes out is the value there.
    offset = torch.tensor([x, y]).reshape(1, 1, 1, 1, 1, 2)
    settings: dict[str, Any] = {"kernel_size": 1, "padding": 0, "stride": 4}
    result = float(dcnv3(values.reshape(1, 4, 4, 1, 1), offset, torch.ones(1, 1, 1, 1, 1), **settings))
    _map(axes[0], inks, 4)
    for row, column in np.ndindex(4, 4):
        share = max(0.0, 1 - abs(column - x)) * max(0.0, 1 - abs(row - y))
        number, weight = f"{float(values[row, column]):g}", f"\n· {share:.2f}" if share else ""
        if share:
            corner = (column - 0.5, row - 0.5)
            axes[0].add_patch(Rectangle(corner, 1, 1, color=inks.groups[0], alpha=0.15 + share, lw=0))
        axes[0].text(column, row, number + weight, ha="center", va="center", color=inks.ink, fontsize=10)
    axes[0].plot(x, y, "o", color=inks.groups[1], markersize=8, markeredgecolor=inks.ink)
    axes[0].set_title(f"at ({x}, {y}): {result:.2f}", color=inks.ink, fontsize=11)
    return figure


def draw_grids(inks: Inks) -> Figure:
    """Where a convolution, DCNv3 with one group, and DCNv3 with two groups read for the same output."""
    figure, axes = _figure(inks, 3, 3.2)
    generator = torch.Generator().manual_seed(3)
    drawn = 1.1 * torch.randn(1, SIZE, SIZE, 2, 9, 2, generator=generator)
    logits = torch.randn(1, SIZE, SIZE, 2, 9, generator=generator)
    modulations = logits.softmax(-1)[0, QUERY[1], QUERY[0]]
    geometry = DCNv3Geometry.make(kernel_size=3, padding=1)
    titles = ("a 3x3 convolution", "DCNv3, one group", "DCNv3, two groups")
    for axis, title, groups, factor in zip(axes, titles, (1, 1, 2), (0.0, 1.0, 1.0), strict=True):
        positions = sampling_positions_xy(factor * drawn[..., :groups, :, :], geometry)[0, QUERY[1], QUERY[0]]
        _map(axis, inks, SIZE)
        axis.set_title(title, color=inks.ink, fontsize=11)
        axis.add_patch(Rectangle((QUERY[0] - 0.5, QUERY[1] - 0.5), 1, 1, fill=False, lw=2, edgecolor=inks.ink))
        for group in range(groups):
            for (px, py), modulation in zip(positions[group].tolist(), modulations[group].tolist(), strict=True):
                radius = 0.18 if factor == 0 else 0.75 * modulation**0.5
                axis.add_patch(Circle((px, py), radius, color=inks.groups[group], alpha=0.85, lw=0))
    return figure


def draw_softmax(inks: Inks) -> Figure:
    """The same nine numbers as DCNv2's modulations (a sigmoid each) and as DCNv3's (a softmax of all)."""
    figure, axes = _figure(inks, 2, 2.6)
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0, 1.0, 0.0, 2.5, -0.5, 1.5])
    for axis, name, values in zip(axes, ("sigmoid", "softmax"), (logits.sigmoid(), logits.softmax(0)), strict=True):
        axis.bar(range(1, 10), values.numpy(), color=inks.groups[0], width=0.7)
        axis.set_ylim(0, 1)
        axis.set_xticks(range(1, 10))
        axis.tick_params(colors=inks.soft, labelsize=8, length=0)
        axis.set_title(f"{name}: their sum is {float(values.sum()):.2f}", color=inks.ink, fontsize=11)
        axis.set_facecolor("none")
        for side, spine in axis.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(inks.line)
    return figure


FIGURES: dict[str, Callable[[Inks], Figure]] = {
    "operator_bilinear": draw_bilinear,
    "operator_grids": draw_grids,
    "operator_softmax": draw_softmax,
}


def _figure(inks: Inks, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(height * columns, height), layout="constrained", facecolor="none")
    return figure, [figure.add_subplot(1, columns, column + 1) for column in range(columns)]


def _map(axes: Axes, inks: Inks, size: int) -> None:
    """Pixels of a map, without numbers at the axes."""
    axes.set_xlim(-0.6, size - 0.4)
    axes.set_ylim(size - 0.4, -0.6)
    axes.set_aspect("equal")
    axes.axis("off")
    for row, column in np.ndindex(size, size):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=inks.map, edgecolor=inks.line, lw=0.6))


def main(folder: Path = IMAGES) -> list[Path]:
    """Write all figures into ``folder``; returns the files."""
    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_SAME_BYTES):
        for name, draw in FIGURES.items():
            for suffix, inks in (("", LIGHT), ("_dark", DARK)):
                path = folder / f"{name}{suffix}.svg"
                draw(inks).savefig(path, metadata={"Date": None, "Creator": None}, transparent=True)
                written.append(path)
    return written


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
