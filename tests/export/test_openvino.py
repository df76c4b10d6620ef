"""OpenVINO models: straight from the program, equal in float32 at any size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import openvino
import pytest
import torch

from export.scattered import NETWORKS, network
from internimage.export import Agreement, export_openvino
from internimage.export.network import relative_error
from internimage.export.openvino import shared_core

SIZES = ((1, 224, 224), (2, 160, 192), (1, 250, 333), (3, 33, 47))


def load(path: Path, precision: str = "f32") -> openvino.CompiledModel:
    return shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H in small."""
    return export_openvino(network("h"), tmp_path_factory.mktemp("h") / "model.xml", metadata={"labels": ["cat"]})


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_at_every_size(name: str, exported: Path, tmp_path: Path) -> None:
    model = network(name)
    path = exported if name == "h" else export_openvino(model, tmp_path / "model.xml", metadata={"labels": ["cat"]})
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.bin", "model.xml"]
    compiled = load(path)
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, height, width)
        logits = torch.from_numpy(compiled({"image": image.numpy()})["logits"])
        with torch.inference_mode():
            assert relative_error(logits, model(image)) <= 1e-5
    read = shared_core().read_model(path)
    assert json.loads(read.get_rt_info("internimage").value) == {"labels": ["cat"]}
    assert str(read.input("image").partial_shape) == "[?,3,?,?]"


def test_maps_with_weights_in_16_bit(tmp_path: Path) -> None:
    model, seen = network("t", features_only=True), list[Agreement]()
    path = export_openvino(model, tmp_path / "maps.xml", half=True, report=seen.append)
    assert [agreement.holds for agreement in seen] == [True, True, True]
    assert max(agreement.error for agreement in seen) > 1e-5
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert path.with_suffix(".bin").stat().st_size < 1.1 * 2 * parameters
    maps = load(path)(numpy.zeros((1, 3, 64, 96), numpy.float32))
    assert [maps[f"stage{stage}"].shape for stage in (1, 4)] == [(1, 24, 16, 24), (1, 192, 2, 3)]


def test_files_are_not_lost(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Found at the end, when there is something to move there.
    monkeypatch.setattr("internimage.export.openvino._convert", lambda *arguments: shared_core().read_model(exported))
    (tmp_path / "model.bin").write_text("precious")
    with pytest.raises(FileExistsError, match=r"model\.bin exists"):
        export_openvino(network("h"), tmp_path / "model.xml")
    with pytest.raises(ValueError, match=r"end in \.xml"):
        export_openvino(network("h"), tmp_path / "model.onnx")
    assert (tmp_path / "model.bin").read_text() == "precious"


def test_eight_bits_by_calibration(tmp_path: Path) -> None:
    model, seen = network("t"), list[Agreement]()
    images = list(torch.randn(24, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    path = export_openvino(model, tmp_path / "int8.xml", calibration=images, report=seen.append)
    assert [agreement.shape for agreement in seen] == [(1, 3, 64, 64)] * 8 + [(2, 3, 80, 96)]
    # Of random weights; what it costs a trained network is measured by benchmarks.precision.
    assert 1e-4 < max(agreement.error for agreement in seen) < 0.3
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert path.with_suffix(".bin").stat().st_size < 0.5 * 4 * parameters
    compiled = load(path)
    # NNCF's rules for transformers took the height of the calibration images for a number of channels.
    for batch, height, width in SIZES:
        assert compiled({"image": numpy.zeros((batch, 3, height, width), numpy.float32)})["logits"].shape == (batch, 10)
    with pytest.raises(ValueError, match="half and calibration exclude each other"):
        export_openvino(model, tmp_path / "other.xml", calibration=images, half=True)
    with pytest.raises(ValueError, match="calibration holds no images"):
        export_openvino(model, tmp_path / "other.xml", calibration=[])
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        export_openvino(model, tmp_path / "other.xml", calibration=[torch.zeros(1, 4, 64, 64)])
    with pytest.raises(ValueError, match=r"number 1 torch\.float32 of \(1, 3, 32, 64\)"):
        export_openvino(model, tmp_path / "other.xml", calibration=[images[0], torch.zeros(1, 3, 32, 64)])


def test_eight_bits_need_another_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("internimage.export.network.find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(ImportError, match=r"export needs nncf: pip install 'internimage-torch\[int8\]'"):
        export_openvino(network("t"), tmp_path / "int8.xml", calibration=[torch.zeros(1, 3, 64, 64)])
