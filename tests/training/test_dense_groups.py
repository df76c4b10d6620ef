"""Layer decay in detectors and segmenters: against the released rule, counted from the image as its authors count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from internimage import InternImageConfig
from internimage.model.backbone import InternImage
from internimage.model.composite import CompositeInternImage
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.training import param_groups
from internimage.training.param_groups import steps_below_head

T, FEMTO = (4, 4, 18, 4), (1, 1, 2, 1)
# Their number of the first block of each stage; the stem has 0, the head the last one.
FIRST = {T: (1, 5, 9, 27), FEMTO: (1, 2, 3, 5)}
HEAD = {T: 31, FEMTO: 6}


def layer_id(name: str, depths: tuple[int, ...]) -> int:
    """Their number of a layer, from our names: everything of a block, and norms and downsampling by their stage.

    Source: ``get_num_layer_for_swin``, detection/mmcv_custom/custom_layer_decay_optimizer_constructor.py, 31c962d.
    """
    place, *rest = name.removeprefix("backbone.").split(".")
    if place == "stem":
        return 0
    if place != "stages":
        return HEAD[depths]
    stage = int(rest[0])
    if rest[1] in ("downsample", "norm"):
        return FIRST[depths][min(stage + 1, 3)]
    assert rest[1] in ("blocks", "post_norms")
    return FIRST[depths][stage] + int(rest[2])


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("stem.conv1.weight", 31),
        ("stem.norm2.bias", 31),
        ("stages.0.blocks.0.dcn.offset.weight", 30),
        ("stages.0.blocks.3.mlp.fc2.bias", 27),
        ("stages.0.downsample.conv.weight", 26),
        ("stages.0.norm.weight", 26),
        ("stages.1.blocks.0.layer_scale1", 26),
        ("stages.1.downsample.norm.bias", 22),
        ("stages.2.blocks.0.norm1.weight", 22),
        ("stages.2.blocks.1.norm1.weight", 21),
        ("stages.2.blocks.17.norm1.weight", 5),
        ("stages.2.post_norms.0.weight", 22),
        ("stages.2.post_norms.5.weight", 17),
        ("stages.2.downsample.conv.weight", 4),
        ("stages.2.norm.weight", 4),
        ("stages.3.blocks.0.norm1.weight", 4),
        ("stages.3.norm.weight", 4),
        ("stages.3.blocks.3.norm1.weight", 1),
        ("fpn.inner_blocks.0.0.weight", 0),
        ("rpn.head.conv.0.0.weight", 0),
        ("roi_heads.mask_heads.2.convs.0.conv.weight", 0),
        ("decoder.layers.0.blocks.1.weight", 0),
        ("transformer.level_codes", 31),
        ("transformer.encoder.layers.0.sampling_offsets.weight", 0),
    ],
)
@pytest.mark.parametrize("prefix", ["", "backbone.", "network.backbone.", "_orig_mod.backbone."])
def test_steps_by_hand(name: str, steps: int, prefix: str) -> None:
    """For 4, 4, 18 and 4 blocks."""
    assert steps_below_head(prefix + name, T) == steps


@pytest.mark.parametrize("name", ["stages.2.blocks.18.norm1.weight", "stages.4.norm.weight", "stages.4.blocks.0.x"])
def test_a_place_outside_the_backbone_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} lies outside a backbone of depths \(4, 4, 18, 4\)"):
        steps_below_head(name, T)


@pytest.mark.parametrize(("depths", "variant"), [(T, "t"), (FEMTO, "femto")])
@pytest.mark.parametrize("cascade", [False, True])
def test_every_parameter_of_a_detector(depths: tuple[int, ...], variant: str, cascade: bool) -> None:
    config = DetectorConfig.from_variant(variant, num_classes=3, cascade=cascade)
    extra = replace(config.backbone, level2_post_norm_blocks=(0, 1))
    with torch.device("meta"):
        detector = InternImageDetector(replace(config, backbone=extra))
    assert detector.config.backbone.depths == depths
    rates = {"lr": 0.4, "weight_decay": 0.05, "layer_decay": 0.9, "offset_lr_scale": 0.1, "dense": True}
    groups = param_groups(detector, depths=depths, **rates)
    seen: dict[str, float] = {name: group["lr"] for group in groups for name in group["names"]}
    assert len(seen) == sum(len(group["names"]) for group in groups) == len(list(detector.parameters()))
    for name, lr in seen.items():
        slow = 0.1 if ".dcn.offset." in name else 1.0
        assert lr == pytest.approx(0.4 * slow * 0.9 ** (HEAD[depths] - layer_id(name, depths)), rel=1e-12), name
    kinds = ("stem.", "post_norms.", "downsample.", "stages.3.blocks.", "fpn.", "rpn.", "roi_heads.box_heads.")
    assert all(any(kind in name for name in seen) for kind in kinds), "a rule that nothing of it follows"
    assert max(seen.values()) == seen["fpn.inner_blocks.0.0.weight"] == 0.4
    assert seen["backbone.stem.conv1.weight"] == pytest.approx(0.4 * 0.9 ** (sum(depths) + 1))


@pytest.mark.parametrize("dense", [False, True])
def test_both_networks_of_a_composite_decay_as_a_single_one(dense: bool) -> None:
    config = replace(InternImageConfig.from_variant("femto"), level2_post_norm_blocks=(0, 1))
    with torch.device("meta"):
        models = (
            nn.ModuleDict({"backbone": CompositeInternImage(config)}),
            nn.ModuleDict({"backbone": InternImage(config)}),
        )
    composite, single = (
        {name: group for group in groups for name in group["names"]}
        for groups in (
            param_groups(each, lr=0.4, weight_decay=0.05, layer_decay=0.9, dense=dense, depths=config.depths)
            for each in models
        )
    )
    for network in ("assisting.", "lead."):
        own = {name.replace(network, ""): group for name, group in composite.items() if network in name}
        assert own.keys() == {name for name in single if network == "assisting." or "stem" not in name}
        for name, group in own.items():
            assert (group["lr"], group["weight_decay"]) == (single[name]["lr"], single[name]["weight_decay"]), name
    between = {name: group for name, group in composite.items() if "assisting." not in name and "lead." not in name}
    assert len(between) == 6 * 2 + 4
    for name, group in between.items():
        assert (group["lr"], group["weight_decay"]) == (0.4, 0.05 if name.endswith("weight") else 0.0), name


def test_without_layer_decay_all_learn_at_one_rate() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    groups = param_groups(Net(), lr=0.4, weight_decay=0.1, depths=(1,), dense=True)
    assert [(group["lr"], group["weight_decay"], group["names"]) for group in groups] == [
        (0.4, 0.1, ["stem.weight", "head.weight"]),
        (0.4, 0.0, ["stem.bias", "head.bias"]),
    ]


def test_a_classifier_follows_the_other_rule() -> None:
    """There the last block learns at the full rate, and the stem as fast as the first block."""
    with torch.device("meta"):
        detector = InternImageDetector(DetectorConfig.from_variant("femto", num_classes=3))
    settings = {"lr": 1.0, "weight_decay": 0.0, "depths": InternImageConfig.from_variant("femto").depths}
    rates = {
        dense: {
            name: group["lr"]
            for group in param_groups(detector, layer_decay=0.5, dense=dense, **settings)
            for name in group["names"]
        }
        for dense in (False, True)
    }
    last, stem, first = (
        f"backbone.{name}"
        for name in ("stages.3.blocks.0.norm1.weight", "stem.conv1.weight", "stages.0.blocks.0.norm1.weight")
    )
    assert (rates[False][last], rates[True][last]) == (1.0, 0.5)
    assert rates[False][stem] == rates[False][first] == 0.5**4
    assert (rates[True][stem], rates[True][first]) == (0.5**6, 0.5**5)


class Attention(nn.Module):
    """Names and shapes of what the rules of a transformer know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.sampling_offsets = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)
        self.level_codes = nn.Parameter(torch.zeros(4, 2))


