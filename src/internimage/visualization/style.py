"""The one palette of every picture, figure and page, and the fonts of those drawn with Pillow."""

from __future__ import annotations

import colorsys
import importlib.util
import logging
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageColor, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    # Pillow gives its bitmap font only when it was built without FreeType.
    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = "#1b2631"
SOFT_INK = "#5a6876"
LINE = "#d8dee5"
GROUND = "#f3f5f8"
PAPER = "#ffffff"
BLUE = "#2b6c9f"
AMBER = "#bf7a12"
QUIET = "#a9b6c3"
GREY = "#7f8d9b"
# Bluish green and vermilion differ in lightness and in hue for every common colour vision; marks repeat them.
RIGHT = "#14795f"
WRONG = "#cc4a1f"

# The first classes: far apart for normal, red-blind, green-blind and blue-blind eyes, on bright and dark photographs.
CLASS_COLOURS = ("#1fd6ea", "#ffb01f", "#d12f74", "#6d59fb", "#a08810", "#8c98e3", "#c9e3a2", "#ef6a9a")
# Steps of this share of a turn never meet a hue again and keep neighbours far apart.
GOLDEN_TURN = (5**0.5 - 1) / 2

ELLIPSIS = "…"
# What Pillow's own font has beyond ASCII, as far as it is needed here.
PILLOWS_OWN = ELLIPSIS + "·"
# Tried in this order for names that Pillow's own font can't write.
FALLBACK_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "arial.ttf",
)

# The same for figures, where matplotlib's own font already has the Latin, Greek and Cyrillic letters.
FALLBACK_FAMILIES = ("Noto Sans CJK JP", "WenQuanYi Micro Hei", "PingFang SC", "Arial Unicode MS", "Microsoft YaHei")

logger = logging.getLogger(__name__)


@cache
def class_colour(index: int) -> str:
    """The colour of a class in every picture, by its index from 0 and nothing else, such as ``#1fd6ea``.

    Eight are chosen to be told apart with any colour vision; the following are of ever new hue and lightness.
    """
    if index < len(CLASS_COLOURS):
        return CLASS_COLOURS[index]
    lightness = (0.42, 0.76, 0.52, 0.66)[index % 4]
    return _hex(colorsys.hls_to_rgb(index * GOLDEN_TURN % 1, lightness, 0.72))


def darker(colour: str) -> str:
    """A class's colour for thin lines on paper: of the same hue, with at least three times the contrast of paper.

    >>> darker("#c9e3a2"), darker("#6d59fb")
    ('#729e2f', '#6d59fb')
    """
    red, green, blue = (value / 255 for value in ImageColor.getrgb(colour)[:3])
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    while (_luminance(PAPER) + 0.05) / (_luminance(colour) + 0.05) < 3:
        lightness *= 0.97
        colour = _hex(colorsys.hls_to_rgb(hue, lightness, saturation))
    return colour


def _hex(shares: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * share):02x}" for share in shares)


def text_colour(ground: str) -> str:
    """Paper or ink: whichever has more contrast on ``ground``.

    >>> text_colour(CLASS_COLOURS[1]) == INK, text_colour(CLASS_COLOURS[2]) == PAPER
    (True, True)
    """
    light, dark, own = (_luminance(colour) + 0.05 for colour in (PAPER, INK, ground))
    return PAPER if light / own > own / dark else INK


def _luminance(colour: str) -> float:
    """Relative luminance of the Web Content Accessibility Guidelines, in [0, 1]."""
    shares = [value / 255 for value in ImageColor.getrgb(colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def font_for(text: str, size: int) -> Font:
    """A font of ``size`` pixels that has every character of ``text``.

    Pillow's own font comes first, then matplotlib's, then well-known system fonts. When none of them has all the
    characters, a warning is logged and the missing ones appear as boxes.
    """
    return _font_with(frozenset(text), size)


@lru_cache(maxsize=4096)
def _font_with(characters: frozenset[str], size: int) -> Font:
    own = ImageFont.load_default(size=size)
    if all(map(_is_plain, characters)):
        return own
    for font in _fallbacks(size):
        if _covers(font, characters, size):
            return font
    _warn_missing("".join(sorted(character for character in characters if not _is_plain(character))))
    return own


def _is_plain(character: str) -> bool:
    return character.isascii() or character in PILLOWS_OWN


def _fallbacks(size: int) -> Iterator[Font]:
    for name in _fallback_names():
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue


@cache
def _fallback_names() -> tuple[str, ...]:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return FALLBACK_FONTS
    return (str(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"), *FALLBACK_FONTS)


def _covers(font: Font, characters: frozenset[str], size: int) -> bool:
    # U+FFFF is never a character, so every font draws its "missing" box for it.
    missing = _drawn(font, "\uffff", size)
    return all(character.isspace() or _drawn(font, character, size) != missing for character in characters)


def _drawn(font: Font, character: str, size: int) -> bytes:
    canvas = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(canvas).text((0, 0), character, font=font, fill=255)
    return canvas.tobytes()


@cache
def _warn_missing(characters: str) -> None:
    logger.warning("no installed font has all of %r: some characters are drawn as boxes", characters)


def shorten(text: str, width: float, size: int) -> str:
    """``text`` on one line, cut with an ellipsis where it is wider than ``width`` pixels in `font_for` of ``size``.

    >>> shorten("Ankle boot", 200, 14), shorten("Ankle boot", 50, 14)
    ('Ankle boot', 'Ankle…')
    """
    line = " ".join(text.split())
    font = font_for(line + ELLIPSIS, size)
    if font.getlength(line) <= width:
        return line
    # A long name is cut to what could ever fit before its prefixes are measured.
    for end in range(min(len(line), int(width) + 1), 0, -1):
        candidate = line[:end].rstrip(" ,") + ELLIPSIS
        if font.getlength(candidate) <= width:
            return candidate
    return ELLIPSIS


def percent(share: float) -> str:
    """A share in [0, 1] in whole percent that never rounds to certainty.

    >>> percent(0.987), percent(0.9999), percent(0.0004), percent(1.0), percent(0.0)
    ('99%', '>99%', '<1%', '100%', '0%')
    """
    text = f"{100 * share:.0f}%"
    if text == "0%" and share > 0:
        return "<1%"
    if text == "100%" and share < 1:
        return ">99%"
    return text


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches that belongs to no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def name_families() -> list[str]:
    """The installed font families in which a figure writes class names, in the order in which they are tried."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(family for family in FALLBACK_FAMILIES if family in installed)]


def quiet_axes(axes: Axes, title: str) -> None:
    """Give ``axes`` a left-aligned title, thin lines and soft labels."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.tick_params(colors=SOFT_INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=SOFT_INK, fontsize=9)
    axes.yaxis.label.set(color=SOFT_INK, fontsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(QUIET)


def quiet_colormap() -> Colormap:
    """From the page's ground to deep blue; values that are missing are grey."""
    from matplotlib.colors import LinearSegmentedColormap

    colormap = LinearSegmentedColormap.from_list("quiet", ["#f5f8fb", "#c3d9e9", "#7bacd0", BLUE, "#12395b"])
    return colormap.with_extremes(bad=LINE)
