"""DINO against the released one, on one backbone and on a composite: the same weights give the same boxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from internimage.model.checkpoints.official.dino import dino_to_official, dino_to_ours
from internimage.model.detection.dino import DinoConfig, InternImageDino
from internimage.model.detection.dino.positions import lay_out
from support.compare import relative_rms

from .conftest import Official

pytestmark = pytest.mark.shared


def test_from_features_to_references(official: Official) -> None:
    """Everything between the picture and the last layer's boxes; measured 1e-6 to 3e-6."""
    model, wanted = official.detector, official.tensors
    with torch.no_grad():
        maps = model.backbone(wanted["input"])
        answers = model.answers(maps, tuple(wanted["input"].shape[-2:]), official.placements)
        tokens = model.neck(maps[1:])
    for level, each in enumerate(tokens):
        assert relative_rms(each, wanted[f"neck.{level}"]) < 1e-5
    found = {
        "encoder.memory": answers.memory,
        "topk.cls_logits": answers.proposed_logits,
        "topk.boxes_cxcywh": answers.proposed_boxes,
        "decoder.references": answers.references,
        "decoder.cls_logits": answers.logits,
        "decoder.boxes_cxcywh": answers.boxes,
    }
    for name, each in found.items():
        assert relative_rms(each, wanted[name]) < 1e-5, name


def test_places_and_padding(official: Official) -> None:
    wanted = official.tensors
    shapes = [wanted[f"neck.{level}"] for level in range(4)]
    layout = lay_out(shapes, tuple(wanted["input"].shape[-2:]), official.placements)
    assert layout.valid is not None
    masks = [wanted[f"pad_mask.{level}"].flatten(1) == 0 for level in range(4)]
    assert torch.equal(layout.valid, torch.cat(masks, 1))
    if "pos_embed.0" in wanted:
        codes = torch.cat([wanted[f"pos_embed.{level}"].flatten(2).transpose(1, 2) for level in range(4)], 1)
        assert relative_rms(layout.codes, codes) < 1e-6


def test_final_boxes(official: Official) -> None:
    with torch.no_grad():
        found = official.detector(official.tensors["input"], official.placements)
    for number, each in enumerate(found):
        assert torch.equal(each.labels, official.tensors[f"final.{number}.labels"].long())
        assert torch.allclose(each.scores, official.tensors[f"final.{number}.scores"], rtol=0, atol=5e-5)
        assert torch.allclose(each.boxes, official.tensors[f"final.{number}.boxes"], rtol=0, atol=5e-3)


def test_every_weight_has_its_place_and_goes_back(official: Official) -> None:
    converted = dino_to_ours(official.state)
    assert not converted.foreign
    back = dino_to_official(converted.state)
    assert back.keys() == official.state.keys()
    assert all(torch.equal(back[key], each) for key, each in official.state.items())


@pytest.mark.parametrize(
    ("listed", "variant", "composite", "parameters"),
    [
        ("dino_4scale_internimage_t", "t", False, 48_736_828),
        ("dino_4scale_internimage_l", "l", False, 241_033_214),
        ("dino_4scale_internimage_h_objects365", "h", False, 1_098_725_884),
        ("dino_4scale_cbinternimage_h_objects365_coco", "h", True, 2_178_558_124),
    ],
)
def test_released_key_lists(golden: Path, listed: str, variant: str, composite: bool, parameters: int) -> None:
    lists = json.loads((golden / "detection/official_detector_state_dicts.json").read_text())
    with torch.device("meta"):
        model = InternImageDino(DinoConfig.from_variant(variant, composite=composite))
        theirs = {key: torch.empty(shape) for key, shape in lists[listed].items()}
    assert sum(each.numel() for each in model.parameters()) == parameters
    converted = dino_to_ours(theirs)
    assert not converted.foreign
    shapes = {key: each.shape for key, each in model.state_dict().items()}
    assert {key: each.shape for key, each in converted.state.items()} == shapes
    back = {key: each.shape for key, each in dino_to_official(converted.state).items()}
    assert back == {key: each.shape for key, each in theirs.items()}