def rates(**settings: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by name."""
    groups = param_groups(Attention(), lr=1.0, weight_decay=0.1, depths=(1,), **settings)
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_what_deformable_attention_has_of_its_own() -> None:
    """Source: ``CustomLayerDecayOptimizerConstructor``, as above."""
    assert rates(layer_decay=0.5, lr_scales={"sampling_offsets": 1e-3}, dense=True) == {
        "stem.weight": (0.25, 0.1),
        "level_codes": (0.25, 0.1),
        "sampling_offsets.weight": (1e-3, 0.0),
        "sampling_offsets.bias": (1e-3, 0.0),
    }
    assert rates()["sampling_offsets.weight"] == (1.0, 0.1)


def test_factors_by_parts_of_names_multiply() -> None:
    found = rates(layer_decay=0.5, lr_scales={"stem": 0.1, "weight": 0.5}, dense=True)
    assert found["stem.weight"] == (pytest.approx(0.25 * 0.1 * 0.5), 0.1)
    assert found["sampling_offsets.weight"] == (0.5, 0.0)
    assert found["sampling_offsets.bias"] == (1.0, 0.0)


@pytest.mark.parametrize(
    ("scales", "match"),
    [
        (
            {"backbone": 0.1},
            "lr_scales names 'backbone', which is in no parameter's name; such as level_codes are there",
        ),
        ({"stem": -1.0}, r"lr_scales\['stem'\] must be a number of at least 0, got -1"),
        ({"stem": float("nan")}, r"lr_scales\['stem'\] must be a number of at least 0, got nan"),
    ],
)
def test_wrong_factors_are_named(scales: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        rates(lr_scales=scales)
