"""DCNv3 alone in other runtimes: every geometry, rule and wild offset, against our operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from internimage import dcnv3
from internimage.export import export_onnx, export_openvino
from internimage.export.network import relative_error
from internimage.export.openvino import shared_core
from internimage.ops.dcnv3 import DCNv3Geometry

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"offset_scale": 2.0},
    "uneven": {"dilation": (2, 1), "stride": (1, 2), "padding": (2, 1)},
    # Dilation times an odd reach: the middle lies between two points.
    "even_kernel": {"kernel_size": (2, 4), "dilation": (1, 3), "padding": (1, 5), "offset_scale": 0.5},
    "no_center": {"remove_center": True, "offset_scale": 1.5},
}
FORMS = ("deform_conv", "grid_sample", "openvino")
# Every geometry and every rule; what one can show alone is slow.
PAIRS = (("uneven", "sigmoid"), ("even_kernel", "none"), ("no_center", "softmax"))
ALONE = (*((name, "softmax") for name in GEOMETRIES if name != "no_center"), ("plain", "sigmoid"), ("plain", "none"))
SLOW = pytest.mark.slow
HOSTILE = {"far": 1e4, "past_int32": 1e10, "past_int64": 1e30, "infinite": float("inf"), "nan": float("nan")}


class Layer(nn.Module):
    """The operator alone: 2 groups of 8 channels from 16, offsets and modulation that differ from place to place."""

    def __init__(self, options: dict[str, Any], normalize: str = "softmax") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.geometry = DCNv3Geometry.make(**options)
        self.options, self.normalize, points = options, normalize, self.geometry.num_points
        self.offset = nn.Parameter(torch.randn(2, points, 2, generator=generator) * 2 + 0.4)
        self.mask = nn.Parameter(torch.randn(2, points, generator=generator))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        geometry = self.geometry
        window = torch.full((1, 1, *geometry.kernel_size), 0.1)
        window_sum = torch.conv2d(
            image[:, :1], window, None, geometry.stride, geometry.padding, geometry.dilation
        ).permute(0, 2, 3, 1)
        value = image.permute(0, 2, 3, 1).unflatten(3, (2, 8))
        offset, mask = self.offset + window_sum[..., None, None], self.mask + window_sum[..., None]
        return dcnv3(value, offset, mask, normalize=self.normalize, **self.options).flatten(3)


def run(form: str, layer: Layer, image: Tensor, folder: Path) -> Tensor:
    """What another runtime computes; the export itself compares at three more sizes."""
    if form == "openvino":
        path = export_openvino(layer, folder / "layer.xml", example=image)
        model = shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return torch.from_numpy(model({0: image.numpy()})[0])
    path = export_onnx(layer, folder / "layer.onnx", example=image, sampling=form)  # pyright: ignore
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def image() -> Tensor:
    return torch.randn(2, 16, 20, 23, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "normalize"), [*PAIRS, *(pytest.param(*pair, marks=SLOW) for pair in ALONE)])
def test_geometries_and_rules(form: str, name: str, normalize: str, tmp_path: Path) -> None:
    layer = Layer(GEOMETRIES[name], normalize)
    expected = layer(image())
    assert relative_error(run(form, layer, image(), tmp_path), expected) <= 4e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [[*HOSTILE], *(pytest.param([name], marks=SLOW) for name in HOSTILE)], ids="-".join)
def test_wild_offsets_are_off_the_map(form: str, names: list[str], tmp_path: Path) -> None:
    layer = Layer({})
    for point, name in enumerate(names):
        # GridSample takes NaN for a place, as `export_onnx` says.
        if (form, name) != ("grid_sample", "nan"):
            layer.offset[0, point, 0], layer.offset[1, point + 2, 1] = HOSTILE[name], -HOSTILE[name]
    expected = layer(image())
    assert expected.isfinite().all()
    assert relative_error(run(form, layer, image(), tmp_path), expected) <= 4e-6


def test_the_left_out_middle_is_not_seen(tmp_path: Path) -> None:
    """A large pixel there, and none around it: whoever sampled it would show it."""
    layer = Layer({"remove_center": True}, "none")
    layer.offset.zero_()
    centre = torch.zeros(1, 16, 3, 3)
    centre[..., 1, 1] = 1e30
    for form in ("deform_conv", "openvino"):
        found = run(form, layer, centre, tmp_path / form)
        assert found[0, 1, 1].abs().max() == 0
