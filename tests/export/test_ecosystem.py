"""timm's and transformers' forms of the network, and heads on it, as files; the export compares them at four sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import segmentation_models_pytorch
import timm
import torch
from torch import Tensor, nn
from transformers import UperNetConfig, UperNetForSemanticSegmentation

import internimage.integrations.timm  # noqa: F401 (registers the names)
from export.scattered import CONFIGS
from internimage import InternImageConfig
from internimage.export import Agreement, export_onnx, export_openvino
from internimage.integrations import transformers as internimage_hf
from support.networks import off_the_grid

FEMTO = InternImageConfig.from_variant("femto")


class Scores(nn.Module):
    """Tensors in place of transformers' output classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).logits


def timm_features() -> nn.Module:
    return timm.create_model("internimage_femto", features_only=True)


def classifier_of_transformers() -> nn.Module:
    config = internimage_hf.InternImageConfig.from_internimage(CONFIGS["h"], num_labels=3)
    return Scores(internimage_hf.InternImageForImageClassification(config))


def unet() -> nn.Module:
    return segmentation_models_pytorch.Unet("tu-internimage_femto", encoder_weights=None, classes=3)


def upernet() -> nn.Module:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = internimage_hf.InternImageConfig.from_internimage(FEMTO, out_features=stages)
    config = UperNetConfig(backbone_config=backbone, hidden_size=32, auxiliary_in_channels=96, num_labels=3)
    return Scores(UperNetForSemanticSegmentation(config))


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        # It stands on what the third is, timm's features; what the others export, other tests of this folder do, too.
        (unet, ".onnx"),
        pytest.param(upernet, ".xml", marks=pytest.mark.slow),
        pytest.param(timm_features, ".onnx", marks=pytest.mark.slow),
        pytest.param(classifier_of_transformers, ".onnx", marks=pytest.mark.slow),
    ],
)
def test_as_a_file(make: Callable[[], nn.Module], suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, seen = off_the_grid(make()).eval(), list[Agreement]()
    export = export_onnx if suffix == ".onnx" else export_openvino
    export(model, tmp_path / f"model{suffix}", example=torch.randn(1, 3, 64, 96), report=seen.append)
    assert [agreement.shape for agreement in seen][-1] == (1, 3, 64, 96)
    assert len(seen) == 4
