"""The one palette of every picture, figure and page, and the fonts of those drawn with Pillow."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

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

ELLIPSIS = "…"
# Tried in this order for names that Pillow's own font (ASCII only) can't write.
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
    return character.isascii() or character == ELLIPSIS


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
