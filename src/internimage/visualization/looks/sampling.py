"""Pictures of where DCNv3 looks: points on the image, group by group, and followed back through the blocks.

Places are pixels of the network's input; a picture of what it sees may have any other resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from internimage.structures import SamplingPoints, SamplingTrace
from internimage.visualization.card import even_columns
from internimage.visualization.looks.overlay import faded, fitted, heat_colormap, heat_colour, lay_over
from internimage.visualization.style import INK, PAPER, SOFT_INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Longer side in pixels of a picture with points, so that they can be told apart; in a figure; and of its small panels.
SIDE, PANEL_SIDE, GROUP_SIDE = 960, 640, 320
# Radii as shares of the picture's longer side: of the point that counts most, of the least, and of the query's ring.
LARGEST, SMALLEST, RING = 0.011, 0.004, 0.016
# The largest radius is at most this share of the way to the farthest point; points keep at least this share of their
# usual size.
CROWDING, LEAST_SCALE = 0.2, 0.4
# How much darker the picture is made below the points.
FADE = 0.3
# Edges are drawn this much larger and then averaged, because Pillow does not smooth them.
SMOOTHING = 3
# The most groups that a figure shows, and how many in a row, where points are drawn larger; of more, as many evenly.
MAX_GROUPS, GROUP_COLUMNS, MIN_COLUMNS, GROUP_SCALE = 12, 6, 4, 2.0
FIGURE_WIDTH = 12.0


def draw_points(picture: Image.Image, points: SamplingPoints, *, scale: float = 1.0, side: int = SIDE) -> Image.Image:
    """Sampling points on a picture: dark small ones count little, light large ones much. The ring is the query.

    Points outside the picture are not drawn, and the lightest is the one inside that counts most.

    Args:
        picture: what the network sees, at any resolution.
        points: of the same view.
        scale: how much larger points are drawn than usual.
        side: length in pixels of the longer side of what is drawn.

    Returns:
        An RGB picture.

    Raises:
        ValueError: a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    ground = faded(fitted(picture, side), FADE)
    canvas = ground.resize((SMOOTHING * ground.width, SMOOTHING * ground.height), Image.Resampling.BILINEAR)
    inside = points.inside()
    brush, unit = ImageDraw.Draw(canvas), _unit(canvas, points, scale)
    most = float(points.weights[inside].max(initial=np.finfo(np.float32).tiny))
    for row in np.flatnonzero(inside)[np.argsort(points.weights[inside], kind="stable")]:
        share = float(points.weights[row]) / most
        place = _on(canvas, points.positions_xy[row], points.size)
        radius = unit * (SMALLEST + (LARGEST - SMALLEST) * share)
        _circle(brush, place, radius + unit * 0.0012, fill=INK)
        _circle(brush, place, radius, fill=heat_colour(share))
    place = _on(canvas, points.query_xy, points.size)
    _circle(brush, place, unit * (RING + 0.0015), outline=INK, width=round(unit * 0.0065))
    _circle(brush, place, unit * RING, outline=PAPER, width=round(unit * 0.0035))
    return canvas.resize(ground.size, Image.Resampling.LANCZOS)


