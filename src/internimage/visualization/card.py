"""One card of a contact sheet: the picture above, what the classifier says of it below; and what all sheets share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from internimage.structures import Classification
from internimage.visualization.style import (
    BLUE,
    GROUND,
    INK,
    LINE,
    PAPER,
    QUIET,
    RIGHT,
    SOFT_INK,
    WRONG,
    font_for,
    percent,
    shorten,
)

# All measures below are made for pictures this many pixels wide and grow with the card.
DESIGN_WIDTH = 168
# The same where pictures have regions or objects, which need room; smaller text than a half of it would be illegible.
SHEET_WIDTH, MIN_CELL = 260, 130
# Pictures that are enlarged at least this much keep their square pixels.
SQUARE_PIXELS_FROM = 3
# Edges are drawn this much larger and then averaged, because Pillow does not smooth them.
SMOOTHING = 4


@dataclass(frozen=True)
class CardStyle:
    """What all cards of one sheet share.

    Args:
        width: width of the card and side of its square picture area, in pixels.
        bars: number of classes shown below the picture.
        graded: whether the true classes are known, which takes one more line.
    """

    width: int
    bars: int
    graded: bool

    def px(self, measure: float) -> int:
        """A measure of the design in pixels of this card, at least 1."""
        return max(1, round(measure * self.width / DESIGN_WIDTH))

    @property
    def height(self) -> int:
        """Height of the card in pixels."""
        lines = 47 + (19 if self.graded else 0) + 24 * (self.bars - 1)
        return self.width + self.px(lines)


@dataclass(frozen=True)
class SheetStyle:
    """What all cards of a sheet share whose pictures keep their shape: their place, and whether captions stand below.

    Args:
        cell: width of the place in pixels.
        picture_height: its height in pixels.
        has_captions: whether a line stands below each card's titles.
    """

    cell: int
    picture_height: int
    has_captions: bool

    @classmethod
    def of(cls, images: Sequence[Image.Image], cell: int, *, has_captions: bool) -> SheetStyle:
        """Rows are as high as the highest picture, a square at most."""
        tallest = max(image.height * cell / image.width for image in images)
        return cls(cell, max(1, min(cell, round(tallest))), has_captions)

    def px(self, measure: float) -> int:
        """A measure of the design in pixels of this sheet, at least 1."""
        return max(1, round(measure * self.cell / SHEET_WIDTH))

    @property
    def height(self) -> int:
        """Height of a card in pixels."""
        return self.picture_height + self.px(27 + (18 if self.has_captions else 0))

    def fit(self, image: Image.Image) -> Image.Image:
        """``image`` as RGB and as large as its place allows, its aspect kept."""
        picture = resized(to_rgb(image), min(self.cell / image.width, self.picture_height / image.height))
        return picture.crop((0, 0, min(picture.width, self.cell), min(picture.height, self.picture_height)))

    def place(self, card: Image.Image, picture: Image.Image, left: int) -> None:
        """Paste ``picture`` into the middle of the place that begins at ``left``."""
        card.paste(picture, (left + (self.cell - picture.width) // 2, (self.picture_height - picture.height) // 2))

    def write_caption(self, card: Image.Image, caption: str) -> None:
        """Write the line at the foot of a card, shortened to its width."""
        size = self.px(11)
        line = shorten(caption, card.width - self.px(20), size)
        place = (self.px(10), self.picture_height + self.px(36))
        ImageDraw.Draw(card).text(place, line, font=font_for(line, size), fill=INK, anchor="ls")


def check_sheet(
    images: Sequence[Image.Image], lists: Mapping[str, Sequence[object] | None], columns: int | None, cell: int
) -> None:
    """``ValueError`` for a sheet without pictures, lists that are not as long as that of the pictures, or settings."""
    if not images:
        raise ValueError("there is no picture to draw: give at least one image")
    for name, values in lists.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(images)} images but {len(values)} {name}: give one per image")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if cell < MIN_CELL:
        raise ValueError(f"cell must be at least {MIN_CELL} pixels, got {cell}")


def ranking(result: Classification, count: int) -> list[int]:
    """Indices of the ``count`` most probable classes, best first and in the order of `Classification.top`."""
    probabilities = result.probabilities
    return sorted(range(len(probabilities)), key=lambda index: (-probabilities[index], index))[:count]


def draw_card(image: Image.Image, result: Classification, truth: int | None, style: CardStyle) -> Image.Image:
    """An RGB card of ``style.width`` x ``style.height`` pixels with rounded corners on the sheet's ground."""
    card = Image.new("RGB", (style.width, style.height), PAPER)
    card.paste(fit_picture(image, style.width), (0, 0))
    best, *others = ranking(result, style.bars)
    accent = BLUE if truth is None else RIGHT if best == truth else WRONG
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, style.width, style.width, style.width + style.px(4) - 1), fill=accent)
    top = _draw_answer(card, result, best, accent, style)
    if truth is not None:
        is_right = best == truth
        _text(
            draw,
            (style.px(10), top + style.px(10)),
            "correct" if is_right else f"truth: {result.labels[truth]}",
            style,
            11,
            accent,
        )
        top += style.px(19)
    for index in others:
        _draw_other(card, result, index, RIGHT if index == truth else QUIET, top, style)
        top += style.px(24)
    return round_corners(card, style.px(8))


