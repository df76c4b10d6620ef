"""The paper's rules as methods of the configuration: `stacked` and `scaled`."""

from __future__ import annotations

from typing import Any

import pytest

from internimage import InternImageConfig, create_model, list_models


def test_stacking_rules() -> None:
    config = InternImageConfig.stacked(96, 32, 3, 9, head_ratio=2.0)
    assert (config.depths, config.groups) == ((3, 3, 9, 3), (3, 6, 12, 24))
    assert config.stage_channels == (96, 192, 384, 768)
    assert config.head_ratio == 2.0
    with pytest.raises(ValueError, match="group_width must divide channels, got 48 and 64"):
        InternImageConfig.stacked(64, 48, 1, 1)
    with pytest.raises(ValueError, match="group_width must divide"):
        InternImageConfig.stacked(64, 0, 1, 1)
    with pytest.raises(ValueError, match="depth_outer <= depth_inner, got 5 and 4"):
        InternImageConfig.stacked(64, 16, 5, 4)


def test_the_paper_s_variants_follow_the_rules() -> None:
    for variant in ("t", "s", "b", "l", "xl", "h"):
        config = InternImageConfig.from_variant(variant)
        width = config.channels // config.groups[0]
        stacked = InternImageConfig.stacked(config.channels, width, config.depths[0], config.depths[2])
        assert (stacked.depths, stacked.groups) == (config.depths, config.groups)


def test_scaling_rule() -> None:
    """alpha * beta**1.99 is about 2: each step of phi doubles the network, keeps its form, and 0 changes nothing."""
    base = InternImageConfig.from_variant("s", num_classes=10)
    assert base.scaled(0) == base
    larger = base.scaled(1)
    # 80 * 1.36 = 108.8, to the nearest multiple of 16; 33 * 1.09 = 35.97 blocks, 4 * 1.09 = 4.36 outside stage 3.
    assert (larger.channels, larger.depths) == (112, (4, 4, 24, 4))
    assert base.scaled(2).channels == 144
    assert (larger.post_norm, larger.layer_scale, larger.num_classes) == (True, 1e-5, 10)
    assert larger.channels // larger.groups[0] == 16

    def parameters(config: InternImageConfig) -> int:
        return sum(parameter.numel() for parameter in create_model(config, features_only=True).parameters())

    small = InternImageConfig.from_variant("pico")
    assert parameters(small.scaled(2)) / parameters(small) == pytest.approx(4, rel=0.35)
    assert small.scaled(-20).channels == 16
    assert small.scaled(-20).depths == (1, 1, 1, 1)


@pytest.mark.parametrize("name", list_models())
def test_scaling_by_nothing_changes_nothing(name: str) -> None:
    config = InternImageConfig.from_variant(name)
    if name == "internimage_g":
        with pytest.raises(
            ValueError, match=r"the rule is for networks of pattern A-A-B-A.*got depths \(2, 2, 48, 4\)"
        ):
            config.scaled(0)
    else:
        assert config.scaled(0) == config


def test_scaling_keeps_the_spacing_of_the_extra_norms() -> None:
    larger = InternImageConfig.from_variant("h").scaled(2)
    assert larger.depths == (7, 7, 38, 7)
    assert larger.level2_post_norm_blocks == (5, 11, 17, 23, 29, 35)
    assert InternImageConfig.from_variant("h").scaled(-3).level2_post_norm_blocks == (5, 11, 17, 23)
    every_other = InternImageConfig(depths=(1, 1, 5, 1), level2_post_norm_blocks=(4, 2, 0))
    assert every_other.scaled(0) == every_other
    # One norm after the last of three blocks is one after every third.
    doubled = InternImageConfig(depths=(1, 1, 3, 1), level2_post_norm_blocks=(2,)).scaled(8)
    assert (doubled.depths, doubled.level2_post_norm_blocks) == ((2, 2, 6, 2), (2, 5))
    # Odd group widths keep an even number of channels.
    assert InternImageConfig.stacked(6, 3, 1, 1).scaled(1.5).channels == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": (4, 4, 2, 4)}, r"pattern A-A-B-A .*got depths \(4, 4, 2, 4\)"),
        ({"groups": (4, 8, 16, 64)}, r"pattern A-A-B-A .*groups \(4, 8, 16, 64\)"),
        ({"level2_post_norm_blocks": (1, 2, 9)}, r"evenly spaced level2_post_norm_blocks, got \(1, 2, 9\)"),
    ],
)
def test_networks_that_the_scaling_rule_is_not_for(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InternImageConfig(**settings).scaled(1)
