"""Pictures of semantic segmentation: classes on a picture, and contact sheets of predictions, alone or with the truth.

Shape legend: H W picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from internimage.structures import IGNORED, SegmentationMap
from internimage.visualization.card import (
    SheetStyle,
    arrange,
    check_sheet,
    even_columns,
    resized,
    round_corners,
    to_rgb,
)
from internimage.visualization.objects import text_size
from internimage.visualization.regions import ROW, Entry, draw_legend, mark_mistakes, name_regions, paint_regions
from internimage.visualization.style import GROUND, INK, PAPER, SOFT_INK, WRONG, font_for, percent, shorten

OPACITY = 0.55
# Pictures whose longer side is shorter are enlarged, so that the legend can be read.
LEGIBLE_SIDE = 480
# The legend of one picture takes at most this share of its height, but at least two rows.
LEGEND_SHARE = 0.3
MOST_ROWS = 12
# No legend is narrower than this many texts.
LEGEND_WIDTH = 20
IGNORED_NAME = "ignored"
# Between cards, and between the pictures of one.
GAP, SEAM = 10, 6
MAX_SHEET_COLUMNS = 4


def draw_segmentation(
    image: Image.Image,
    found: SegmentationMap,
    *,
    opacity: float = OPACITY,
    legend: bool = True,
    names: bool = True,
    scale: float | None = None,
) -> Image.Image:
    """The classes of a picture in their colours on it, with a legend below: the largest first, with their shares.

    Pixels of no class (`IGNORED`) keep the picture's colours and are hatched. The picture below the colours is grey,
    so that they look as in the legend.

    Args:
        image: a picture of any mode.
        found: the class of every pixel.
        opacity: of the colours, in [0, 1].
        legend: whether there is a legend.
        names: whether each class's name stands on the largest of its regions, where one has room for it.
        scale: how much the picture is enlarged; None takes the smallest whole factor that makes its longer side
            480 pixels, so that the legend can be read.

    Returns:
        An RGB picture.

    Raises:
        ValueError: if the picture is empty or not of the size that ``found`` tells, or a setting is out of range.

    >>> from internimage.structures import LabelMap
    >>> found = SegmentationMap(np.zeros((48, 64), np.uint8), LabelMap(("sky",)), ((70, 130, 180),))
    >>> draw_segmentation(Image.new("L", (64, 48)), found, legend=False).size
    (512, 384)
    """
    _check(image, found, "the image")
    _check_opacity(opacity)
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, got {scale}")
    factor = scale or max(1, math.ceil(LEGIBLE_SIDE / max(image.size)))
    picture = resized(to_rgb(image), factor)
    text = text_size(picture.size)
    canvas = paint_regions(picture, found.labels, found.palette, opacity, max(1, text // 14))
    if names:
        name_regions(canvas, found.labels, found.classes, found.palette, text)
    if not legend:
        return canvas
    width = max(canvas.width, LEGEND_WIDTH * text)
    rows = max(2, int(LEGEND_SHARE * canvas.height / (ROW * text)))
    strip = draw_legend(_entries([found], with_shares=True), width, text, rows)
    whole = Image.new("RGB", (width, canvas.height + strip.height), PAPER)
    whole.paste(canvas, ((width - canvas.width) // 2, 0))
    whole.paste(strip, (0, canvas.height))
    return whole


def draw_sheet(
    images: Sequence[Image.Image],
    founds: Sequence[SegmentationMap],
    *,
    captions: Sequence[str] | None = None,
    opacity: float = OPACITY,
    columns: int | None = None,
    cell: int = 520,
) -> Image.Image:
    """A contact sheet of pictures in their classes' colours, under one legend; below each, its largest classes.

    Args:
        images: at least one picture of any size and mode.
        founds: the classes of each picture's pixels; all of the same classes and colours.
        captions: a line below each picture, such as a file's name; None has no such line.
        opacity: of the colours, in [0, 1].
        columns: number of cards in a row; None takes up to 4 and leaves few places of the last row empty.
        cell: largest width and height of a picture in pixels, at least 130; text grows with it.

    Returns:
        An RGB picture.

    Raises:
        ValueError: as `draw_segmentation`, with the picture's number; if there is no picture, the lengths differ, or
            the classes do.
    """
    _check_sheet(images, {"predictions": founds}, captions, columns, cell)
    _check_opacity(opacity)
    style = SheetStyle.of(images, cell, has_captions=captions is not None)
    cards = []
    for number, (image, found) in enumerate(zip(images, founds, strict=True)):
        picture = style.fit(image)
        painted = paint_regions(picture, found.labels, found.palette, opacity, style.px(0.6))
        panel = _Panel(painted, _largest(found, style), SOFT_INK)
        cards.append(_draw_card([panel], captions[number] if captions is not None else "", style))
    sheet = arrange(cards, columns or even_columns(len(images), MAX_SHEET_COLUMNS), style.px(GAP))
    return _under_legend(sheet, _entries(founds), style)


def draw_comparison(
    images: Sequence[Image.Image],
    founds: Sequence[SegmentationMap],
    truths: Sequence[SegmentationMap],
    *,
    captions: Sequence[str] | None = None,
    columns: int = 1,
    cell: int = 520,
) -> Image.Image:
    """A contact sheet of pictures, each with the truth, the prediction and its mistakes, under one legend.

    Mistakes are red; what the truth ignores is hatched and is no mistake.

    Args:
        images: at least one picture of any size and mode.
        founds: what the segmenter says, one for each picture.
        truths: what there is, one for each picture; all of the same classes and colours.
        captions: a line below each row of four, such as ``mIoU 71.3%``; None has no such line.
        columns: number of pictures, with their three others, in a row.
        cell: largest width and height of one of the four in pixels, at least 130; text grows with it.

    Returns:
        An RGB picture. One column is as wide as the page of a run, or twice that with the default cell.

    Raises:
        ValueError: as `draw_sheet`.
    """
    _check_sheet(images, {"predictions": founds, "truths": truths}, captions, columns, cell)
    style = SheetStyle.of(images, cell, has_captions=captions is not None)
    cards = []
    for number, (image, found, truth) in enumerate(zip(images, founds, truths, strict=True)):
        picture, line = style.fit(image), style.px(0.6)
        panels = [
            _Panel(picture, "picture"),
            _Panel(paint_regions(picture, truth.labels, truth.palette, OPACITY, line), "truth"),
            _Panel(paint_regions(picture, found.labels, found.palette, OPACITY, line), "prediction"),
            _Panel(mark_mistakes(picture, found.labels, truth.labels, line), _mistakes(found, truth)),
        ]
        cards.append(_draw_card(panels, captions[number] if captions is not None else "", style))
    sheet = arrange(cards, columns, style.px(GAP))
    return _under_legend(sheet, [*_entries([*truths, *founds]), Entry("mistake", ImageColor.getrgb(WRONG)[:3])], style)


@dataclass(frozen=True)
class _Panel:
    """One picture of a card, and what stands below it."""

    image: Image.Image
    title: str
    colour: str = INK


def _draw_card(panels: Sequence[_Panel], caption: str, style: SheetStyle) -> Image.Image:
    step, size = style.cell + style.px(SEAM), style.px(10)
    card = Image.new("RGB", (len(panels) * step - style.px(SEAM), style.height), PAPER)
    draw = ImageDraw.Draw(card)
    for number, panel in enumerate(panels):
        style.place(card, panel.image, number * step)
        title = shorten(panel.title, style.cell - style.px(20), size)
        place = (number * step + style.px(10), style.picture_height + style.px(18))
        draw.text(place, title, font=font_for(title, size), fill=panel.colour, anchor="ls")
    if caption:
        style.write_caption(card, caption)
    return round_corners(card, style.px(8))


def _under_legend(sheet: Image.Image, entries: Sequence[Entry], style: SheetStyle) -> Image.Image:
    """``sheet`` with a card of the legend above it."""
    gap = style.px(GAP)
    strip = draw_legend(entries, sheet.width - 2 * gap, style.px(10), MOST_ROWS)
    whole = Image.new("RGB", (sheet.width, gap + strip.height + sheet.height), GROUND)
    whole.paste(round_corners(strip, style.px(8)), (gap, gap))
    whole.paste(sheet, (0, gap + strip.height))
    return whole


def _entries(maps: Sequence[SegmentationMap], *, with_shares: bool = False) -> list[Entry]:
    """The classes that occur, the largest first, and at the end what is of no class."""
    counts = np.sum([np.bincount(each.labels.ravel(), minlength=IGNORED + 1) for each in maps], axis=0)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda label: (label == IGNORED, -counts[label], label))
    return [
        Entry(
            IGNORED_NAME if label == IGNORED else maps[0].classes[label],
            None if label == IGNORED else maps[0].palette[label],
            percent(counts[label] / counts.sum()) if with_shares else "",
        )
        for label in order
    ]


def _largest(found: SegmentationMap, style: SheetStyle) -> str:
    """The largest classes and their shares, as many as a line has room for."""
    words = [f"{name} {percent(share)}" for name, share in found.shares().items()] or [IGNORED_NAME]
    size, room = style.px(10), style.cell - style.px(20)
    lines = (" · ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((line for line in lines if font_for(line, size).getlength(line) <= room), words[0])


def _mistakes(found: SegmentationMap, truth: SegmentationMap) -> str:
    judged = truth.labels != IGNORED
    if not judged.any():
        return "nothing to compare"
    return f"mistakes {percent(float((found.labels != truth.labels)[judged].mean()))}"


def _check_sheet(
    images: Sequence[Image.Image],
    maps: dict[str, Sequence[SegmentationMap]],
    captions: Sequence[str] | None,
    columns: int | None,
    cell: int,
) -> None:
    check_sheet(images, {**maps, "captions": captions}, columns, cell)
    for name, each in maps.items():
        for number, (image, found) in enumerate(zip(images, each, strict=True)):
            _check(image, found, f"image {number}")
            first = next(iter(maps.values()))[0]
            if (found.classes, found.palette) != (first.classes, first.palette):
                raise ValueError(
                    f"number {number} of the {name} has other classes or colours than the first: one legend serves all"
                )


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")


def _check(image: Image.Image, found: SegmentationMap, name: str) -> None:
    if 0 in image.size:
        raise ValueError(f"{name} is empty: its size is {image.width} x {image.height}")
    if (image.height, image.width) != found.size:
        told = f"{found.size[1]} x {found.size[0]}"
        raise ValueError(
            f"{name} has {image.width} x {image.height} pixels but its classes are those of one of {told}: "
            "give the picture that was segmented"
        )
