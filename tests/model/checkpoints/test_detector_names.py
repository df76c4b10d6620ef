"""Every key and every shape of the released Mask and Cascade R-CNNs, in both directions, and their exact sizes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from internimage import InternImageConfig, create_model
from internimage.model.checkpoints.detectors import from_mmdetection, to_mmdetection
from internimage.model.detection import DetectorConfig, InternImageDetector

# Parameters of the whole, of the pyramid.
RELEASED = {
    "mask_rcnn_internimage_t_fpn_1x": ("t", 48_920_544, 2_607_104),
    "mask_rcnn_internimage_s_fpn_1x": ("s", 68_715_024, 2_668_544),
    "mask_rcnn_internimage_b_fpn_1x": ("b", 115_245_264, 2_791_424),
    "cascade_internimage_l_fpn_1x": ("l", 277_307_236, 2_975_744),
    "cascade_internimage_xl_fpn_1x": ("xl", 387_448_974, 3_098_624),
}


@cache
def on_meta(variant: str, **options: bool) -> InternImageDetector:
    with torch.device("meta"):
        return InternImageDetector(DetectorConfig.from_variant(variant, **options))


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_of_the_released_detectors(name: str) -> None:
    variant, parameters, pyramid = RELEASED[name]
    detector = on_meta(variant)
    assert sum(each.numel() for each in detector.parameters()) == parameters
    assert sum(each.numel() for each in detector.fpn.parameters()) == pyramid


@pytest.mark.shared
@pytest.mark.parametrize("name", RELEASED)
def test_every_weight_is_used_once_and_has_its_shape(name: str, golden: Path) -> None:
    theirs: dict[str, Tensor] = {
        key: torch.empty(shape, device="meta")
        for key, shape in json.loads((golden / "detection/official_detector_state_dicts.json").read_text())[
            name
        ].items()
    }
    ours = {key: each.shape for key, each in on_meta(RELEASED[name][0]).state_dict().items()}
    converted = from_mmdetection(theirs)
    assert not converted.foreign
    assert {key: each.shape for key, each in converted.state.items()} == ours
    assert {key: each.shape for key, each in to_mmdetection(converted.state).items()} == {
        key: each.shape for key, each in theirs.items()
    }


def test_boxes_alone() -> None:
    assert not any("mask_heads" in key for key in on_meta("internimage_femto", masks=False).state_dict())
    assert len(on_meta("t", cascade=True).roi_heads.box_heads) == 3


def test_other_weights_are_refused() -> None:
    backbone = create_model(InternImageConfig.from_variant("femto"), features_only=True).state_dict()
    with pytest.raises(ValueError, match="no region proposal network"):
        from_mmdetection(backbone)
    with pytest.raises(ValueError, match=r"no name in mmdetection: roi_heads\.extra"):
        to_mmdetection({"roi_heads.extra": torch.zeros(1)})
