"""``internimage design space`` and ``scale`` on small networks, and how they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Program = Callable[..., Any]
SPACE = ("design", "space", "--budget", "0.5M", "--channels", 16, 24, "--group_widths", 8, 16, "--depths", 1, 2)
SMALL = ("--size", 32, "--stem_strides", 1, 2, "--num_classes", 10)


def test_a_space_as_table_figure_and_numbers(program: Program) -> None:
    outcome = program(*SPACE, *SMALL, "--repeats", 2, "--threads", 1, "--device", "cpu", "--output", "out")
    assert outcome.status == 0, outcome
    assert outcome.out.splitlines()[-3:] == [f"out/design_space.{suffix}" for suffix in ("md", "json", "png")]
    found = json.loads(Path("out/design_space.json").read_text(encoding="utf-8"))
    assert found["budget"] == 500_000
    assert found["facts"]["command"].startswith("internimage design space --budget 0.5M --channels 16 24 --depths 1 2")
    assert {"processor", "versions", "load before", "threads"} <= set(found["facts"])
    for row in found["candidates"]:
        assert len(row["latency_samples_ms"]) == 2
        assert row["activation_bytes"] < row["plain_activation_bytes"]
        assert ", ".join(map(str, row["numbers"])) in outcome.out
        assert f"{row['parameters']:,}" in Path("out/design_space.md").read_text(encoding="utf-8")
    with Image.open("out/design_space.png") as plot:
        assert min(plot.size) > 300
    assert "out holds design_space.md" in program(*SPACE, *SMALL, "--output", "out").refusal()
    assert program(*SPACE, *SMALL, "--repeats", 0, "--output", "out", "--overwrite").status == 0
    again = json.loads(Path("out/design_space.json").read_text(encoding="utf-8"))
    assert [row["latency_ms"] for row in again["candidates"]] == [None] * len(found["candidates"])


def test_the_choice_of_the_paper_has_a_star(program: Program) -> None:
    one = ("--channels", 64, "--depths", 4, "--group_widths", 16, "--size", 32, "--repeats", 0)
    outcome = program("design", "space", *one)
    assert "64, 16, 4, 18 *  29,918,424" in outcome.out
    assert "* is the paper's choice, InternImage-T." in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "many"), "--budget must be a positive number with or without K, M, B, G or T"),
        (("--budget", "1K"), "within 25% of 1,000 parameters; the nearest legal ones"),
        (("--repeats", -1), "--repeats must be at least 0"),
        (("--size", 0), "--size must be at least 1, got 0"),
        (("--budget", "500B"), "pass --repeats 0 to time nothing"),
        (("--channels", 63), "channels must be even"),
    ],
)
def test_spaces_that_are_refused_leave_nothing(program: Program, options: Any, message: str) -> None:
    assert message in program("design", "space", *options).refusal()
    assert not list(Path().iterdir())


def test_scale_says_the_network_and_how_far_it_is(program: Program) -> None:
    outcome = program("design", "scale", "--phi", 1, "--size", 32)
    assert "phi 1.00 from t (64, 16, 4, 18): (C1, C', L1, L3) = (80, 16, 4, 21), as InternImage-S" in outcome.out
    assert "channels 80, depths 4-4-21-4, groups 5-10-20-40" in outcome.out
    (width,) = [line.split() for line in outcome.out.splitlines() if line.startswith("C1 ")]
    assert width == ["C1", "64", "87.0", "80", "-8.1%"]
    assert "(112, 16, 5, 19)" in program("design", "scale", "--params", "97M", "--size", 32).out
    flops = program("design", "scale", "--base", "pico", "--flops", "0.2G", "--size", 64)
    assert flops.status == 0, flops


def test_scale_beside_the_paper(program: Program) -> None:
    lines = program("design", "scale", "--paper").out.splitlines()
    (row,) = [line for line in lines if line.startswith("B ")]
    assert "97.5M" in row
    assert row.endswith("L1 4, not 5; L3 21, not 20")
    (one,) = [line.split() for line in lines if line.startswith("1 ")]
    assert one[-3:] == ["S", "the", "same"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "choose one of --phi, --params, --flops and --paper"),
        (("--phi", 1, "--params", "1M"), "choose one of"),
        (("--params", "100"), "within 25% of 100; the nearest legal ones (C1, C', L1, L3) are (16, 16, 1, 1)"),
        (("--phi", 41), "phi must be a number from -40 to 40, got 41"),
        (("--base", "g", "--phi", 1), "the nearest legal (C1, C', L1, L3): (512, 32, 2, 48)"),
        (("--base", "z", "--phi", 1), "unknown model 'z'"),
    ],
)
def test_scales_that_are_refused(program: Program, options: Any, message: str) -> None:
    assert message in program("design", "scale", *options).refusal()
