"""Our backbone's maps, and transformers' segmenters and detectors on top of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from transformers import (
    AutoBackbone,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerModel,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from internimage.integrations.transformers import InternImageBackbone, InternImageConfig
from internimage.model import InternImage

SMALL = {"channels": 16, "depths": [1, 1, 1, 1], "groups": [1, 2, 4, 8]}
ALL, LAST_THREE = ["stage1", "stage2", "stage3", "stage4"], ["stage2", "stage3", "stage4"]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_maps_are_our_own() -> None:
    config = InternImageConfig(**SMALL, out_features=["stem", "stage2", "stage4"])
    model = AutoBackbone.from_config(config).eval()
    assert isinstance(model, InternImageBackbone)
    assert isinstance(model.backbone, InternImage)
    assert model.channels == [16, 32, 128]
    out = model(IMAGES, output_hidden_states=True)
    expected = model.backbone(IMAGES)
    assert [tuple(map.shape[1:]) for map in out.feature_maps] == [(16, 16, 16), (32, 8, 8), (128, 2, 2)]
    assert [tuple(map.shape) for map in out.hidden_states][1:] == [tuple(map.shape) for map in expected]
    assert all(torch.equal(*pair) for pair in zip(out.hidden_states[1:], expected, strict=True))
    assert torch.equal(out.feature_maps[1], expected[1])
    assert torch.equal(out.feature_maps[0], model.backbone.forward_stem(IMAGES).permute(0, 3, 1, 2))
    assert model(IMAGES).hidden_states is None
    maps, hidden_states = model(IMAGES, output_hidden_states=True, return_dict=False)
    assert (len(maps), len(hidden_states)) == (3, 5)


def test_wrong_images_are_told_in_our_words() -> None:
    model = InternImageBackbone(InternImageConfig(**SMALL))
    with pytest.raises(ValueError, match=r"must be a batch \(N, 3, H, W\)"):
        model(IMAGES[0])
    with pytest.raises(ValueError, match="floating point"):
        model((255 * IMAGES).byte())


def upernet(backbone: Any) -> Any:
    return UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=3, auxiliary_in_channels=64)
    )


def mask2former(backbone: Any, whole: bool = False) -> Any:
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "dim_feedforward": 16}
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=4, num_labels=3, **sizes, **layers)
    # Its loss wants scipy as soon as it is built; the rest of the model does not.
    return Mask2FormerForUniversalSegmentation(config) if whole else Mask2FormerModel(config)


DETR = {"d_model": 32, "num_queries": 5, "num_labels": 3, "encoder_layers": 1, "decoder_layers": 2}
DETR |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
DETR |= {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
RT_DETR = {"encoder_hidden_dim": 16, "encoder_in_channels": [32, 64, 128], "feat_strides": [8, 16, 32], "num_labels": 3}
RT_DETR |= {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_denoising": 0, "num_queries": 5}
RT_DETR |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
RT_DETR |= {"decoder_in_channels": [16, 16, 16], "decoder_layers": 2}


def detr(backbone: Any) -> Any:
    return DetrForObjectDetection(DetrConfig(backbone_config=backbone, **DETR))


def deformable_detr(backbone: Any) -> Any:
    return DeformableDetrForObjectDetection(
        DeformableDetrConfig(backbone_config=backbone, num_feature_levels=3, **DETR)
    )


def rt_detr_v2(backbone: Any) -> Any:
    return RTDetrV2ForObjectDetection(RTDetrV2Config(backbone_config=backbone, **RT_DETR))


def d_fine(backbone: Any) -> Any:
    return DFineForObjectDetection(DFineConfig(backbone_config=backbone, **RT_DETR))


MODELS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "upernet": (upernet, ALL),
    "mask2former": (mask2former, ALL),
    "detr": (detr, ["stage4"]),
    "deformable_detr": (deformable_detr, LAST_THREE),
    "rt_detr_v2": (rt_detr_v2, LAST_THREE),
    "d_fine": (d_fine, LAST_THREE),
}
ANSWERS = ("logits", "pred_boxes", "transformer_decoder_last_hidden_state", "pixel_decoder_last_hidden_state")


@pytest.mark.parametrize("as_dict", [False, True], ids=["config", "dict"])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers_train_with_our_backbone(name: str, as_dict: bool, tmp_path: Path) -> None:
    build, stages = MODELS[name]
    settings = SMALL | {"out_features": stages}
    model = build(settings | {"model_type": "internimage"} if as_dict else InternImageConfig(**settings)).train()
    (backbone,) = find(model)
    assert backbone.out_features == stages
    out = model(pixel_values=IMAGES)
    answers = [out[key] for key in ANSWERS if key in out]
    assert len(answers) == (1 if name == "upernet" else 2)
    sum(answer.square().sum() for answer in answers).backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []
    block = backbone.backbone.stages[3].blocks[0]
    assert all(layer.weight.grad.any() for layer in (block.dcn.offset, block.dcn.mask, block.mlp.fc1))
    model.save_pretrained(tmp_path)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    (theirs,) = find(again)
    assert theirs.config.to_internimage() == backbone.config.to_internimage()
    assert all(torch.equal(*pair) for pair in zip(theirs.parameters(), backbone.parameters(), strict=True))


def labels_for(name: str) -> dict[str, Any]:
    if name == "upernet":
        return {"labels": torch.arange(3).repeat_interleave(22)[:64].expand(2, 64, 64).contiguous()}
    if name == "mask2former":
        masks = torch.zeros(2, 2, 64, 64)
        masks[:, 0, :32], masks[:, 1, 32:] = 1, 1
        return {"mask_labels": list(masks), "class_labels": [torch.tensor([0, 2])] * 2}
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.6], [0.3, 0.3, 0.2, 0.2]])
    return {"labels": [{"class_labels": torch.tensor([0, 2]), "boxes": boxes}] * 2}


@pytest.mark.parametrize("name", MODELS)
def test_their_losses_reach_our_operator(name: str) -> None:
    if name != "upernet":
        pytest.importorskip("scipy", reason="transformers matches queries and objects with scipy")
    build, stages = MODELS[name]
    config = InternImageConfig(**SMALL, out_features=stages)
    model = (mask2former(config, whole=True) if name == "mask2former" else build(config)).train()
    loss = model(pixel_values=IMAGES, **labels_for(name)).loss
    loss.backward()
    assert loss.isfinite()
    (backbone,) = find(model)
    assert backbone.backbone.stages[3].blocks[0].dcn.offset.weight.grad.any()


def find(model: torch.nn.Module) -> list[InternImageBackbone]:
    return [module for module in model.modules() if isinstance(module, InternImageBackbone)]


def test_checkpointing_reaches_a_backbone_inside() -> None:
    (backbone,) = find(detr(InternImageConfig(**SMALL)))
    assert backbone.supports_gradient_checkpointing
    # What every transformers version calls in the end.
    for enable in (True, False):
        backbone._set_gradient_checkpointing(enable=enable)
        assert [stage.gradient_checkpointing for stage in backbone.backbone.stages] == [enable] * 4
