"""The configuration: official arguments in every spelling, the paper's rules, and everything that is no network."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from internimage import InternImageConfig, list_models
from internimage.model.variants import describe_variant

STAGES = {"channels": 64, "depths": [4, 4, 18, 4], "groups": [4, 8, 16, 32]}
# The constructor's arguments of the seven published networks, as their configurations give them.
OFFICIAL: dict[str, dict[str, Any]] = {
    "t": {"channels": 64, "depths": [4, 4, 18, 4], "groups": [4, 8, 16, 32], "offset_scale": 1.0},
    "s": {"channels": 80, "depths": [4, 4, 21, 4], "groups": [5, 10, 20, 40], "layer_scale": 1e-5, "post_norm": True},
    "b": {"channels": 112, "depths": [4, 4, 21, 4], "groups": [7, 14, 28, 56], "layer_scale": 1e-5, "post_norm": True},
    "l": {
        "channels": 160,
        "depths": [5, 5, 22, 5],
        "groups": [10, 20, 40, 80],
        "layer_scale": 1e-5,
        "offset_scale": 2.0,
        "post_norm": True,
    },
    "xl": {
        "channels": 192,
        "depths": [5, 5, 24, 5],
        "groups": [12, 24, 48, 96],
        "layer_scale": 1e-5,
        "offset_scale": 2.0,
        "post_norm": True,
    },
    "h": {
        "channels": 320,
        "depths": [6, 6, 32, 6],
        "groups": [10, 20, 40, 80],
        "res_post_norm": True,
        "level2_post_norm": True,
        "level2_post_norm_block_ids": [5, 11, 17, 23, 29],
        "dw_kernel_size": 5,
        "center_feature_scale": True,
        "use_clip_projector": True,
    },
    "g": {
        "channels": 512,
        "depths": [2, 2, 48, 4],
        "groups": [16, 32, 64, 128],
        "post_norm": True,
        "level2_post_norm": True,
        "level2_post_norm_block_ids": [5, 11, 17, 23, 29, 35, 41, 47],
        "dw_kernel_size": 5,
        "center_feature_scale": True,
        "use_clip_projector": True,
    },
}
# What every hub configuration spells out (its defaults where a network above does not say otherwise).
SPELLED_OUT: dict[str, Any] = {
    "core_op": "DCNv3",
    "mlp_ratio": 4.0,
    "layer_scale": None,
    "offset_scale": 1.0,
    "post_norm": False,
    "res_post_norm": False,
    "level2_post_norm": False,
    "level2_post_norm_block_ids": None,
    "dw_kernel_size": None,
    "center_feature_scale": False,
    "use_clip_projector": False,
    "remove_center": False,
    "num_classes": 1000,
    "drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "drop_path_type": "linear",
    "act_layer": "GELU",
    "norm_layer": "LN",
    "cls_scale": 1.5,
    "with_cp": False,
}


@pytest.mark.parametrize("variant", OFFICIAL)
def test_official_arguments_are_the_variants(variant: str) -> None:
    arguments = SPELLED_OUT | OFFICIAL[variant]
    config = InternImageConfig.from_official(arguments)
    assert config == InternImageConfig.from_variant(variant)
    assert config.to_official() == arguments
    assert InternImageConfig.from_official(json.loads(json.dumps(config.to_official()))) == config


def test_the_official_defaults() -> None:
    config = InternImageConfig.from_official(STAGES)
    assert config == InternImageConfig.from_variant("t", drop_path_rate=0.2)
    with pytest.raises(ValueError, match="3 groups do not divide 64 channels"):
        InternImageConfig.from_official({})


def test_arguments_that_yaml_reads_as_text() -> None:
    """PyYAML leaves 1e-5 and None as strings; yacs would evaluate them."""
    texts = {"layer_scale": "1e-5", "dw_kernel_size": "None", "post_norm": "True", "channels": "64", "mlp_ratio": "4."}
    config = InternImageConfig.from_official(STAGES | texts | {"depths": "[4, 4, 18, 4]", "drop_path_rate": 0})
    assert config == InternImageConfig.from_variant("t", layer_scale=1e-5, post_norm=True)
    assert type(config.channels) is int
    assert (
        InternImageConfig.from_official(STAGES | {"layer_scale": "None", "remove_center": "False"}).layer_scale is None
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"use_dcn_v4_op": True}, r"unknown official arguments \['use_dcn_v4_op'\]; known are \['act_layer'"),
        ({"norm_layer": "BN"}, "norm_layer 'BN' is not supported: released models use 'LN'"),
        ({"core_op": "DCNv2"}, "core_op 'DCNv2' is not supported: released models use 'DCNv3' or .* or 'DCNv4'"),
        ({"act_layer": "Mish"}, "activation must be one of gelu, relu, silu, got 'mish'"),
        ({"res_post_norm": True, "layer_scale": 1e-5}, "res_post_norm excludes post_norm and layer_scale"),
        ({"res_post_norm": True, "post_norm": True}, "res_post_norm excludes post_norm and layer_scale"),
        ({"drop_path_type": "cosine"}, "drop_path_schedule must be one of linear, uniform"),
        ({"layer_scale": "a bit"}, "layer_scale must be a positive number or None, got 'a bit'"),
        ({"channels": "wide"}, "channels must be made of integers, got 'wide'"),
    ],
)
def test_official_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InternImageConfig.from_official(STAGES | arguments)


def test_level2_post_norm_needs_its_switch() -> None:
    ids = {"level2_post_norm_block_ids": [5, 11]}
    assert InternImageConfig.from_official(STAGES | ids).level2_post_norm_blocks == ()
    assert InternImageConfig.from_official(STAGES | ids | {"level2_post_norm": True}).level2_post_norm_blocks == (5, 11)


@pytest.mark.parametrize(
    ("settings", "always"),
    [
        ({"in_chans": 1}, r"in_chans 3 and stem strides \(2, 2\)"),
        ({"stem_strides": (2, 1)}, r"in_chans 3 and stem strides \(2, 2\)"),
        ({"shared_weights": False}, "shared weights and softmax modulations"),
        ({"normalize": "sigmoid"}, "shared weights and softmax modulations"),
        ({"core": "dcnv4"}, "shared weights and modulations as they are"),
        ({"mlp_output_bias": False}, "core_output_bias and mlp_output_bias"),
    ],
)
def test_networks_without_official_arguments(settings: dict[str, Any], always: str) -> None:
    with pytest.raises(ValueError, match=f"always has {always}"):
        InternImageConfig(**settings).to_official()


@pytest.mark.parametrize("name", list_models())
def test_json_round_trip(name: str) -> None:
    config = InternImageConfig.from_variant(name, num_classes=7, stem_strides=(2, 1))
    text = json.dumps(config.to_dict())
    assert InternImageConfig.from_dict(json.loads(text)) == config
    assert hash(InternImageConfig.from_dict(json.loads(text))) == hash(config)
    assert set(json.loads(text)) == {field.name for field in fields(InternImageConfig)}


def test_unknown_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown configuration keys \['chanels'\]; known are \['activation'"):
        InternImageConfig.from_dict({"chanels": 64})


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        InternImageConfig().channels = 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 63}, "channels must be even and positive"),
        ({"channels": 0}, "channels must be even and positive"),
        ({"channels": 64.0}, "channels must be made of integers, got 64.0"),
        ({"channels": True}, "channels must be made of integers, got True"),
        ({"depths": (4, 4, 18)}, "depths and groups need 4 values each"),
        ({"depths": (4, 4, 18.0, 4)}, "depths must be made of integers"),
        ({"depths": 4}, "depths must be a list of integers, got 4"),
        ({"stem_strides": None}, "stem_strides must be a list of integers, got None"),
        ({"channels": (64,)}, r"channels must be made of integers, got \(64,\)"),
        ({"depths": (4, 4, 0, 4)}, "depths and groups must be positive"),
        ({"groups": (3, 6, 12, 24)}, "3 groups do not divide 64 channels"),
        ({"level2_post_norm_blocks": (18,)}, r"must be different blocks of 18, got \(18,\)"),
        ({"level2_post_norm_blocks": (-1,)}, "must be different blocks of 18"),
        ({"level2_post_norm_blocks": (5, 5)}, "must be different blocks of 18"),
        ({"dw_kernel_size": 0}, "dw_kernel_size must be a positive integer or None"),
        ({"mlp_ratio": 0}, "mlp_ratio and head_ratio leave no channels"),
        ({"head_ratio": 0.0001}, "mlp_ratio and head_ratio leave no channels"),
        ({"offset_scale": float("inf")}, "offset_scale must be a finite number, got inf"),
        ({"layer_scale": float("nan")}, "layer_scale must be a positive number or None"),
        ({"layer_scale": 0}, "layer_scale must be a positive number or None"),
        ({"post_norm": "False"}, "post_norm must be True or False, got 'False'"),
        ({"head": "mlp"}, "head must be one of conv, clip, got 'mlp'"),
        ({"activation": "GELU"}, "activation must be one of gelu, relu, silu, got 'GELU'"),
        ({"drop_path_rate": 1}, r"drop_path_rate must be in \[0, 1\), got 1"),
        ({"drop_rate": -0.1}, r"drop_rate must be in \[0, 1\)"),
        ({"drop_rate": None}, "drop_rate must be a finite number, got None"),
        ({"num_classes": -1}, "num_classes >= 0"),
        ({"in_chans": 0}, "in_chans >= 1"),
        ({"stem_strides": (4, 1)}, "stem_strides must be two numbers of 1 or 2"),
        ({"stem_strides": (2,)}, "stem_strides must be two numbers of 1 or 2"),
    ],
)
def test_settings_that_make_no_network(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InternImageConfig(**settings)


def test_variants_in_words() -> None:
    for name in ("t", "internimage_t", "T", "INTERNIMAGE_T"):
        assert describe_variant(InternImageConfig.from_variant(name)).startswith("InternImage-T (64 channels")
    for name in ("flash_t", "flash_internimage_t", "FLASH_INTERNIMAGE_T"):
        assert describe_variant(InternImageConfig.from_variant(name)).startswith("FlashInternImage-T (64 channels")
    other = InternImageConfig(groups=(2, 4, 8, 16))
    assert describe_variant(other) == "an InternImage of 64 channels, depths 4-4-18-4, groups 2-4-8-16"
    with pytest.raises(ValueError, match="unknown model 'm'; choose from internimage_femto"):
        InternImageConfig.from_variant("m")
