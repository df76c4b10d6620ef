"""What a detector of the DETR family can be made of, and what it says of the rest."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from internimage import InternImageConfig, create_model, load_checkpoint, save_checkpoint
from internimage.model.detection import Objects
from internimage.model.detection.detr import DetrConfig, InternImageDetr, transformer
from internimage.structures import Placement

BACKBONE = InternImageConfig.stacked(8, 8, 1, 1, num_classes=0)
SMALL = {"d_model": 32, "encoder_hidden_dim": 32, "num_queries": 12, "encoder_layers": 1, "decoder_layers": 2}


def test_options_come_back_from_a_file_as_they_were() -> None:
    config = DetrConfig.from_variant("femto", num_classes=3, family="d_fine", options={"decoder_n_points": (3, 6, 3)})
    assert config.backbone == InternImageConfig.from_variant("femto", num_classes=0)
    assert config.options == {"decoder_n_points": [3, 6, 3]}
    assert replace(config, options=json.loads(json.dumps(config.options))) == config
    assert hash(config) == hash(replace(config, options={}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "detr"}, "family must be one of deformable_detr, rt_detr_v2, d_fine, got 'detr'"),
        ({"num_classes": 0}, "num_classes and detections must be at least 1, got 0 and 100"),
        ({"masks": True}, "rt_detr_v2 finds boxes, no masks; leave masks out, or take a DetectorConfig for masks"),
        ({"options": {"dropout": torch.zeros(1)}}, "options must be made of values that JSON knows: .* Tensor"),
        ({"options": ["num_queries"]}, "options must be names and values of settings"),
    ],
)
def test_wrong_configurations(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetrConfig(BACKBONE, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_querys": 5}, r"unknown setting 'num_querys'; did you mean num_queries\?$"),
        ({"masks": True}, "unknown setting 'masks'; known are activation_dropout, "),
        ({"encoder_in_channels": [8, 8, 8]}, "the detector sets encoder_in_channels itself; leave it out$"),
        ({"num_queries": "many"}, "^options of rt_detr_v2: .*'num_queries' expected int, got str"),
        ({"num_feature_levels": 4}, "num_feature_levels must be 1 to 3, got 4"),
        ({"d_model": 36}, "^options of rt_detr_v2: .*"),
    ],
)
def test_wrong_options_are_told_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        InternImageDetr(DetrConfig(BACKBONE, options=options))
    assert "\n" not in str(caught.value)


def test_sizes_that_the_family_cannot_take() -> None:
    model = InternImageDetr(DetrConfig(BACKBONE, options=SMALL | {"num_queries": 30})).eval()
    with pytest.raises(ValueError, match="sides must be multiples of 32 pixels, got 64 x 80; pad the images"):
        model(torch.zeros(1, 3, 64, 80))
    with pytest.raises(ValueError, match="32 x 32 pixels have 21 positions for 30 queries; take larger images, or"):
        model(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("family", "levels"), [("rt_detr_v2", 2), ("d_fine", 1), ("deformable_detr", 1)])
def test_fewer_levels(family: Any, levels: int) -> None:
    options = SMALL | {"num_feature_levels": levels, "encoder_attention_heads": 2, "num_queries": 4}
    if family == "deformable_detr":
        del options["encoder_hidden_dim"]
    model = InternImageDetr(DetrConfig(BACKBONE, 1, family, options)).train()
    truth = Objects(torch.tensor([[10.0, 10, 40, 40]]), torch.tensor([0]))
    losses = model.losses(torch.rand(2, 3, 64, 96), [truth, truth], [Placement((64, 96), (64, 96))] * 2)
    torch.stack(list(losses.values())).sum().backward()
    assert model.backbone.stages[0].blocks[0].dcn.offset.weight.grad is not None


def test_a_classifiers_weights_fit_the_backbone(tmp_path: Path) -> None:
    classifier = create_model(replace(BACKBONE, num_classes=10))
    path = save_checkpoint(classifier, tmp_path / "classifier.safetensors")
    model = InternImageDetr(DetrConfig(BACKBONE, options=SMALL))
    report = load_checkpoint(model.backbone, path)
    assert report.missing == ()
    assert torch.equal(model.backbone.stem.conv1.weight, classifier.backbone.stem.conv1.weight)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = r"need scipy to train: pip install 'internimage-torch\[detection,transformers\]'"
    model = InternImageDetr(DetrConfig(BACKBONE, options=SMALL)).train()
    monkeypatch.setattr(transformer, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=needed):
        model.losses(torch.rand(1, 3, 64, 64), [Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"need transformers: .*internimage-torch\[detection,transformers\]"):
        InternImageDetr(DetrConfig(BACKBONE))
