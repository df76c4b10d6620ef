"""How far each block looks, and how evenly its points count: over all places of an image, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.structures import BlockSampling, SamplingTrace
from internimage.visualization.looks.overlay import heat_colormap, lay_over
from internimage.visualization.page import Table
from internimage.visualization.style import AMBER, BLUE, INK, LINE, QUIET, SOFT_INK, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PANEL, MAX_COLUMNS = 2.6, 6


def reach(blocks: Sequence[BlockSampling]) -> NDArray[np.float64]:
    """Five quantiles (5, 25, 50, 75, 95%) of the distance to the sampling points, each counted by its modulation.

    Args:
        blocks: the same block at any images.

    Returns:
        (5,), in pixels of the network's input.
    """
    distances = np.concatenate([block.distances().ravel() for block in blocks]).astype(np.float64)
    weights = np.concatenate([block.modulations.ravel() for block in blocks]).astype(np.float64)
    order = np.argsort(distances, kind="stable")
    shares = np.cumsum(weights[order])
    places = np.searchsorted(shares, np.array(QUANTILES) * shares[-1])
    return distances[order][places.clip(0, len(order) - 1)]


def outside(blocks: Sequence[BlockSampling]) -> float:
    """The share of the modulation that falls on nothing, a cell or more outside the map, from 0 to 1."""
    lost = total = 0.0
    for block in blocks:
        height, width = block.shape
        x, y = (block.positions_xy[..., axis] / block.stride for axis in (0, 1))
        away = (x <= -1) | (x >= width) | (y <= -1) | (y >= height)
        lost, total = lost + float(block.modulations[away].sum()), total + float(block.modulations.sum())
    return lost / total


def reach_table(traces: Sequence[SamplingTrace]) -> Table:
    """Per block: distances in pixels, the same in cells of its map, entropy of the modulations, share outside."""
    rows: list[tuple[str, ...]] = []
    for each in _by_block(traces):
        low, _, middle, _, high = reach(each)
        entropy = float(np.mean([block.entropy().mean() for block in each]))
        cells = middle / each[0].stride
        rows.append(
            (
                _name(each[0]),
                f"{middle:.1f}",
                f"{low:.1f}",
                f"{high:.1f}",
                f"{cells:.2f}",
                f"{entropy:.2f}",
                f"{100 * outside(each):.1f}%",
            )
        )
    header = ("block", "median, px", "5%", "95%", "median, cells", "entropy", "outside")
    caption = (
        "Distances from a place to its sampling points, each counted by its modulation, in pixels of the network's "
        "input. A regular 3 x 3 window has a median of 1 cell. Entropy: 1 where all points count alike, 0 where one "
        "counts alone. Outside: the share that falls on nothing."
    )
    return Table("How far each block looks", caption, header, rows)


def reach_figure(traces: Sequence[SamplingTrace]) -> Figure:
    """How far each block looks: the middle half and 90% of all distances, beside a regular 3 x 3 window's reach.

    Args:
        traces: of one network, at one image or several.

    Raises:
        ValueError: no traces.
    """
    groups = _by_block(traces)
    figure = new_figure(8.4, 1.1 + 0.3 * len(groups))
    axes = figure.subplots()
    for row, each in enumerate(groups):
        low, quarter, middle, three, high = reach(each)
        axes.plot((low, high), (row, row), color=QUIET, linewidth=2, solid_capstyle="round", zorder=1)
        axes.plot((quarter, three), (row, row), color=BLUE, linewidth=7, solid_capstyle="butt", zorder=2)
        axes.plot(middle, row, "o", color="white", markeredgecolor=INK, markersize=5, zorder=3)
        # Eight of nine points of a regular window lie 1 or 1.41 cells away.
        axes.plot(each[0].stride * np.sqrt(2), row, "|", color=AMBER, markersize=14, markeredgewidth=2, zorder=4)
    axes.set_yticks(range(len(groups)), [_name(each[0]) for each in groups])
    axes.invert_yaxis()
    quiet_axes(axes, "How far each block looks (box: middle half, line: 90%, circle: median)")
    axes.set_xlabel("distance in pixels of the input, by modulation; amber: the corner of a regular 3 x 3 window")
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def entropy_figure(picture: Image.Image, trace: SamplingTrace) -> Figure:
    """Where each block is choosy: dark places count all their points alike, light ones a single point most.

    Drawn is 1 minus the entropy of the modulations, averaged over the groups, from 0 to 1 in every panel.

    Args:
        picture: what the network sees, at any resolution.
        trace: of the same view.
    """
    from matplotlib.cm import ScalarMappable

    columns = min(MAX_COLUMNS, len(trace.blocks))
    rows = -(-len(trace.blocks) // columns)
    figure = new_figure(PANEL * columns + 0.6, rows * (PANEL * picture.height / picture.width + 0.4))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, block in zip(panels.flat, trace.blocks, strict=False):
        entropy_HW = block.entropy().mean(-1)
        axes.imshow(
            np.asarray(lay_over(picture, 1 - entropy_HW, stride=block.stride, size=trace.size)), interpolation="lanczos"
        )
        axes.set_title(f"{_name(block)}: entropy {entropy_HW.mean():.2f}", loc="left", fontsize=9, color=INK, pad=5)
    for axes in panels.flat:
        axes.set_axis_off()
    bar: Any = figure.colorbar(ScalarMappable(cmap=heat_colormap()), ax=panels, fraction=0.02, pad=0.01)
    bar.set_ticks([0, 1], labels=["all alike", "one alone"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, colors=SOFT_INK)
    return figure


def _by_block(traces: Sequence[SamplingTrace]) -> list[list[BlockSampling]]:
    if not traces:
        raise ValueError("there is nothing to show: give at least one image")
    return [list(blocks) for blocks in zip(*(trace.blocks for trace in traces), strict=True)]


def _name(block: BlockSampling) -> str:
    return f"{block.stage}.{block.block}"
