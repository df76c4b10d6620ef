"""What makes a segmenter, and what makes none."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, get_args

import pytest

from internimage import InternImageConfig
from internimage.model.segmentation import HeadName, SegmenterConfig

BACKBONE = InternImageConfig.stacked(8, 8, 1, 1, num_classes=0)
CONFIG = SegmenterConfig(BACKBONE)


@pytest.mark.parametrize("variant", ["t", "internimage_xl", "h", "femto"])
def test_backbones_are_the_released_ones(variant: str) -> None:
    """With a layer scale of 1 from T to XL, also where the classifier has none or a small one."""
    config = SegmenterConfig.from_variant(variant)
    classifier = InternImageConfig.from_variant(variant)
    scale = 1.0 if variant in ("t", "internimage_xl") else None
    assert config.backbone == replace(classifier, num_classes=0, layer_scale=scale)


def test_released_heads() -> None:
    upernet = SegmenterConfig.from_variant("l", num_classes=19)
    assert (upernet.num_classes, upernet.channels, upernet.auxiliary) == (19, 512, True)
    assert (upernet.auxiliary_channels, upernet.auxiliary_weight, upernet.dropout) == (256, 0.4, 0.1)
    segformer = SegmenterConfig.from_variant("l", head="segformer")
    assert (segformer.channels, segformer.auxiliary) == (256, False)
    small = SegmenterConfig.from_variant("h", head="mask2former")
    assert (small.queries, small.heads, small.encoder_feedforward, small.decoder_feedforward) == (100, 8, 1024, 2048)
    wide = SegmenterConfig.from_variant("h", head="mask2former", channels=1024)
    assert (wide.queries, wide.heads, wide.encoder_feedforward, wide.decoder_feedforward) == (200, 32, 4096, 4096)
    assert SegmenterConfig.from_variant("t", head="mask2former", channels=64, queries=20).queries == 20


@pytest.mark.parametrize("head", get_args(HeadName))
def test_json_and_back(head: HeadName) -> None:
    config = SegmenterConfig.from_variant("s", head=head)
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    backbone = InternImageConfig.from_dict(values.pop("backbone"))
    assert SegmenterConfig(backbone, **values) == config
    assert len({SegmenterConfig(backbone, **values), config}) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "deeplab"}, "head must be one of upernet, segformer, mask2former, got 'deeplab'"),
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
        ({"num_classes": 256}, "num_classes must be at most 255, got 256"),
        ({"num_classes": 1}, "upernet gives every pixel one of its classes, so it needs at least 2"),
        ({"channels": 64.0}, r"channels must be a positive integer, got 64\.0"),
        ({"queries": 0}, "queries must be a positive integer, got 0"),
        ({"pool_scales": (1, 0)}, r"pool_scales must be positive numbers of positions, got \(1, 0\)"),
        ({"pool_scales": []}, r"pool_scales must be positive numbers of positions, got \[\]"),
        ({"pool_scales": 6}, "pool_scales must be positive numbers of positions, got 6"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1\.0"),
        ({"dropout": "0.1"}, "dropout must be a number"),
        ({"auxiliary_weight": float("nan")}, "auxiliary_weight must be a number of at least 0, got nan"),
        ({"auxiliary": 1}, "auxiliary must be True or False, got 1"),
        ({"head": "segformer", "auxiliary": True}, "auxiliary is a part of upernet; leave it out for segformer"),
        ({"head": "mask2former", "channels": 48}, "multiple of 32 and of its heads, got 48 channels and 8 heads"),
        ({"head": "mask2former", "channels": 64, "heads": 3}, "of its heads, got 64 channels and 3 heads"),
    ],
)
def test_what_makes_no_segmenter(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)


def test_one_class_is_enough_where_there_is_no_object() -> None:
    assert replace(CONFIG, head="mask2former", num_classes=1).num_classes == 1


@pytest.mark.parametrize("settings", [{"channels": 0}, {"head": "mask2former", "queries": 0}])
def test_nothing_is_no_default(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a positive integer, got 0"):
        SegmenterConfig.from_variant("t", **settings)
