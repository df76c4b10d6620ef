"""Fonts, shortened names and percentages."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import ImageColor

from internimage.visualization.style import (
    CLASS_COLOURS,
    ELLIPSIS,
    class_colour,
    darker,
    font_for,
    percent,
    shorten,
    text_colour,
)

# Linear RGB as eyes without red, green and blue cones see it.
# Source: Machado, Oliveira and Fernandes, doi:10.1109/TVCG.2009.113, severity 1.
VISION = {
    "normal": np.eye(3),
    "red-blind": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green-blind": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "blue-blind": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
# Linear RGB to Oklab, in which distances are as large as they look. Source: Björn Ottosson, 2020.
CONES = [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
OKLAB = [
    [0.21045426, 0.7936178, -0.00407205],
    [1.9779985, -2.4285922, 0.45059371],
    [0.02590404, 0.78277177, -0.80867577],
]


def test_names_that_fit_are_untouched():
    assert shorten("Ankle boot", 500, 14) == "Ankle boot"


@pytest.mark.parametrize("width", [20, 50, 90, 140])
@pytest.mark.parametrize(
    "name", ["Arabian camel, dromedary, Camelus dromedarius", "W" * 300, "Überraschungsgröße " * 9]
)
def test_shortened_names_fit_and_say_so(name, width):
    line = shorten(name, width, 14)
    assert line.endswith(ELLIPSIS)
    assert name.startswith(line[:-1])
    assert font_for(line, 14).getlength(line) <= width


def test_nothing_but_the_ellipsis_fits():
    assert shorten("Ankle boot", 3, 14) == ELLIPSIS


def test_line_breaks_become_spaces():
    assert shorten("Ankle\n\t boot ", 500, 14) == "Ankle boot"


def test_plain_names_take_pillows_own_font():
    assert font_for("Ankle boot…", 14).getname()[0] == "Aileron"


@pytest.mark.parametrize("name", ["Schäferhund", "Łódź", "Ελλάδα", "собака"])
def test_other_alphabets_take_a_font_that_has_them(name, caplog):
    assert font_for(name, 14).getname()[0] != "Aileron"
    assert not caplog.records


def test_a_character_that_no_font_has_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        font_for("dog \U000f1234", 14)
    assert "no installed font has all of '\\U000f1234'" in caplog.text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (0.005, "<1%"), (0.006, "1%"), (0.42, "42%"), (0.994, "99%"), (0.996, ">99%"), (1.0, "100%")],
)
def test_percentages_never_round_to_certainty(share, text):
    assert percent(share) == text


def linear(colours) -> np.ndarray:
    shares = np.array([ImageColor.getrgb(colour) for colour in colours]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def contrast(colour: str, ground: str) -> float:
    light, dark = sorted(linear([colour, ground]) @ (0.2126, 0.7152, 0.0722) + 0.05)[::-1]
    return light / dark


@pytest.mark.parametrize("vision", VISION)
def test_the_first_classes_are_far_apart_for_every_eye(vision):
    seen = np.clip(linear(CLASS_COLOURS) @ np.array(VISION[vision]).T, 0, 1)
    lab = np.cbrt(seen @ np.array(CONES).T) @ np.array(OKLAB).T
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    # A just noticeable difference is about 0.02.
    assert distances[~np.eye(len(lab), dtype=bool)].min() > 0.1


def test_a_thousand_classes_have_a_colour_each():
    colours = [class_colour(index) for index in range(1000)]
    assert len(set(colours)) == 1000
    assert colours[:3] == list(CLASS_COLOURS[:3])
    assert min(contrast(text_colour(colour), colour) for colour in colours) > 3.8
    assert min(contrast(text_colour(colour), colour) for colour in CLASS_COLOURS) > 4.3


def test_lines_on_paper_are_dark_enough():
    assert min(contrast(darker(class_colour(index)), "#ffffff") for index in range(50)) >= 3
    assert darker("#123456") == "#123456"
