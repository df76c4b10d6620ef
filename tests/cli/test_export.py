"""``internimage export`` through the program."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from export.scattered import network
from internimage import LabelMap, Preprocess, save_checkpoint
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no/such/file", "x.onnx"], "no/such/file"),
        (["WEIGHTS", "x.pt2"], "end in .onnx"),
        (
            ["WEIGHTS", "x.xml", "--format", "openvino", "--sampling", "grid_sample"],
            "--sampling is for --format onnx",
        ),
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
