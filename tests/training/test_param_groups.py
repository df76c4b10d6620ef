"""Which parameter learns how fast: against the official rule, written here from its own key names."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch
from torch import nn

from internimage import DCNv3, InternImageConfig, create_model
from internimage.model.checkpoints.convert import to_official
from internimage.training import param_groups
from internimage.training.param_groups import blocks_after

RATE, DECAY, RATIO, SLOW = 0.4, 0.05, 0.9, 0.01


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name)


def official_names(model: nn.Module) -> dict[str, str]:
    """Our parameter name -> the official one, found by giving every weight a number that survives the renaming."""
    ours = {name: torch.tensor(number) for number, name in enumerate(model.state_dict())}
    theirs = {int(tensor): name for name, tensor in to_official(ours).items()}
    assert len(theirs) == len(ours), "two weights got one name"
    return {name: theirs[int(tensor)] for name, tensor in ours.items()}


def official_scale(name: str, depths: tuple[int, ...], ratio: float, slow: float) -> float:
    """The released rule: keyword -> scale from the last block backwards, the first keyword found in the name counts."""
    scales: dict[str, float] = {}
    index = 0
    for level in reversed(range(len(depths))):
        for block in reversed(range(depths[level])):
            scales[f"levels.{level}.blocks.{block}."] = ratio**index
            index += 1
    scales["patch_embed"] = scales["levels.0.blocks.0."]
    for level in range(len(depths) - 1):
        for part in ("downsample", "norm"):
            scales[f"levels.{level}.{part}"] = scales[f"levels.{level + 1}.blocks.0."]
    scale = next((value for keyword, value in scales.items() if keyword in name), 1.0)
    slowed = ("offset", "attention_weights", "center_feature_scale_proj", "alpha_beta")
    return scale * (slow if any(word in name for word in slowed) else 1.0)


@pytest.mark.parametrize("variant", ["t", "s", "h"])
def test_every_parameter_follows_the_official_rule(variant: str) -> None:
    model = on_meta(f"internimage_{variant}")
    depths = InternImageConfig.from_variant(variant).depths
    groups = param_groups(model, lr=RATE, weight_decay=DECAY, depths=depths, layer_decay=RATIO, offset_lr_scale=SLOW)
    parameters, official = dict(model.named_parameters()), official_names(model)
    seen: set[str] = set()
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert parameter is parameters[name], name
            assert name not in seen, f"{name} is in two groups"
            seen.add(name)
            scale = official_scale(official[name], depths, RATIO, SLOW)
            assert group["lr"] == pytest.approx(RATE * scale, rel=1e-12), (name, official[name])
            one_dimensional = parameter.dim() == 1 or official[name].endswith(".bias")
            assert group["weight_decay"] == (0.0 if one_dimensional else DECAY), name
    assert seen == set(parameters)


def test_the_oracle_sees_every_kind_of_place() -> None:
    """The comparison above means something: all rules apply to some parameter of H."""
    names = official_names(on_meta("internimage_h")).values()
    patterns = ("patch_embed.*", "levels.2.post_norms.0.*", "levels.3.norm.*", "levels.0.downsample.conv.*")
    patterns += ("*center_feature_scale_proj_weight", "*.dcn.mask.weight", "head.*", "levels.1.blocks.1.*")
    for pattern in patterns:
        assert any(fnmatch(name, pattern) for name in names), pattern
    assert official_scale("levels.2.post_norms.0.0.weight", (6, 6, 32, 6), RATIO, SLOW) == 1.0
    assert official_scale("levels.0.blocks.1.dcn.mask.weight", (6, 6, 32, 6), RATIO, SLOW) == RATIO**48


def test_without_layer_decay_only_offsets_and_decay_divide() -> None:
    model = create_model("internimage_femto", num_classes=3)
    groups = param_groups(model, lr=RATE, weight_decay=DECAY, depths=model.config.depths, offset_lr_scale=0.5)
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {
        (RATE, DECAY),
        (RATE, 0.0),
        (RATE / 2, DECAY),
        (RATE / 2, 0.0),
    }
    assert [group["lr"] for group in groups] == sorted((group["lr"] for group in groups), reverse=True)
    slow = {name for group in groups if group["lr"] < RATE for name in group["names"]}
    assert slow == {name for name, _ in model.named_parameters() if ".dcn.offset." in name}


def test_a_bare_backbone_gets_the_same_rates_as_one_in_a_classifier() -> None:
    """Names count under any prefix."""
    settings = {"lr": 1.0, "weight_decay": 0.0, "layer_decay": 0.5, "depths": (2, 2, 4, 2)}
    whole = param_groups(create_model("internimage_femto"), **settings)
    bare = param_groups(create_model("internimage_femto", features_only=True), **settings)
    rates = {name.removeprefix("backbone."): group["lr"] for group in whole for name in group["names"]}
    assert {name: group["lr"] for group in bare for name in group["names"]} == {
        name: rate for name, rate in rates.items() if not name.startswith("head.")
    }


def test_frozen_parameters_are_left_out() -> None:
    model = create_model("internimage_femto", num_classes=3)
    model.backbone.requires_grad_(False)
    groups = param_groups(model, lr=RATE, weight_decay=DECAY, depths=model.config.depths, layer_decay=RATIO)
    assert {name for group in groups for name in group["names"]} == {
        name for name, _ in model.named_parameters() if name.startswith("head.")
    }
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        param_groups(model, lr=RATE, weight_decay=DECAY, depths=model.config.depths)


@pytest.mark.parametrize("layer_decay", [0.0, -0.1, 1.1, float("nan")])
def test_a_layer_decay_outside_its_range_is_refused(layer_decay: float) -> None:
    model = create_model("internimage_femto")
    with pytest.raises(ValueError, match=r"layer_decay must be in \(0, 1\]"):
        param_groups(model, lr=1.0, weight_decay=0.0, depths=(2, 2, 4, 2), layer_decay=layer_decay)


@pytest.mark.parametrize("depths", [(2, 2, 4, 2), (1, 1, 1, 1), (1, 1, 2)])
def test_depths_of_another_network_are_refused(depths: tuple[int, ...]) -> None:
    """Wrong ones would give rates above the peak, in silence."""
    model = create_model("internimage_femto")
    if depths == (2, 2, 4, 2):
        assert param_groups(model, lr=1.0, weight_decay=0.0, depths=depths)
        return
    with pytest.raises(ValueError, match=r"backbone\.stages\.\d.* lies outside a backbone of depths \(1, 1, "):
        param_groups(model, lr=1.0, weight_decay=0.0, depths=depths, layer_decay=0.5)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "offset_lr_scale"])
@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf")])
def test_rates_that_are_none(name: str, value: float) -> None:
    settings = {"lr": 1.0, "weight_decay": 0.0, "offset_lr_scale": 1.0} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be a number of at least 0, got {value}"):
        param_groups(create_model("internimage_femto"), depths=(1, 1, 2, 1), **settings)


class Net(nn.Module):
    """A network of someone else's around our layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = DCNv3(8, groups=2, center_feature_scale=True)
        self.offset = nn.Linear(8, 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_offsets_are_found_under_any_name(compiled: bool) -> None:
    model = torch.compile(Net()) if compiled else Net()
    groups = param_groups(model, lr=1.0, weight_decay=0.0, depths=(), offset_lr_scale=0.5)
    slow = {name for group in groups if group["lr"] < 1.0 for name in group["names"]}
    prefix = "_orig_mod." if compiled else ""
    parts = [f"conv.{layer}.{part}" for layer in ("offset", "center_scale") for part in ("weight", "bias")]
    assert slow == {prefix + part for part in parts}
    alone = param_groups(Net().conv, lr=1.0, weight_decay=0.0, depths=(), offset_lr_scale=0.5)
    assert {name for group in alone if group["lr"] < 1.0 for name in group["names"]} == {part[5:] for part in parts}


def test_block_numbers_of_two_digits_are_not_mistaken() -> None:
    depths = (4, 4, 18, 4)
    assert blocks_after("backbone.stages.2.blocks.1.norm1.weight", depths) == 4 + 16
    assert blocks_after("backbone.stages.2.blocks.17.norm1.weight", depths) == 4
    assert blocks_after("backbone.stages.3.blocks.3.mlp.fc1.weight", depths) == 0
    assert blocks_after("backbone.stages.3.norm.weight", depths) == 0
    assert blocks_after("backbone.stages.2.norm.weight", depths) == 3
