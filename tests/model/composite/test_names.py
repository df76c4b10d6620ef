"""Every key and shape of the released composite backbone, in both directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from internimage import InternImageConfig
from internimage.model.checkpoints.convert import to_ours
from internimage.model.checkpoints.official.composite import composite_to_official, composite_to_ours, holds_composite
from internimage.model.composite import CompositeInternImage


@pytest.fixture
def state(base: InternImageConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return CompositeInternImage(base).state_dict()


@pytest.mark.shared
def test_every_key_of_the_record_detectors_backbone(golden: Path) -> None:
    listed = json.loads((golden / "detection/official_detector_state_dicts.json").read_text())
    theirs = {
        key: torch.empty(shape, device="meta")
        for key, shape in listed["dino_4scale_cbinternimage_h_objects365_coco"].items()
    }
    with torch.device("meta"):
        model = CompositeInternImage(InternImageConfig.from_variant("h"))
    converted = composite_to_ours(theirs)
    assert converted.origin == "official"
    assert {key.split(".")[0] for key in converted.foreign} == {"bbox_head", "neck"}
    assert {key: each.shape for key, each in converted.state.items()} == {
        f"backbone.{key}": each.shape for key, each in model.state_dict().items()
    }
    back = {f"backbone.{key}": each.shape for key, each in composite_to_official(converted.state).items()}
    assert back == {key: each.shape for key, each in theirs.items() if key.startswith("backbone.")}


def test_a_link_keeps_its_two_stages(state: dict[str, Tensor]) -> None:
    official = composite_to_official(state)
    assert official["cb_linears.1.2.weight"] is state["links.1.3.weight"]
    assert official["cb_modules.1.gamma3"] is state["gammas.3"]
    assert official["cb_modules.1.levels.0.blocks.0.norm1.0.bias"] is state["lead.stages.0.blocks.0.norm1.bias"]
    back = composite_to_ours(official).state
    assert len(back) == len(state)
    assert all(back[f"backbone.{key}"] is each for key, each in state.items())


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
def test_our_names_are_known_under_any_prefix(state: dict[str, Tensor], prefix: str) -> None:
    other = torch.zeros(1)
    named = {prefix + key: each for key, each in state.items()} | {"neck.0.weight": other, prefix + "fpn.weight": other}
    assert holds_composite(named)
    converted = composite_to_ours(named)
    assert (converted.origin, converted.foreign) == ("ours", ("neck.0.weight", prefix + "fpn.weight"))
    assert converted.state.keys() == {f"backbone.{key}" for key in state}


@pytest.mark.parametrize("official", [False, True])
def test_a_single_backbone_refuses_both_networks_and_takes_one(state: dict[str, Tensor], official: bool) -> None:
    named = composite_to_official(state) if official else state
    with pytest.raises(ValueError, match=r"holds 2 InternImages, under .*; extract one"):
        to_ours(named)
    mark = "cb_modules.0." if official else "assisting."
    one = to_ours({key: each for key, each in named.items() if key.startswith(mark)})
    assert not one.foreign
    assert len(one.state) == sum(key.startswith("assisting.") for key in state)


def test_what_is_no_composite_is_refused(state: dict[str, Tensor]) -> None:
    single = {key: each for key, each in state.items() if key.startswith("assisting.")}
    assert not holds_composite(single)
    for wrong in (single, {}):
        with pytest.raises(ValueError, match="not a composite backbone's weights"):
            composite_to_ours(wrong)
    with pytest.raises(ValueError, match=r"no name in the released composite backbone: links\.9\.9\.weight"):
        composite_to_official(state | {"links.9.9.weight": torch.zeros(1)})
