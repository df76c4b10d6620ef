"""Regions of classes on a picture: translucent colours with thin borders, mistakes, and the legend of the colours.

Shape legend: H W the label map, of any scale of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from internimage.structures import IGNORED, Colour, LabelMap
from internimage.visualization.objects import Label, draw_label, label_size
from internimage.visualization.style import INK, PAPER, QUIET, SOFT_INK, WRONG, font_for, shorten

# The picture below the colours is grey and lighter than it is, so that a colour looks as it does in the legend.
LIGHTENED = 0.2
# Where there are no colours but those of mistakes, it is pale.
PALE = 0.6
BORDER, HATCH = 0.7, 0.55
MISTAKE = 0.85
# Borders are found on a map of twice the picture's size, up to this many pixels of the picture: they are smooth then.
SMOOTH_UP_TO = 4_000_000
# Places for names are sought on a map of at most this many rows and columns.
GRID = 240
# A row of a legend is this many texts high.
ROW = 1.75
# Names longer than this many times the text's height are shortened.
LONGEST_NAME = 13

Bools = NDArray[np.bool_]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """A line of a legend.

    Args:
        name: what the colour means.
        colour: red, green, blue; None is the hatching of what is ignored.
        value: what follows the name, such as a share.
    """

    name: str
    colour: Colour | None
    value: str = ""


def paint_regions(
    picture: Image.Image, labels: Labels, palette: Sequence[Colour], opacity: float, line: int
) -> Image.Image:
    """``picture`` with the classes' colours on it, and a white border where two of them meet.

    What is ignored keeps the picture's own colours and is hatched.

    Args:
        picture: RGB, of any scale of the original.
        labels: (H, W), indices of ``palette`` or `IGNORED`.
        palette: the classes' colours.
        opacity: of the colours, in [0, 1].
        line: width of the borders in pixels.
    """
    size = picture.size
    canvas = _hatched(picture, line) if (labels == IGNORED).any() else picture.copy()
    ground = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", size, PAPER), LIGHTENED)
    painted = Image.blend(ground, _coloured(labels, palette).resize(size, Image.Resampling.BOX), opacity)
    canvas.paste(painted, (0, 0), _cover(labels != IGNORED, size))
    canvas.paste(PAPER, (0, 0), _borders(labels, size, line))
    return canvas


def name_regions(canvas: Image.Image, labels: Labels, classes: LabelMap, palette: Sequence[Colour], text: int) -> None:
    """Write each class's name once on ``canvas``, where a region of it is wide and high enough to hold it.

    Args:
        canvas: changed in place; RGB, of any scale of the original.
        labels: (H, W), indices of ``classes`` or `IGNORED`.
        classes: the class names.
        palette: the classes' colours.
        text: size of the words in pixels.
    """
    step = max(1, math.ceil(max(canvas.size) / GRID))
    cells = (math.ceil(canvas.width / step), math.ceil(canvas.height / step))
    grid = np.asarray(Image.fromarray(labels).resize(cells, Image.Resampling.NEAREST))
    for index in np.unique(grid[grid != IGNORED]).tolist():
        words = shorten(classes[index], LONGEST_NAME * text, text)
        wide, tall = label_size(words, text)
        centre = _roomiest(grid == index, math.ceil(tall / step), math.ceil(wide / step))
        if centre is not None:
            x, y = round(centre[0] * step - wide / 2), round(centre[1] * step - tall / 2)
            draw_label(canvas, Label(index, words, (x, y, x + wide, y + tall)), hex_colour(palette[index]), text)


def _roomiest(mask: Bools, height: int, width: int) -> tuple[float, float] | None:
    """The centre (x, y) of a window that the mask fills, with most of the mask around it; None if there is none."""
    if height > mask.shape[0] or width > mask.shape[1]:
        return None
    filled = _window_sums(mask, height, width) == height * width
    if not filled.any():
        return None
    around = _window_sums(np.pad(mask, ((height, height), (width, width))), 3 * height, 3 * width)
    best = np.argwhere(filled & (around == around[filled].max()))
    # Of equals, the one in their midst.
    row, column = best[np.abs(best - best.mean(axis=0)).sum(axis=1).argmin()].tolist()
    return column + width / 2, row + height / 2


def _window_sums(mask: Bools, height: int, width: int) -> NDArray[np.int64]:
    """How much of the mask lies in each window of this size, by the window's first row and column."""
    sums = np.pad(mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]


def mark_mistakes(picture: Image.Image, labels: Labels, truth: Labels, line: int) -> Image.Image:
    """A pale ``picture``, red where ``labels`` are not the ``truth``, hatched grey where this is `IGNORED`."""
    size = picture.size
    canvas = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", size, PAPER), PALE)
    canvas.paste(WRONG, (0, 0), _cover((labels != truth) & (truth != IGNORED), size, MISTAKE))
    if (truth == IGNORED).any():
        canvas.paste(_hatched(Image.new("RGB", size, QUIET), line), (0, 0), _cover(truth == IGNORED, size))
    return canvas


