"""Pictures of detection: objects on a picture, and contact sheets of predictions, alone or beside the truth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from internimage.structures import Detections
from internimage.visualization.card import (
    SheetStyle,
    arrange,
    check_sheet,
    even_columns,
    resized,
    round_corners,
    to_rgb,
)
from internimage.visualization.objects import draw_objects, is_crowded, text_size
from internimage.visualization.style import INK, PAPER, SOFT_INK, class_colour, font_for, shorten

# Pictures whose longer side is shorter are enlarged, so that labels can be read.
LEGIBLE_SIDE = 480
GAP = 10
# Between a prediction and its truth.
SEAM = 4
MAX_SHEET_COLUMNS, MAX_COMPARISON_COLUMNS = 4, 2


def draw_detections(
    image: Image.Image,
    found: Detections,
    *,
    score: float = 0.0,
    scale: float | None = None,
    show_scores: bool = True,
) -> Image.Image:
    """Objects on their picture: masks, boxes and labels, one colour per class.

    A class has the same colour in every picture. Labels lie inside the picture and don't cover each other; where they
    would hide the picture, only large objects have one, and masks of small objects are drawn without a box.

    Args:
        image: a picture of any mode.
        found: what was found in it.
        score: objects below this score are left out, in [0, 1].
        scale: how much the picture is enlarged; None takes the smallest whole factor that makes its longer side
            480 pixels, so that labels can be read.
        show_scores: whether labels end with the score in percent.

    Returns:
        An RGB picture.

    Raises:
        ValueError: if the picture is empty or not of the size that ``found`` tells, a box has no finite place, or a
            setting is out of range.

    >>> from internimage.structures import LabelMap
    >>> found = Detections(np.array([[8, 8, 56, 40]]), np.array([0.93]), np.array([0]), LabelMap(("cat",)), (48, 64))
    >>> picture = draw_detections(Image.new("L", (64, 48)), found)
    >>> picture.mode, picture.size
    ('RGB', (512, 384))
    """
    _check(image, found, "the image")
    _check_score(score)
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, got {scale}")
    factor = scale or max(1, math.ceil(LEGIBLE_SIDE / max(image.size)))
    canvas = resized(to_rgb(image), factor)
    draw_objects(canvas, found.above(score), text_size(canvas.size), show_scores=show_scores)
    return canvas


def draw_sheet(
    images: Sequence[Image.Image],
    found: Sequence[Detections],
    *,
    captions: Sequence[str] | None = None,
    score: float = 0.0,
    columns: int | None = None,
    cell: int = 520,
) -> Image.Image:
    """A contact sheet of pictures with what was found in them; below each, how many objects of which class.

    Args:
        images: at least one picture of any size and mode.
        found: what was found, one for each picture.
        captions: a line below each picture, such as a file's name; None has no such line.
        score: objects below this score are left out, in [0, 1].
        columns: number of cards in a row; None takes up to 4 and leaves few places of the last row empty.
        cell: largest width and height of a picture in pixels, at least 130; text and lines grow with it.

    Returns:
        An RGB picture.

    Raises:
        ValueError: as `draw_detections`, with the picture's number; if there is no picture, or the lengths differ.
    """
    _check_sheet(images, {"predictions": found, "captions": captions}, score, columns, cell)
    sides = [[_Side("", each.above(score), show_scores=True)] for each in found]
    return _draw_cards(images, sides, captions, columns or even_columns(len(images), MAX_SHEET_COLUMNS), cell)


def draw_comparison(
    images: Sequence[Image.Image],
    found: Sequence[Detections],
    truths: Sequence[Detections],
    *,
    captions: Sequence[str] | None = None,
    score: float = 0.0,
    columns: int | None = None,
    cell: int = 520,
) -> Image.Image:
    """A contact sheet of predictions, each beside the truth.

    Args:
        images: at least one picture of any size and mode.
        found: what was found, one for each picture.
        truths: what there is, one for each picture; their scores are not shown.
        captions: a line below each pair, such as ``5 of 6 found · 1 false``; None has no such line.
        score: predictions below this score are left out, in [0, 1].
        columns: number of pairs in a row; None takes up to 2.
        cell: largest width and height of one picture of a pair, in pixels, at least 130; text and lines grow with it.

    Returns:
        An RGB picture. Two columns are as wide as the page of a run, or twice that with the default cell.

    Raises:
        ValueError: as `draw_sheet`.
    """
    _check_sheet(images, {"predictions": found, "truths": truths, "captions": captions}, score, columns, cell)
    sides = [
        [_Side("prediction", each.above(score), show_scores=True), _Side("truth", truth, show_scores=False)]
        for each, truth in zip(found, truths, strict=True)
    ]
    return _draw_cards(images, sides, captions, columns or even_columns(len(images), MAX_COMPARISON_COLUMNS), cell)


@dataclass(frozen=True)
class _Side:
    """One picture of a card: what stands below it, and the objects on it."""

    title: str
    objects: Detections
    show_scores: bool


def _draw_cards(
    images: Sequence[Image.Image],
    sides: Sequence[Sequence[_Side]],
    captions: Sequence[str] | None,
    columns: int,
    cell: int,
) -> Image.Image:
    style = SheetStyle.of(images, cell, has_captions=captions is not None)
    lines = captions if captions is not None else [""] * len(images)
    cards = [_draw_card(*each, style) for each in zip(images, sides, lines, strict=True)]
    return arrange(cards, columns, style.px(GAP))


def _draw_card(image: Image.Image, sides: Sequence[_Side], caption: str, style: SheetStyle) -> Image.Image:
    width = len(sides) * (style.cell + style.px(SEAM)) - style.px(SEAM)
    card = Image.new("RGB", (width, style.height), PAPER)
    draw = ImageDraw.Draw(card)
    picture = style.fit(image)
    text = style.px(8.5)
    # Prediction and truth are labelled alike.
    crowded = any(is_crowded(picture.size, side.objects, text, show_scores=side.show_scores) for side in sides)
    ranks = Counter(label for side in sides for label in side.objects.labels.tolist())
    for number, side in enumerate(sides):
        left = number * (style.cell + style.px(SEAM))
        canvas = picture.copy()
        draw_objects(canvas, side.objects, text, show_scores=side.show_scores, crowded=crowded)
        style.place(card, canvas, left)
        _draw_legend(draw, left + style.px(10), side, ranks, style)
    if caption:
        style.write_caption(card, caption)
    return round_corners(card, style.px(8))


def _draw_legend(draw: ImageDraw.ImageDraw, x: int, side: _Side, ranks: Counter[int], style: SheetStyle) -> None:
    """The title, then the classes with their colours and numbers of objects, most frequent first, while there is room.

    Args:
        x: where the line begins.
        ranks: number of objects of each class in the whole card, so that prediction and truth have one order.
    """
    baseline, size, mark = style.picture_height + style.px(18), style.px(10), style.px(8)
    end = x + style.cell - style.px(20)

    def width(text: str) -> int:
        return math.ceil(font_for(text, size).getlength(text))

    def write(text: str, colour: str) -> None:
        draw.text((x, baseline), text, font=font_for(text, size), fill=colour, anchor="ls")

    if side.title:
        write(side.title, INK)
        x += width(side.title) + style.px(10)
    counts = Counter(side.objects.labels.tolist())
    labels = sorted(counts, key=lambda label: (-ranks[label], label))
    if not labels:
        write("nothing", SOFT_INK)
    for number, label in enumerate(labels):
        name = shorten(side.objects.classes[label], 9 * size, size)
        steps = (style.px(12), width(name) + style.px(3), width(str(counts[label])), style.px(10))
        more = f"+{len(labels) - number}"
        if x + sum(steps) + (width(more) if number + 1 < len(labels) else -steps[-1]) > end:
            write(more, SOFT_INK)
            return
        draw.rectangle((x, baseline - mark + 1, x + mark - 1, baseline), fill=class_colour(label))
        x += steps[0]
        write(name, SOFT_INK)
        x += steps[1]
        write(str(counts[label]), INK)
        x += steps[2] + steps[3]


def _check_sheet(
    images: Sequence[Image.Image],
    lists: dict[str, Sequence[object] | None],
    score: float,
    columns: int | None,
    cell: int,
) -> None:
    check_sheet(images, lists, columns, cell)
    _check_score(score)
    for values in lists.values():
        for number, (image, each) in enumerate(zip(images, values or (), strict=False)):
            if isinstance(each, Detections):
                _check(image, each, f"image {number}")


def _check_score(score: float) -> None:
    if not 0 <= score <= 1:
        raise ValueError(f"score must be in [0, 1], got {score}")


def _check(image: Image.Image, found: Detections, name: str) -> None:
    if 0 in image.size:
        raise ValueError(f"{name} is empty: its size is {image.width} x {image.height}")
    if (image.height, image.width) != tuple(found.size):
        told = f"{found.size[1]} x {found.size[0]}"
        raise ValueError(
            f"{name} has {image.width} x {image.height} pixels but its objects are those of one of {told}: "
            "give the picture in which they were found"
        )
    wrong = ~np.isfinite(found.boxes).all(axis=1) | (found.boxes[:, 2:] < found.boxes[:, :2]).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"box {row} of {name} is {found.boxes[row].tolist()}: give finite x1 <= x2 and y1 <= y2")
