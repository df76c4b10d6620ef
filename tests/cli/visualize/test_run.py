"""``internimage visualize run``: the same figures as the run's own, from its folder alone; nothing else is replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.pictures import differing, figures_alone

Program = Callable[..., Any]
NAMES = ["confusion_matrix", "curves", "mistakes", "predictions"]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


@pytest.fixture
def alone(smoke: tuple[Path, Any], tmp_path: Path) -> Path:
    """A run's numbers without its weights, settings and pictures."""
    return figures_alone(smoke[0], tmp_path / "alone")


def test_the_figures_are_those_of_the_run(program: Program, alone: Path, smoke: tuple[Path, Any]) -> None:
    outcome = program("visualize", "run", alone)
    assert outcome.status == 0, outcome
    assert sorted(outcome.out.splitlines()) == [f"{alone}/figures/{name}.png" for name in NAMES]
    assert outcome.err == ""
    assert differing(alone / "figures", smoke[0]) == []


def test_a_later_call_replaces_its_own_figures_and_no_others(program: Program, alone: Path) -> None:
    widths: list[int] = []
    for dpi in (75, 150):
        assert program("visualize", "run", alone, "--output", "out", "--dpi", dpi).status == 0
        with Image.open("out/predictions.png") as image:
            widths.append(image.width)
            assert image.info["dpi"] == pytest.approx((dpi, dpi), abs=0.1)
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.02)
    Path("out/curves.png").write_bytes(b"mine")
    refusal = program("visualize", "run", alone, "--output", "out").refusal()
    assert "out holds curves.png of another origin; choose another --output" in refusal
    assert Path("out/curves.png").read_bytes() == b"mine"
    Path("out/figures.json").write_text("[]", encoding="utf-8")
    assert "figures.json is not ours" in program("visualize", "run", alone, "--output", "out").refusal()


@pytest.mark.parametrize(("form", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_other_formats(program: Program, alone: Path, form: str, begin: bytes) -> None:
    assert program("visualize", "run", alone, "--output", "out", "--format", form, "--dpi", 75).status == 0
    files = sorted(Path("out").glob(f"*.{form}"))
    assert [file.stem for file in files] == NAMES
    assert all(file.read_bytes().startswith(begin) and file.stat().st_size > 5000 for file in files)


def test_a_run_without_an_evaluation_has_curves(program: Program, alone: Path) -> None:
    (alone / "evaluation.npz").unlink()
    outcome = program("visualize", "run", alone, "--output", "out")
    assert outcome.status == 0, outcome
    assert outcome.out.splitlines() == ["out/curves.png"]
    assert outcome.err == (
        f"{alone} holds no evaluation.npz, so there are only curves; internimage validate --run {alone} writes it\n"
    )


def test_what_is_no_run_is_one_sentence(program: Program, alone: Path, tmp_path: Path) -> None:
    assert "nowhere is no folder" in program("visualize", "run", "nowhere").refusal()
    assert "holds neither metrics.csv nor evaluation.npz" in program("visualize", "run", tmp_path).refusal()
    assert "--dpi must be from 30 to 1200, got 10" in program("visualize", "run", alone, "--dpi", 10).refusal()
    whole = (alone / "evaluation.npz").read_bytes()
    (alone / "evaluation.npz").write_bytes(whole[: len(whole) // 2])
    assert "evaluation.npz is damaged" in program("visualize", "run", alone).refusal()
    assert not (alone / "figures").exists()
    shutil.rmtree(alone)
    assert "is no folder" in program("visualize", "run", alone).refusal()