def sampling_figure(
    picture: Image.Image,
    trace: SamplingTrace,
    xy: Sequence[float],
    *,
    stage: int = 3,
    block: int | None = None,
    depth: int = 3,
) -> Figure:
    """Where one block looks from one place: its points, followed back through the blocks before it, and each group's.

    Source: after the figures of sampling locations in arXiv:1703.06211 (composed over layers) and arXiv:2211.05778
    (group by group).

    Args:
        picture: what the network sees, at any resolution.
        trace: of the same view.
        xy: the place, in pixels of the network's input.
        stage: from 1.
        block: from 1; None takes the last of the stage.
        depth: through how many blocks single points are followed back.

    Raises:
        ValueError: no such block, a place outside the image, or a depth below 1.
    """
    from matplotlib.cm import ScalarMappable

    chosen = trace.find(stage, block)
    number = trace.blocks.index(chosen) + 1
    one, several = (trace.points(xy, stage, chosen.block, depth=each) for each in (1, depth))
    groups = _evenly(chosen.num_groups, MAX_GROUPS)
    # Of few groups, the panels grow no larger than these.
    columns = max(MIN_COLUMNS, even_columns(len(groups), GROUP_COLUMNS))
    rows = -(-len(groups) // columns)
    ratio = picture.height / picture.width
    heights = [FIGURE_WIDTH / 3 * ratio, *[FIGURE_WIDTH / columns * ratio] * rows]
    figure = new_figure(FIGURE_WIDTH + 0.6, sum(heights) + 0.45 + 0.3 * rows)
    parts: Any = figure.subfigures(2, 1, height_ratios=[heights[0] + 0.45, sum(heights[1:]) + 0.3 * rows])
    above, below = parts
    panels = above.subplots(1, 3)
    points, map_size = chosen.modulations.shape[-1], f"{chosen.shape[1]} x {chosen.shape[0]}"
    what = f"stage {stage}, block {chosen.block}: {_count(chosen.num_groups, 'group')} of {points}, map {map_size}"
    _show(panels[0], f"{what}{_lost(1 - one.seen())}", draw_points(picture, one, side=PANEL_SIDE))
    _show(
        panels[1],
        f"followed back through {_count(min(depth, number), 'block')}",
        draw_points(picture, several, side=PANEL_SIDE),
    )
    _show_flow(panels[2], picture, trace, xy, (stage, chosen.block, number))
    bar: Any = above.colorbar(ScalarMappable(cmap=heat_colormap()), ax=panels[2], fraction=0.03, pad=0.02)
    bar.set_ticks([0, 1], labels=["little", "most"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, colors=SOFT_INK)
    for axes, group in zip(below.subplots(rows, columns, squeeze=False).flat, groups, strict=False):
        _show(
            axes,
            f"group {group + 1}",
            draw_points(picture, one.of_group(group + 1), scale=GROUP_SCALE, side=GROUP_SIDE),
        )
    for axes in below.axes[len(groups) :]:
        axes.set_axis_off()
    return figure


def flow_figure(
    picture: Image.Image, trace: SamplingTrace, xy: Sequence[float], *, stage: int = 3, block: int | None = None
) -> Figure:
    """How far one place's sampling reaches, with all its points and all weights: back through 1, 2, 4, ... blocks.

    Args:
        picture: what the network sees, at any resolution.
        trace: of the same view.
        xy: the place, in pixels of the network's input.
        stage: from 1.
        block: from 1; None takes the last of the stage.

    Raises:
        ValueError: no such block, or a place outside the image.
    """
    chosen = trace.find(stage, block)
    before = trace.blocks.index(chosen) + 1
    depths = sorted({*(2**power for power in range(before.bit_length()) if 2**power < before), before})
    figure = new_figure(3.0 * len(depths), 3.0 * picture.height / picture.width + 0.4)
    for axes, depth in zip(figure.subplots(1, len(depths), squeeze=False)[0], depths, strict=True):
        _show_flow(axes, picture, trace, xy, (stage, chosen.block, depth))
    return figure


def _show_flow(
    axes: Axes, picture: Image.Image, trace: SamplingTrace, xy: Sequence[float], back: tuple[int, int, int]
) -> None:
    stage, block, depth = back
    weights = trace.flow(xy, stage, block, depth=depth)
    lowest = trace.blocks[trace.blocks.index(trace.find(stage, block)) - depth + 1]
    shares = weights / max(weights.max(), np.finfo(np.float64).tiny)
    image = lay_over(picture, shares, stride=lowest.stride, size=trace.size, side=PANEL_SIDE)
    _show(axes, f"all that counts, {_count(depth, 'block')} back{_lost(1 - weights.sum())}", image)


def _show(axes: Axes, title: str, image: Image.Image) -> None:
    axes.imshow(np.asarray(image), interpolation="lanczos")
    axes.set_title(title, loc="left", fontsize=9, color=INK, pad=5)
    axes.set_axis_off()


def _lost(share: float) -> str:
    return f"; {share:.0%} outside" if share > 0.005 else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _unit(canvas: Image.Image, points: SamplingPoints, scale: float) -> float:
    """What radii are shares of: the picture's longer side, or less where points lie so near that they would touch."""
    reach = np.linalg.norm(points.positions_xy - np.array(points.query_xy), axis=1).max(initial=0.0)
    near = float(reach) * canvas.width / points.size[1] * CROWDING / LARGEST
    return min(scale * max(canvas.size), max(near, LEAST_SCALE * max(canvas.size)))


def _evenly(count: int, most: int) -> list[int]:
    return [int(index) for index in np.linspace(0, count - 1, min(count, most)).round()]


def _on(canvas: Image.Image, xy: Any, size: tuple[int, int]) -> tuple[float, float]:
    """A place in the network's input on a canvas of any resolution: the middle of a pixel is its middle there."""
    return (float(xy[0]) + 0.5) * canvas.width / size[1], (float(xy[1]) + 0.5) * canvas.height / size[0]


def _circle(brush: ImageDraw.ImageDraw, place: tuple[float, float], radius: float, **style: Any) -> None:
    x, y = place
    brush.ellipse((x - radius, y - radius, x + radius, y + radius), **style)
