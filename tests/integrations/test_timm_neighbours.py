"""Libraries that build on timm: segmentation_models_pytorch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

timm = pytest.importorskip("timm")

import internimage.integrations.timm  # noqa: E402, F401

# DPT would mix in a class token, which no convolutional network has.
HEADS: dict[str, dict[str, Any]] = {
    "Unet": {},
    "UnetPlusPlus": {},
    "FPN": {},
    "UPerNet": {},
    "Segformer": {},
    "DPT": {"decoder_readout": "ignore"},
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_segmentation_models_pytorch(head: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model: Any = getattr(smp, head)("tu-internimage_t", encoder_weights=None, classes=3, **HEADS[head])
    # Multiples of 32, as these heads want them, with maps of odd sizes.
    scores = model(torch.rand(2, 3, 96, 160))
    assert scores.shape == (2, 3, 96, 160)
    (scores * torch.randn_like(scores)).mean().backward()
    idle = [key for key, parameter in model.encoder.named_parameters() if parameter.grad is None]
    # DPT takes a whole classifier and leaves its head alone.
    assert not [key for key in idle if not key.startswith("model.head.")]
    assert bool(idle) == (head == "DPT")
    assert model.encoder.out_channels[-4:] == [64, 128, 256, 512]


@torch.no_grad()
def test_fewer_stages_and_other_channels() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model: Any = smp.Unet(
        "tu-internimage_femto",
        encoder_weights=None,
        encoder_depth=3,
        decoder_channels=(32, 16, 8),
        in_channels=5,
        drop_path_rate=0.3,
    )
    assert model.eval()(torch.rand(1, 5, 32, 48)).shape == (1, 1, 32, 48)
    assert model.encoder.out_channels == [5, 0, 24, 48]
    with pytest.raises(ValueError, match="unknown settings"):
        smp.DeepLabV3Plus("tu-internimage_femto", encoder_weights=None, encoder_output_stride=16)


@torch.no_grad()
def test_transformers_classifies(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmWrapperConfig(architecture="internimage_femto", num_labels=4)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    images = torch.rand(2, 3, 64, 96)
    found = model(images, output_hidden_states=True)
    assert found.logits.shape == (2, 4)
    assert torch.equal(found.logits, model(images).logits)
    assert [each.shape[1] for each in found.hidden_states] == [24, 48, 96, 192]
    assert model.supports_gradient_checkpointing
    model.save_pretrained(tmp_path)
    again = transformers.TimmWrapperForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(again(images).logits, found.logits)
    bare = transformers.TimmWrapperModel(config).eval()(images)
    assert bare.pooler_output.shape == bare.last_hidden_state.shape[:2] == (2, 288)


@torch.no_grad()
def test_transformers_takes_a_backbone() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmBackboneConfig(backbone="internimage_femto", out_indices=[1, 3])
    backbone = transformers.TimmBackbone(config).eval()
    maps = backbone(torch.rand(1, 3, 65, 47)).feature_maps
    assert [tuple(each.shape) for each in maps] == [(1, 48, 9, 6), (1, 192, 3, 2)]
    assert backbone.channels == [48, 192]
