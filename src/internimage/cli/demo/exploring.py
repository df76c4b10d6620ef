"""Where a network looks in a visitor's picture: traced once, then drawn for every click."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from internimage.inference.inspection import Inspector
from internimage.structures import SamplingPoints, SamplingTrace
from internimage.visualization.looks.overlay import fitted
from internimage.visualization.looks.sampling import draw_points

# The longer side of the picture that is clicked on: no page shows it larger, and its points are drawn in no time.
_SIDE = 900

# From this share of what counts on, a block looks inside the picture.
_INSIDE = 0.9

# Beyond this ratio a whole picture would be far larger than the size that was asked for.
_LONGEST = 8


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
        picture: as it came.
        size: at which the network sees it whole, in pixels of the shorter side; None for what its task is.
        view: the part that the network sees, large enough to be clicked on.
        trace: where every block looks.
        xy: the place clicked on, in pixels of the network's input.
    """

    picture: Image.Image
    size: int | None
    view: Image.Image
    trace: SamplingTrace
    xy: tuple[float, float]

    @classmethod
    def begin(cls, inspector: Inspector, picture: Image.Image, size: int | None, most_bytes: int) -> Visit:
        """Trace a picture, and begin in its middle.

        Raises:
            ValueError: remembering it takes more than ``most_bytes``, or it is too long to be seen whole.
        """
        if size is not None and max(picture.size) > _LONGEST * min(picture.size):
            raise ValueError(f"a picture more than {_LONGEST} times as long as wide is not looked at as a whole")
        view = inspector.view(picture, size=size)
        trace = inspector.sampling(view)
        if sum(each.positions_xy.nbytes + each.modulations.nbytes for each in trace.blocks) > most_bytes:
            raise ValueError("this picture is too large for the network to be watched at; use a smaller one")
        height, width = trace.size
        return cls(picture, size, fitted(view.picture, _SIDE), trace, ((width - 1) / 2, (height - 1) / 2))

    def at(self, pixel: tuple[int, int]) -> Visit:
        """The same picture, clicked on at a pixel (x, y) of the view."""
        height, width = self.trace.size
        x, y = (
            (place + 0.5) * side / shown - 0.5
            for place, side, shown in zip(pixel, (width, height), self.view.size, strict=True)
        )
        return replace(self, xy=(min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)))

    def draw(self, choice: Choice) -> tuple[Image.Image, str]:
        """The points on the view, and a sentence about them."""
        points = self.trace.points(self.xy, choice.stage, choice.block, depth=choice.depth)
        if choice.group is not None:
            points = points.of_group(choice.group)
        return draw_points(self.view, points), _in_words(points, choice)

    def first_choice(self) -> Choice:
        """The last block that looks inside the picture; those after it may look past its edges."""
        for each in reversed(self.trace.blocks):
            if self.trace.points(self.xy, each.stage, each.block).seen() > _INSIDE:
                return Choice(each.stage, each.block)
        return Choice(self.trace.blocks[0].stage, self.trace.blocks[0].block)

    def blocks_of(self, stage: int) -> int:
        """How many blocks a stage has."""
        return max(each.block for each in self.trace.blocks if each.stage == stage)

    def groups_of(self, stage: int) -> int:
        """How many groups its blocks have."""
        return self.trace.find(stage).num_groups

    def blocks_before(self, choice: Choice) -> int:
        """How many blocks a place can be looked through, with the chosen one."""
        return sum((each.stage, each.block) <= (choice.stage, choice.block) for each in self.trace.blocks)


def _in_words(points: SamplingPoints, choice: Choice) -> str:
    """How far the points lie, in pixels of the network's input."""
    if not len(points.weights):
        return "Nothing to follow: all points of the blocks in between lie outside the picture."
    distances = np.linalg.norm(points.positions_xy - np.asarray(points.query_xy, np.float32), axis=1)
    order = np.argsort(distances)
    reached = points.weights[order].cumsum() / points.weights.sum()
    half = distances[order][np.searchsorted(reached, 0.5)]
    through = f" through {choice.depth} blocks" if choice.depth > 1 else ""
    (height, width), (x, y) = points.size, points.query_xy
    words = [
        f"{len(distances)} points{through} for place ({x:.0f}, {y:.0f}) of the network's {width} x {height} pixels.",
        f"Half of what counts lies within {half:.1f} pixels, the farthest point {distances.max():.1f} pixels away.",
    ]
    if points.seen() < 0.995:
        words.append(f"{1 - points.seen():.0%} of what counts lies outside the picture.")
    return " ".join(words)
