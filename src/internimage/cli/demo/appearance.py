"""How the page looks: the palette of all our pictures, fonts of the system, light and dark."""

from __future__ import annotations

import base64
import io
from importlib import resources

from gradio.themes import Base, Color, Font
from PIL import Image

from internimage.data import sample_photo
from internimage.visualization.looks.overlay import HEAT
from internimage.visualization.style import BLUE, GROUND, INK, LINE, PAPER, SOFT_INK

# The same inks on a dark ground; the pictures on the page stay as they are.
_NIGHT, _NIGHT_PAPER, _NIGHT_LINE, _NIGHT_INK, _NIGHT_SOFT = "#11181f", "#1a232c", "#303d49", "#e8edf2", "#a3b1be"
_LIGHT_BLUE = "#6fb0e0"
# From paper over the palette's blue to night.
_BLUES = Color(
    *("#f2f7fb", "#dfebf4", "#c3d9e9", "#9fc3de", "#7bacd0", BLUE, BLUE, "#225680", "#1b4566", "#12395b", "#0c2740")
)


def theme() -> Base:
    """Colours, fonts and corners."""
    # A font by name alone: gradio's own choice would be fetched from elsewhere.
    font = [Font("sans-serif")]
    base = Base(primary_hue=_BLUES, secondary_hue=_BLUES, font=font, font_mono=[Font("monospace")])
    return base.set(
        body_background_fill=GROUND,
        body_background_fill_dark=_NIGHT,
        body_text_color=INK,
        body_text_color_dark=_NIGHT_INK,
        body_text_color_subdued=SOFT_INK,
        body_text_color_subdued_dark=_NIGHT_SOFT,
        block_background_fill=PAPER,
        block_background_fill_dark=_NIGHT_PAPER,
        block_border_color=LINE,
        block_border_color_dark=_NIGHT_LINE,
        block_label_text_color=SOFT_INK,
        block_label_text_color_dark=_NIGHT_SOFT,
        block_title_text_color=INK,
        block_title_text_color_dark=_NIGHT_INK,
        block_radius="10px",
        block_shadow="none",
        border_color_primary=LINE,
        border_color_primary_dark=_NIGHT_LINE,
        background_fill_secondary=GROUND,
        background_fill_secondary_dark=_NIGHT,
        input_background_fill=PAPER,
        input_background_fill_dark=_NIGHT,
        slider_color=BLUE,
        slider_color_dark=_LIGHT_BLUE,
        stat_background_fill=BLUE,
        stat_background_fill_dark=BLUE,
        button_secondary_background_fill=PAPER,
        button_secondary_background_fill_dark=_NIGHT_PAPER,
        button_secondary_background_fill_hover=_BLUES.c100,
        button_secondary_background_fill_hover_dark=_NIGHT_LINE,
        button_secondary_border_color=LINE,
        button_secondary_border_color_dark=_NIGHT_LINE,
    )


def style() -> str:
    """What the theme can't say, as CSS, with the colours of the points and the picture on the button in it."""
    thumbnail, data = Image.open(sample_photo()), io.BytesIO()
    thumbnail.thumbnail((180, 180))
    thumbnail.save(data, "JPEG", quality=85)
    # A file of its own would be removed with those of the visitors.
    picture = f"url(data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()})"
    variables = f":root {{ --heat: linear-gradient(to right, {', '.join(HEAT)}); --cat: {picture}; }}\n"
    return variables + resources.files("internimage.cli.demo").joinpath("style.css").read_text(encoding="utf-8")
