"""`internimage predict photo.jpg`, with nothing else: offline, with weights that really learned."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internimage import InternImageConfig, LabelMap
from internimage.model.checkpoints.detector_files import save_detector
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import Framing

Program = Callable[..., Any]
Smoke = tuple[Path, Any]


@pytest.fixture
def photo(program: Program) -> Path:
    """A photograph's size and mode; what is on it does not matter here."""
    path = Path("photo.jpg")
    Image.effect_noise((640, 480), 60).convert("RGB").save(path)
    return path


def test_a_photo_and_nothing_else(program: Program, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no network is needed")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    result = program("predict", photo)
    assert result.status == 0, result.err
    name, label, score = result.out.splitlines()[0].split()
    assert name == "photo.jpg"
    assert label in ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert 10 <= float(score.rstrip("%")) <= 100
    assert f"no --weights: {DEFAULT_WEIGHTS}, which come with the package (CIFAR-10, 32 pixels)" in result.err
    assert "nothing is written without --output" in result.out
    assert list(Path().iterdir()) == [photo]


def test_with_a_folder_the_files_are_written(program: Program, photo: Path) -> None:
    assert program("predict", photo, "--output", "out").status == 0
    assert {path.name for path in Path("out").iterdir()} == {"predictions.json", "predictions.csv", "predictions.png"}


def test_rows_need_a_folder(program: Program, photo: Path) -> None:
    refused = program("predict", photo, "--weights", DEFAULT_WEIGHTS, "--format", "jsonl").refusal()
    assert "--format jsonl's findings go into a folder; give one as --output FOLDER" in refused


def test_a_detector_needs_a_folder(program: Program, photo: Path) -> None:
    config = DetectorConfig(InternImageConfig.from_variant("femto", num_classes=0), num_classes=2, fpn_channels=16)
    framing = Framing((64, 64), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    save_detector(InternImageDetector(config), "detector.safetensors", labels=LabelMap(("a", "b")), framing=framing)
    refused = program("predict", photo, "--weights", "detector.safetensors").refusal()
    assert "a detector's findings go into a folder; give one as --output FOLDER" in refused
