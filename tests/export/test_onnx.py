"""ONNX files: onnxruntime computes what the network does, at any size, by standard operators alone."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from export.scattered import NETWORKS, network
from internimage.export import Agreement, check_onnx, export_onnx
from internimage.export.network import relative_error
from internimage.export.openvino import shared_core

# Of the released code's exports, these went wrong: other than the traced size, more than one image.
SIZES = ((1, 224, 224), (2, 160, 192), (1, 250, 333), (3, 33, 47))


def run(path: Path, image: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(each) for each in session.run(None, {"image": image.numpy()})]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H in small, in a folder of its own that was not there."""
    return export_onnx(network("h"), tmp_path_factory.mktemp("onnx") / "new" / "model.onnx")


@pytest.fixture(scope="module")
def grid_sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by the other operator."""
    return export_onnx(network("h"), tmp_path_factory.mktemp("onnx") / "model.onnx", sampling="grid_sample")


def operators_of(path: Path) -> set[str]:
    """Which of the two DCNv3 rests on."""
    return {node.op_type for node in onnx.load(path).graph.node} & {"DeformConv", "GridSample"}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_at_every_size(name: str, exported: Path, tmp_path: Path) -> None:
    path = exported if name == "h" else export_onnx(network(name), tmp_path / "model.onnx")
    assert operators_of(path) == {"DeformConv"}
    assert_right_at_every_size(path, name)


def test_logits_by_grid_sample(grid_sampled: Path) -> None:
    assert operators_of(grid_sampled) == {"GridSample"}
    assert_right_at_every_size(grid_sampled, "h")


def assert_right_at_every_size(path: Path, name: str) -> None:
    model = network(name)
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, height, width)
        (logits,) = run(path, image)
        with torch.inference_mode():
            assert relative_error(logits, model(image)) <= 1e-5
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_maps_names_and_operators(tmp_path: Path) -> None:
    model = network("t", features_only=True, in_chans=2)
    path = export_onnx(model, tmp_path / "maps.onnx", metadata={"labels": ["Æther"]})
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    (image,) = file.graph.input
    assert [size.dim_param or size.dim_value for size in image.type.tensor_type.shape.dim] == [
        "batch",
        2,
        "height",
        "width",
    ]
    assert [output.name for output in file.graph.output] == ["stage1", "stage2", "stage3", "stage4"]
    assert {node.domain for node in file.graph.node} == {""}
    assert sum(node.op_type == "DeformConv" for node in file.graph.node) == 4
    assert not file.functions
    # Nor where it was made: the exporter's notes hold whole tracebacks.
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    assert json.loads({each.key: each.value for each in file.metadata_props}["internimage"]) == {"labels": ["Æther"]}
    image = torch.randn(1, 2, 70, 90)
    with torch.inference_mode():
        for found, expected in zip(run(path, image), model(image), strict=True):
            assert relative_error(found, expected) <= 1e-5


def test_grid_sample_for_another_runtime(grid_sampled: Path) -> None:
    """OpenVINO's reader of ONNX has no DeformConv."""
    model = network("h")
    compiled = shared_core().compile_model(grid_sampled, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = torch.randn(2, 3, 75, 109)
    with torch.inference_mode():
        assert relative_error(torch.from_numpy(compiled({"image": image.numpy()})["logits"]), model(image)) <= 1e-5


def test_half_precision(tmp_path: Path) -> None:
    model = network("t")
    path = export_onnx(model, tmp_path / "half.onnx", half=True)
    assert next(model.parameters()).dtype == torch.float32
    assert path.stat().st_size < 0.6 * 4 * sum(parameter.numel() for parameter in model.parameters())
    image = torch.randn(2, 3, 64, 96)
    (logits,) = run(path, image.half())
    assert logits.dtype == torch.float16
    with torch.inference_mode():
        assert relative_error(logits.float(), model(image)) <= 2e-2


def test_a_network_around_ours(tmp_path: Path) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = network("t", features_only=True)
            self.stem, self.stage = whole.stem, whole.stages[0]

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first_NHWC = self.stage(self.stem(image))
            return first_NHWC.mean((1, 2)), first_NHWC.amax((1, 2))

    model = Around().eval()
    with pytest.raises(ValueError, match="for a Around, which is none of ours, give an example"):
        export_onnx(model, tmp_path / "around.onnx")
    path = export_onnx(model, tmp_path / "around.onnx", example=torch.randn(1, 3, 50, 60))
    assert [output.name for output in onnx.load(path).graph.output] == ["output1", "output2"]


def test_a_file_that_differs_is_refused(exported: Path) -> None:
    """One bias of one layer of offsets: half a pixel in one group."""
    model = network("h")
    seen: list[Agreement] = []
    assert check_onnx(model, exported, report=seen.append) == seen
    assert [agreement.holds for agreement in seen] == [True, True, True]
    with torch.no_grad():
        model.backbone.stages[2].blocks[0].dcn.offset.bias[0] += 0.5
    with pytest.raises(ValueError, match=r"model\.onnx does not compute .* 1 x 3 x 64 x 64: DIFFERS"):
        check_onnx(model, exported)


def test_bad_input(tmp_path: Path) -> None:
    model, path = network("t"), tmp_path / "model.onnx"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="exists; choose another name"):
        export_onnx(model, path)
    with pytest.raises(ValueError, match=r"end in \.onnx, got"):
        export_onnx(model, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        export_onnx(model, path, example=torch.zeros(1, 3, 64, 64, dtype=torch.long))
    with pytest.raises(ValueError, match=r"batch \(N, 3, H, W\)"):
        export_onnx(model, path, example=torch.zeros(1, 4, 64, 64))
    with pytest.raises(ValueError, match="takes float32 weights"):
        export_onnx(network("t").double(), path)
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"):
        export_onnx(model.train(), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("internimage.export.network.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ImportError, match=r"export needs onnxscript: pip install 'internimage-torch\[export\]'"):
        export_onnx(network("t"), tmp_path / "model.onnx")


def test_a_failed_export_replaces_nothing(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Program:
        model = onnx_ir.load(exported)

        def save(self, path: Path) -> None:
            path.write_bytes(exported.read_bytes())

    model, path = network("h"), tmp_path / "model.onnx"
    path.write_text("before")
    monkeypatch.setattr("internimage.export.onnx._convert", lambda *arguments: Program())
    with torch.no_grad():
        model.head.fc.bias[0] += 10
    with pytest.raises(ValueError, match="does not compute what the network does"):
        export_onnx(model, path, overwrite=True)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
