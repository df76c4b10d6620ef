"""``internimage export`` through the program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import onnx
import openvino
import pytest
import torch
from PIL import Image

from export.scattered import network
from internimage import LabelMap, Preprocess, save_checkpoint
from internimage.cli.export import calibration_images
from internimage.cli.main import main


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = LabelMap(tuple(f"class {number}" for number in range(10)))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    return save_checkpoint(network("t"), path, labels=labels, preprocess=Preprocess(64))


def test_onnx_with_labels(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(weights), str(tmp_path / "small.onnx")]) == 0
    printed = capsys.readouterr().out
    assert "1 x 3 x 64 x 64: agrees, relative RMS error" in printed
    assert f"written: {tmp_path / 'small.onnx'}" in printed
    properties = {each.key: each.value for each in onnx.load(tmp_path / "small.onnx").metadata_props}
    metadata = json.loads(properties["internimage"])
    assert metadata["labels"][3] == "class 3"
    assert Preprocess.from_dict(metadata["preprocess"]) == Preprocess(64)
    assert main(["export", str(weights), str(tmp_path / "small.onnx")]) == 2
    assert "exists" in capsys.readouterr().err


def test_a_program_of_maps(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "maps.pt2"
    assert main(["export", str(weights), str(path), "--format", "program", "--features"]) == 0
    maps = torch.export.load(path).module()(torch.zeros(2, 3, 64, 96))
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 16, 24), (48, 8, 12), (96, 4, 6), (192, 2, 3)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of more than are needed."""
    folder, generator = tmp_path_factory.mktemp("images"), numpy.random.default_rng(0)
    for number in range(301):
        Image.fromarray(generator.integers(0, 256, (70, 90, 3), numpy.uint8)).save(folder / f"{number}.png")
    return folder


# What the export makes of the images is shown by test_openvino.py.
@pytest.mark.slow
def test_eight_bits_from_a_folder(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.xml"
    assert main(["export", str(weights), str(path), "--format", "openvino", "--int8", str(images)]) == 0
    assert "1 x 3 x 64 x 64: agrees" in capsys.readouterr().out
    read = openvino.Core().read_model(path)
    assert {"i8"} <= {node.get_element_type().get_type_name() for node in read.get_ops() if node.get_output_size()}


def test_images_to_calibrate_on(images: Path) -> None:
    assert len(calibration_images(str(images), Preprocess(64).to_dict())) == 151
    with pytest.raises(ValueError, match="how images are prepared"):
        calibration_images(str(images), None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no/such/file", "x.onnx"], "no/such/file"),
        (["WEIGHTS", "x.pt2"], "end in .onnx"),
        (
            ["WEIGHTS", "x.xml", "--format", "openvino", "--sampling", "grid_sample"],
            "--sampling is for --format onnx",
        ),
        (["WEIGHTS", "x.onnx", "--int8", "images"], "--int8 is for --format openvino, not onnx"),
        (["WEIGHTS", "x.xml", "--format", "openvino", "--int8", "no/such/folder"], "no/such/folder does not exist"),
        (["WEIGHTS", "x.pt2", "--format", "program", "--half"], "--half is for --format onnx and openvino"),
    ],
)
def test_bad_input(arguments: list[str], words: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *(str(weights) if each == "WEIGHTS" else each for each in arguments)]) == 2
    assert words in capsys.readouterr().err


def test_missing_packages(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("internimage.export.network.find_spec", lambda name: None if name == "onnx" else name)
    assert main(["export", str(weights), str(tmp_path / "small.onnx")]) == 2
    assert "pip install 'internimage-torch[export]'" in capsys.readouterr().err
