"""Where a network looks in a visitor's picture: traced once, then drawn for every click."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from internimage.inference.inspection import Inspector
from internimage.structures import SamplingPoints, SamplingTrace
from internimage.visualization.sampling import draw_points

# Pictures are at least this wide, so that they are never shown larger than they are: clicks are measured on them.
_VIEW = 720


@dataclass(frozen=True)
class Choice:
    """Which points are asked for; numbers from 1.

    Args:
        stage: of the network.
        block: of the stage.
        group: of the block; None for all.
        depth: blocks that are looked through, back from this one.
    """

    stage: int
    block: int
    group: int | None = None
    depth: int = 1


@dataclass(frozen=True)
class Visit:
    """What is remembered of a visitor's picture.

    Args:
        view: what the network sees of it, enlarged to be clicked on.
        trace: where every block looks.
        xy: the place clicked on, in pixels of the network's input.
    """

    view: Image.Image
    trace: SamplingTrace
    xy: tuple[float, float]

    @classmethod
    def begin(cls, inspector: Inspector, picture: Image.Image, most_bytes: int) -> Visit:
        """Trace a picture, and begin in its middle; ``ValueError`` where this takes more than ``most_bytes``."""
        trace = inspector.sampling(picture)
        size = sum(each.positions_xy.nbytes + each.modulations.nbytes for each in trace.blocks)
        if size > most_bytes:
            raise ValueError("this picture is too large for the network to be watched at; use a smaller one")
        height, width = trace.size
        return cls(_enlarged(inspector.view(picture)), trace, ((width - 1) / 2, (height - 1) / 2))

    def at(self, pixel: tuple[int, int]) -> Visit:
        """The same picture, clicked on at a pixel (x, y) of the view."""
        height, width = self.trace.size
        x, y = ((place + 0.5) * side / shown - 0.5 for place, side, shown in zip(pixel, (width, height), self.view.size))
        return replace(self, xy=(min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)))

    def draw(self, choice: Choice) -> tuple[Image.Image, str]:
        """The points on the view, and a sentence about them."""
        points = self.trace.points(self.xy, choice.stage, choice.block, depth=choice.depth)
        if choice.group is not None:
            points = points.of_group(choice.group)
        return draw_points(self.view, points), _in_words(points, choice)

    def blocks_of(self, stage: int) -> int:
        """How many blocks a stage has."""
        return max(each.block for each in self.trace.blocks if each.stage == stage)

    def groups_of(self, stage: int) -> int:
        """How many groups its blocks have."""
        return self.trace.find(stage).num_groups

    def blocks_before(self, choice: Choice) -> int:
        """How many blocks a place can be looked through, with the chosen one."""
        return sum((each.stage, each.block) <= (choice.stage, choice.block) for each in self.trace.blocks)


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = max(1, -(-_VIEW // picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def _in_words(points: SamplingPoints, choice: Choice) -> str:
    """How far the points lie, in pixels of the network's input."""
    distances = np.linalg.norm(points.positions_xy - np.asarray(points.query_xy, np.float32), axis=1)
    order = np.argsort(distances)
    shares = points.weights[order].cumsum() / max(float(points.weights.sum()), 1e-12)
    half = float(distances[order][np.searchsorted(shares, 0.5).clip(0, len(order) - 1)])
    x, y = points.query_xy
    through = f" through {choice.depth} blocks" if choice.depth > 1 else ""
    return (
        f"{len(distances)} points{through} for the place ({x:.0f}, {y:.0f}) of the network's "
        f"{points.size[1]} × {points.size[0]} pixels: half of what counts lies within {half:.1f} pixels, "
        f"the farthest point {float(distances.max()):.1f} pixels away."
    )