def draw_legend(entries: Sequence[Entry], width: int, text: int, most_rows: int) -> Image.Image:
    """A strip of paper with the entries in columns, row by row; the last place says how many there is no room for.

    Args:
        entries: at least one.
        width: of the strip in pixels.
        text: size of the words in pixels.
        most_rows: how many rows there may be.
    """
    margin, gap = round(0.9 * text), round(1.6 * text)
    longest = max(_entry_width(entry, text) for entry in entries) + gap
    columns = min(max(1, (width - 2 * margin + gap) // longest), len(entries))
    rows = min(math.ceil(len(entries) / columns), most_rows)
    # Rows of equal length, rather than a last one with a single entry.
    columns = min(columns, math.ceil(len(entries) / rows))
    shown = list(entries)
    if len(shown) > rows * columns:
        shown = [*shown[: rows * columns - 1], Entry("", None, f"+{len(shown) - rows * columns + 1} more")]
    pitch = round(ROW * text)
    strip = Image.new("RGB", (width, rows * pitch + margin), PAPER)
    for number, entry in enumerate(shown):
        row, column = divmod(number, columns)
        room = min(longest - gap, width - 2 * margin)
        _draw_entry(
            strip, entry, (margin + column * longest, margin // 2 + row * pitch + round(1.25 * text)), text, room
        )
    return strip


def _entry_width(entry: Entry, text: int) -> int:
    name = shorten(entry.name, LONGEST_NAME * text, text)
    return sum(_steps(name, entry.value, text))


def _steps(name: str, value: str, text: int) -> tuple[int, int, int]:
    """Pixels that the chip, the name and the value take, each with what sets it off from the next."""
    space = round(0.4 * text) if value else 0
    return round(1.4 * text), _length(name, text) + space, _length(value, text) if value else 0


def _length(words: str, text: int) -> int:
    return math.ceil(font_for(words, text).getlength(words))


def _draw_entry(strip: Image.Image, entry: Entry, place: tuple[int, int], text: int, room: int) -> None:
    draw, (x, baseline) = ImageDraw.Draw(strip), place
    if not entry.name:
        draw.text(place, entry.value, font=font_for(entry.value, text), fill=SOFT_INK, anchor="ls")
        return
    chip, _, value = _steps("", entry.value, text)
    side = round(0.95 * text)
    name = shorten(entry.name, min(LONGEST_NAME * text, room - chip - value), text)
    _draw_chip(strip, entry.colour, (x, baseline - side + round(0.1 * text)), side)
    draw.text((x + chip, baseline), name, font=font_for(name, text), fill=SOFT_INK, anchor="ls")
    if entry.value:
        x += sum(_steps(name, entry.value, text)[:2])
        draw.text((x, baseline), entry.value, font=font_for(entry.value, text), fill=INK, anchor="ls")


def _draw_chip(strip: Image.Image, colour: Colour | None, corner: tuple[int, int], side: int) -> None:
    chip = Image.new("RGB", (side, side), QUIET if colour is None else colour)
    strip.paste(_hatched(chip, max(1, side // 12)) if colour is None else chip, corner)
    x, y = corner
    # White and other light colours would not end on paper.
    ImageDraw.Draw(strip).rectangle((x, y, x + side - 1, y + side - 1), outline=QUIET)


def _coloured(labels: Labels, palette: Sequence[Colour]) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette([value for colour in palette for value in colour])
    return image.convert("RGB")


def _cover(mask: Bools, size: tuple[int, int], opacity: float = 1.0) -> Image.Image:
    """How much of each pixel of a picture of (width, height) the mask covers."""
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(round(255 * opacity))).resize(size, Image.Resampling.BOX)


def _borders(labels: Labels, size: tuple[int, int], line: int) -> Image.Image:
    finer = 2 if size[0] * size[1] <= SMOOTH_UP_TO else 1
    fine = Image.fromarray(labels).resize((finer * size[0], finer * size[1]), Image.Resampling.NEAREST)
    return _cover(_edges(np.asarray(fine), max(1, round(finer * line / 2))), size, BORDER)


def _edges(labels: Labels, reach: int) -> Bools:
    """(H, W): where the next pixel of another class, across or down, is at most ``reach`` pixels away.

    >>> _edges(np.array([[1, 1, 1, 5, 5]], np.uint8), 1).astype(int).tolist()
    [[0, 0, 1, 1, 0]]
    """
    edges = np.zeros(labels.shape, np.bool_)
    for here, marked in ((labels, edges), (labels.T, edges.T)):
        changes, last = here[:, 1:] != here[:, :-1], here.shape[1] - 1
        for step in range(min(reach, last)):
            marked[:, step + 1 :] |= changes[:, : last - step]
            marked[:, : last - step] |= changes[:, step:]
    return edges


def hex_colour(colour: Colour) -> str:
    """``(31, 214, 234)`` as ``#1fd6ea``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _hatched(picture: Image.Image, line: int) -> Image.Image:
    """``picture`` with white diagonals, each with a dark side: they show on every ground."""
    period = 8 * line
    across = (np.arange(picture.width)[None] + np.arange(period)[:, None]) % period
    lines = np.select([across < line, across < 2 * line], [255, 128], 0).astype(np.uint8)
    hatched = picture.copy()
    stripes = np.tile(lines, (math.ceil(picture.height / period), 1))[: picture.height]
    hatched.paste(INK, (0, 0), _cover(stripes == 128, picture.size, HATCH / 2))
    hatched.paste(PAPER, (0, 0), _cover(stripes == 255, picture.size, HATCH))
    return hatched
