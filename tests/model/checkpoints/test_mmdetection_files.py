"""Files of mmdetection: the released detectors' weights, and the configuration inside that says how to use them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from internimage import InternImageConfig, LabelMap
from internimage.inference.detection import Detector
from internimage.model.checkpoints.detector_files import load_detector
from internimage.model.checkpoints.detectors import to_mmdetection
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.structures import Framing
from support.mmdetection import CONFIG, changed, text_of, write_pth

LABELS = LabelMap(("ant", "bee", "cow"))
# As a file without a configuration is understood.
DEFAULT = DetectorConfig(
    InternImageConfig.from_variant("femto", num_classes=0), num_classes=3, fpn_channels=16, head_channels=32
)


@pytest.fixture(scope="module")
def detector() -> InternImageDetector:
    torch.manual_seed(0)
    return InternImageDetector(DEFAULT)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_all_that_it_says(detector: InternImageDetector, tmp_path: Path) -> None:
    config = changed("model.test_cfg.rcnn", {"score_thr": 0.2, "nms": {"iou_threshold": 0.6}, "max_per_img": 9})
    config["test_pipeline"][1]["img_scale"] = (160, 96)
    config["test_pipeline"][1]["transforms"][2] |= {"mean": [127.5, 102.0, 76.5], "std": [51.0, 76.5, 102.0]}
    config["data"]["test"]["pipeline"] = config["test_pipeline"]
    for kind in ("bbox", "mask"):
        config["model"]["roi_head"][f"{kind}_roi_extractor"]["finest_scale"] = 28
    path = write_pth(detector, tmp_path / "x.pth", CLASSES=LABELS.names, config=text_of(config))
    loaded = load_detector(path)
    assert same(loaded.model.state_dict(), detector.state_dict())
    limits = {"score_threshold": 0.2, "nms_threshold": 0.6, "detections": 9, "finest_scale": 28}
    assert loaded.model.config == replace(DEFAULT, **limits)
    assert loaded.labels == LABELS
    assert loaded.framing.frame == (96, 160)
    assert (*loaded.framing.mean, *loaded.framing.std) == pytest.approx((0.5, 0.4, 0.3, 0.2, 0.3, 0.4))


@pytest.mark.parametrize("meta", [{}, {"config": 3, "CLASSES": None}])
def test_without_a_configuration_the_released_rules_hold(
    detector: InternImageDetector, tmp_path: Path, caplog: pytest.LogCaptureFixture, meta: dict[str, Any]
) -> None:
    with caplog.at_level(logging.INFO, "internimage"):
        loaded = load_detector(write_pth(detector, tmp_path / "x.pth", **meta))
    assert (loaded.model.config, loaded.labels, loaded.framing) == (DEFAULT, None, Framing())
    assert "holds no configuration: the released detectors' limits and thresholds are used" in caplog.text


def test_a_cascade_of_boxes_with_another_backbone(tmp_path: Path) -> None:
    """Of no known variant: its configuration says what no shape does."""
    backbone = replace(
        DEFAULT.backbone, channels=16, depths=(1, 1, 2, 1), offset_scale=2.0, post_norm=True, layer_scale=1.0
    )
    wanted = replace(DEFAULT, backbone=backbone, stages=3, head_convs=4, head_layers=1, masks=False)
    cascade = InternImageDetector(wanted)
    config = changed("model.backbone", {**backbone.to_official(), "type": "InternImage", "out_indices": (0, 1, 2, 3)})
    loaded = load_detector(write_pth(cascade, tmp_path / "x.pth", config=text_of(config)))
    assert loaded.model.config == wanted
    assert same(loaded.model.state_dict(), cascade.state_dict())
    wrong = changed("model.backbone", {**backbone.to_official(), "depths": [1, 1]})
    with pytest.raises(ValueError, match=r"x\.pth: the backbone in its configuration can't be built: depths and"):
        load_detector(write_pth(cascade, tmp_path / "x.pth", config=text_of(wrong)))
    with pytest.raises(ValueError, match=r"x\.pth is no known variant"):
        load_detector(write_pth(cascade, tmp_path / "x.pth", config=text_of(CONFIG)))


def test_another_rule_is_refused(detector: InternImageDetector, tmp_path: Path) -> None:
    config = text_of(changed("model.neck.type", "PAFPN"))
    with pytest.raises(ValueError, match=r"x\.pth was made with model\.neck\.type=PAFPN"):
        load_detector(write_pth(detector, tmp_path / "x.pth", config=config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"semantic_head.a": torch.ones(1)}, r"1 weights that no .* has: semantic_head\.a"),
        (lambda state: {k: v for k, v in state.items() if "rpn_head" not in k}, "no region proposal network"),
        (lambda state: {k: v for k, v in state.items() if "roi_head" not in k}, r"it lacks roi_heads\.box_heads"),
        (lambda state: {k: v for k, v in state.items() if "neck" not in k}, r"it lacks fpn\.inner_blocks\.0"),
        (lambda state: {k: v for k, v in state.items() if "rpn_reg" not in k}, r"it lacks rpn\.head\.bbox_pred"),
        (lambda state: state | {"neck.fpn_convs.4.conv.weight": torch.ones(1)}, r"also has fpn\.layer_blocks\.4"),
        (lambda state: state | {"rpn_head.rpn_reg.bias": torch.ones(8)}, r"another shape rpn\.head\.bbox_pred"),
    ],
)
def test_weights_of_another_detector(
    detector: InternImageDetector, tmp_path: Path, change: Callable[..., dict[str, Tensor]], message: str
) -> None:
    torch.save({"state_dict": change(to_mmdetection(detector.state_dict())), "meta": {}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"x\.pth.* {message}"):
        load_detector(tmp_path / "x.pth")


def test_names_of_other_classes(detector: InternImageDetector, tmp_path: Path) -> None:
    path = write_pth(detector, tmp_path / "x.pth", CLASSES=("ant", "bee"))
    with pytest.raises(ValueError, match=r"x\.pth: 2 class names for a detector of 3 classes"):
        load_detector(path)


@pytest.mark.shared
def test_the_official_tiny_network(golden: Path, tmp_path: Path) -> None:
    """Its weights and its configuration, as one file, find what the official code found."""
    tensors, path = load_file(golden / "detection/mask_rcnn.safetensors"), tmp_path / "tiny.pth"
    with safe_open(golden / "detection/mask_rcnn.safetensors", "pt") as file:
        said = file.metadata()
    steps = json.loads(said["test_pipeline"])
    steps[0]["img_scale"] = tuple(steps[0]["img_scale"])
    config = {"model": json.loads(said["config"]), "test_pipeline": steps}
    state = {key.removeprefix("state_dict."): tensors[key] for key in tensors if key.startswith("state_dict.")}
    torch.save({"state_dict": state, "meta": {"CLASSES": tuple("abcde"), "config": text_of(config)}}, path)
    detector = Detector(path, device="cpu")
    limits = detector.model.config
    assert (limits.finest_scale, limits.proposals_per_level, limits.proposals, limits.detections) == (
        14,
        200,
        40,
        12,
    )
    assert (detector.framing, detector.labels.names) == (Framing((152, 224)), tuple("abcde"))
    for number in range(2):
        found = detector(tensors[f"raw_bgr_uint8.{number}"].numpy()[..., ::-1])
        assert found.labels.tolist() == tensors[f"final.{number}.labels"].tolist()
        boxes, scores = (tensors[f"final.{number}.{name}"] for name in ("boxes", "scores"))
        torch.testing.assert_close(torch.from_numpy(found.boxes), boxes, rtol=0, atol=5e-3)
        torch.testing.assert_close(torch.from_numpy(found.scores), scores, rtol=0, atol=1e-4)
