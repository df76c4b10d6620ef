"""Fonts, shortened names and percentages."""

from __future__ import annotations

import logging

import pytest

from internimage.visualization.style import ELLIPSIS, font_for, percent, shorten


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