def fit_picture(image: Image.Image, side: int) -> Image.Image:
    """``image`` as RGB in the middle of a square of ``side`` pixels, its aspect kept.

    Tiny pictures keep square pixels, whole factors (28 to 168 pixels) exactly; others are resampled smoothly.
    """
    scale = side / max(image.size)
    picture = resized(to_rgb(image), scale)
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def resized(picture: Image.Image, scale: float) -> Image.Image:
    """``picture`` with its sides times ``scale``, each at least 1 pixel; from threefold on its pixels stay square."""
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if scale < SQUARE_PIXELS_FROM:
        return picture.resize(size, Image.Resampling.LANCZOS)
    factor = -int(-scale // 1)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return picture.resize(size, Image.Resampling.BOX)


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` of any mode as RGB: 16 and 32 bit values by their own range, what is transparent as paper."""
    if image.mode.startswith(("I", "F")):
        # Pillow would clip 16 and 32 bit values at 255, so their own range is shown instead.
        values = np.asarray(image, dtype=np.float64)
        spread = max(float(values.max() - values.min()), np.finfo(np.float64).tiny)
        image = Image.fromarray((255 * (values - values.min()) / spread).astype(np.uint8))
    if image.has_transparency_data:
        backing = Image.new("RGBA", image.size, PAPER)
        image = Image.alpha_composite(backing, image.convert("RGBA"))
    return image.convert("RGB")


def _draw_answer(card: Image.Image, result: Classification, best: int, accent: str, style: CardStyle) -> int:
    """Draw mark, name, confidence and bar of the first class; return where the next line begins."""
    draw = ImageDraw.Draw(card)
    left, right = style.px(10), style.width - style.px(10)
    baseline = style.width + style.px(25)
    if style.graded:
        _draw_mark(card, (left, baseline - style.px(10)), style.px(10), accent)
        left += style.px(15)
    confidence = percent(result.probabilities[best])
    _text(draw, (right, baseline), confidence, style, 13, SOFT_INK, anchor="rs")
    room = right - left - _width(confidence, style, 13) - style.px(6)
    _text(draw, (left, baseline), result.labels[best], style, 14, INK, room=room)
    _draw_bar(card, baseline + style.px(8), style.px(6), result.probabilities[best], accent, style)
    return baseline + style.px(8 + 6 + 6)


def _draw_other(card: Image.Image, result: Classification, index: int, colour: str, top: int, style: CardStyle) -> None:
    draw = ImageDraw.Draw(card)
    left, right, baseline = style.px(10), style.width - style.px(10), top + style.px(11)
    confidence = percent(result.probabilities[index])
    _text(draw, (right, baseline), confidence, style, 11, SOFT_INK, anchor="rs")
    room = right - left - _width(confidence, style, 11) - style.px(6)
    _text(draw, (left, baseline), result.labels[index], style, 11, SOFT_INK, room=room)
    _draw_bar(card, baseline + style.px(5), style.px(3), result.probabilities[index], colour, style)


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    style: CardStyle,
    size: int,
    colour: str,
    *,
    room: float | None = None,
    anchor: str = "ls",
) -> None:
    pixels = style.px(size)
    line = shorten(text, style.width - style.px(20) if room is None else room, pixels)
    draw.text(at, line, font=font_for(line, pixels), fill=colour, anchor=anchor)


def _width(text: str, style: CardStyle, size: int) -> float:
    return font_for(text, style.px(size)).getlength(text)


def _draw_bar(card: Image.Image, top: int, height: int, share: float, colour: str, style: CardStyle) -> None:
    left, right = style.px(10), style.width - style.px(10)
    _paste_rounded(card, (left, top, right, top + height), LINE)
    # A bar shorter than its own height would lose its round ends, and a zero should show nothing.
    if share > 0:
        length = max(height, round(share * (right - left)))
        _paste_rounded(card, (left, top, left + length, top + height), colour)


def _paste_rounded(card: Image.Image, box: tuple[int, int, int, int], colour: str) -> None:
    width, height = box[2] - box[0], box[3] - box[1]
    card.paste(colour, box, _rounded_mask(width, height, min(width, height) / 2))


def _rounded_mask(width: int, height: int, radius: float) -> Image.Image:
    mask = Image.new("L", (width * SMOOTHING, height * SMOOTHING), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius=radius * SMOOTHING, fill=255)
    return mask.resize((width, height), Image.Resampling.BOX)


def round_corners(card: Image.Image, radius: int) -> Image.Image:
    """``card`` on the sheet's ground, which shows at its corners."""
    ground = Image.new("RGB", card.size, GROUND)
    ground.paste(card, (0, 0), _rounded_mask(card.width, card.height, radius))
    return ground


def _draw_mark(card: Image.Image, corner: tuple[int, int], side: int, colour: str) -> None:
    """A tick for `RIGHT`, a cross for any other colour: the fonts have neither."""
    strokes = (
        [((0.06, 0.55), (0.38, 0.86), (0.96, 0.14))]
        if colour == RIGHT
        else [((0.12, 0.12), (0.88, 0.88)), ((0.12, 0.88), (0.88, 0.12))]
    )
    mask = Image.new("L", (side * SMOOTHING, side * SMOOTHING), 0)
    for stroke in strokes:
        points = [(x * mask.width, y * mask.height) for x, y in stroke]
        ImageDraw.Draw(mask).line(points, fill=255, width=max(1, round(0.17 * mask.width)), joint="curve")
    card.paste(colour, (*corner, corner[0] + side, corner[1] + side), mask.resize((side, side), Image.Resampling.BOX))


def even_columns(count: int, most: int) -> int:
    """Up to ``most`` columns: of those, the widest that leaves the fewest places of the last row empty.

    >>> even_columns(5, 6), even_columns(7, 6), even_columns(5, 4)
    (5, 4, 3)
    """
    if count <= most:
        return count
    return min(range(most, most // 2, -1), key=lambda columns: -count % columns)


def arrange(cards: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    """Cards of one size in rows of ``columns``, with ``gap`` pixels of the sheet's ground between and around them."""
    (width, height), rows = cards[0].size, math.ceil(len(cards) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), GROUND)
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        sheet.paste(card, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet
