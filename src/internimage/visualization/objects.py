"""Objects on a picture: translucent masks with contours, boxes, and labels that keep out of each other's way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from internimage.structures import Detections
from internimage.visualization.style import INK, class_colour, font_for, percent, shorten, text_colour

# A text of this share of a picture's side (the root of its area) reads well; no text is smaller than 11 pixels.
TEXT_SHARE = 0.019
MIN_TEXT = 11
# Labels that would cover more of the picture than this are kept for large objects.
LABELLED_SHARE = 0.1
# The width and height of a large object, in texts.
LARGE = 7
# Opacity of a mask, from 0 to 1, and of the thin shadow that sets a box off from any ground, from 0 to 255.
FILL = 0.32
SHADOW = 110

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Label:
    """A label and where it lies.

    Args:
        row: the object.
        text: name and score.
        box: x1, y1, x2, y2 in pixels of the canvas, the last two excluded.
    """

    row: int
    text: str
    box: tuple[int, int, int, int]


def text_size(size: tuple[int, int]) -> int:
    """Height in pixels of a text that suits a picture of this (width, height).

    >>> text_size((640, 480)), text_size((4000, 3000)), text_size((1, 2000))
    (11, 66, 11)
    """
    return max(MIN_TEXT, round(TEXT_SHARE * math.sqrt(size[0] * size[1])))


def draw_objects(
    canvas: Image.Image, found: Detections, text: int, *, show_scores: bool = True, crowded: bool | None = None
) -> None:
    """Draw objects on ``canvas``, an RGB picture of any scale of the original; small objects lie on large ones.

    Args:
        canvas: changed in place.
        text: size of the labels in pixels; lines are thick in proportion, and thinner around small objects.
        show_scores: whether labels end with the score in percent.
        crowded: whether only large objects have labels, and boxes around their masks; None asks `is_crowded`.
    """
    boxes = boxes_on(canvas.size, found)
    if crowded is None:
        crowded = is_crowded(canvas.size, found, text, show_scores=show_scores)
    named = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= LARGE * text) if crowded else range(len(found))
    words = {int(row): _words(found, int(row), text, show_scores) for row in named}
    ranked = sorted(words, key=lambda row: (-found.scores[row], row))
    labels = place_labels(canvas.size, {row: (words[row], boxes[row]) for row in ranked}, text)
    order = np.argsort(-_areas(boxes), kind="stable")
    line = _line_width(boxes, text)
    if found.masks is not None:
        for row in order:
            _draw_mask(canvas, found.masks[row], class_colour(int(found.labels[row])), line)
        order = [row for row in order if int(row) in words]
    _draw_boxes(canvas, [(boxes[row], class_colour(int(found.labels[row]))) for row in order], line)
    for label in labels:
        draw_label(canvas, label, class_colour(int(found.labels[label.row])), text)


def is_crowded(size: tuple[int, int], found: Detections, text: int, *, show_scores: bool = True) -> bool:
    """Whether labels of all objects would hide too much of a picture of this (width, height)."""
    areas = (_label_area(_words(found, row, text, show_scores), text) for row in range(len(found)))
    return sum(areas) > LABELLED_SHARE * size[0] * size[1]


def boxes_on(size: tuple[int, int], found: Detections) -> Ints:
    """Boxes (R, 4) in whole pixels of a canvas of (width, height), inside it and at least 1 pixel large."""
    scale = np.array([size[0] / found.size[1], size[1] / found.size[0]] * 2)
    limit = np.array(size)
    edges = np.round(np.clip(found.boxes * scale, 0, np.tile(limit, 2))).astype(np.int64)
    upper_left = np.minimum(edges[:, :2], limit - 1)
    return np.concatenate([upper_left, np.maximum(edges[:, 2:], upper_left + 1)], axis=1)


def place_labels(size: tuple[int, int], wanted: Mapping[int, tuple[str, Ints]], text: int) -> list[Label]:
    """Labels inside a picture of (width, height) that don't overlap, as many as it bears.

    Args:
        wanted: the words and the box of each object by its row, the most important object first.
        text: size of the words in pixels.
    """
    budget, labels = LABELLED_SHARE * size[0] * size[1], []
    for row, (words, box) in wanted.items():
        wide, tall = label_size(words, text)
        budget -= wide * tall
        if wide > size[0] or tall > size[1] or (labels and budget < 0):
            continue
        taken = np.array([label.box for label in labels], np.int64).reshape(-1, 4)
        places = ((x, y, x + wide, y + tall) for x, y in _places(box, wide, tall, size))
        free = next((place for place in places if not _overlaps(taken, place)), None)
        if free is not None:
            labels.append(Label(row, words, free))
    return labels


def label_size(words: str, text: int) -> tuple[int, int]:
    """Width and height in pixels of a label of these words."""
    return math.ceil(font_for(words, text).getlength(words)) + 2 * round(0.35 * text), round(1.45 * text)


def _label_area(words: str, text: int) -> int:
    width, height = label_size(words, text)
    return width * height


def _words(found: Detections, row: int, text: int, show_scores: bool) -> str:
    name = shorten(found.classes[int(found.labels[row])], 14 * text, text)
    return f"{name} {percent(float(found.scores[row]))}" if show_scores else name


def _places(box: Ints, wide: int, tall: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Upper left corners for a label, best first: above and below the box, in its corners, down its sides."""
    left, top, right, bottom = (int(edge) for edge in box)
    ends = [(left, top - tall), (left, top), (left, bottom), (right - wide, top - tall), (right - wide, top)]
    ends += [(right - wide, bottom), (left, bottom - tall), (right - wide, bottom - tall)]
    sides = [(x, y) for y in range(top + tall, bottom - tall, tall) for x in (left, right - wide)]
    limit_x, limit_y = size[0] - wide, size[1] - tall
    return [(min(max(x, 0), limit_x), min(max(y, 0), limit_y)) for x, y in ends + sides]


def _overlaps(taken: Ints, box: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = box
    apart = (taken[:, 0] >= right) | (taken[:, 2] <= left) | (taken[:, 1] >= bottom) | (taken[:, 3] <= top)
    return not bool(apart.all())


def _areas(boxes: Ints) -> Ints:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _line_width(boxes: Ints, text: int) -> int:
    """A sixth of the text, less where most objects are small."""
    if not len(boxes):
        return 1
    side = float(np.median(np.sqrt(_areas(boxes))))
    return max(1, round(min(text / 6, side / 16)))


def _draw_boxes(canvas: Image.Image, boxes: list[tuple[Ints, str]], line: int) -> None:
    shadow = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(shadow)
    for (left, top, right, bottom), _ in boxes:
        draw.rectangle((left - 1, top - 1, right, bottom), outline=SHADOW, width=line + 2)
    canvas.paste(INK, (0, 0), shadow)
    draw = ImageDraw.Draw(canvas)
    for (left, top, right, bottom), colour in boxes:
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)


def draw_label(canvas: Image.Image, label: Label, colour: str, text: int) -> None:
    """Draw a label in the colour of its class."""
    left, top, right, bottom = label.box
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    place = ((left + right) / 2, top + 0.72 * (bottom - top))
    draw.text(place, label.text, font=font_for(label.text, text), fill=text_colour(colour), anchor="ms")


def _draw_mask(canvas: Image.Image, mask: NDArray[np.bool_], colour: str, line: int) -> None:
    """Fill a mask (height, width) of the original picture and draw its contour, ``line`` pixels wide, inside it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    extent = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    region, cover = _cover(mask, extent, canvas.size, margin=2 * line + 2)
    # Behind a straight edge a blurred mask rises from a half; where it has passed `inner`, the contour ends.
    sigma = 0.75 * line
    blurred = np.asarray(_grey(cover).filter(ImageFilter.GaussianBlur(sigma)), np.float32) / 255
    inner, slope = 0.909, 0.164 / sigma
    core = np.clip((blurred - inner) / slope + 0.5, 0, 1)
    canvas.paste(INK, region, _grey(SHADOW / 255 * np.clip((blurred - 0.15) / 0.2, 0, 1) * (1 - cover)))
    canvas.paste(colour, region, _grey(cover * (1 - (1 - FILL) * core)))


def _cover(mask: NDArray[np.bool_], extent: tuple[int, ...], size: tuple[int, int], margin: int) -> tuple[Any, Any]:
    """Where on a canvas of (width, height) the mask lies, and which share of each pixel there it covers."""
    scale = (size[0] / mask.shape[1], size[1] / mask.shape[0])
    region = [math.floor(extent[axis] * scale[axis]) - margin for axis in (0, 1)]
    region += [math.ceil(extent[axis + 2] * scale[axis]) + margin for axis in (0, 1)]
    left, top, right, bottom = (min(max(edge, 0), size[index % 2]) for index, edge in enumerate(region))
    source = (left / scale[0], top / scale[1], right / scale[0], bottom / scale[1])
    first = math.floor(source[0]), math.floor(source[1])
    last = min(math.ceil(source[2]), mask.shape[1]), min(math.ceil(source[3]), mask.shape[0])
    window = Image.fromarray(mask[first[1] : last[1], first[0] : last[0]].astype(np.uint8) * 255)
    box = (source[0] - first[0], source[1] - first[1], source[2] - first[0], source[3] - first[1])
    box = (box[0], box[1], min(box[2], window.width), min(box[3], window.height))
    steep = min(scale)
    resampling = Image.Resampling.BILINEAR if steep > 1 else Image.Resampling.BOX
    soft = window.resize((right - left, bottom - top), resampling, box=box)
    # Enlarged edges are ramps as wide as a source pixel: made one pixel wide again.
    share = np.clip((np.asarray(soft, np.float32) / 255 - 0.5) * max(1.0, steep) + 0.5, 0, 1)
    return (left, top, right, bottom), share


def _grey(share: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.round(255 * share).astype(np.uint8))
