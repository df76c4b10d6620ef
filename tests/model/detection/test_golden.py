"""Detectors against the released ones under mmdetection: the same weights give the same boxes and masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from internimage import InternImageConfig
from internimage.data.detection.images import pad_batch, prepare
from internimage.model.checkpoints.detectors import from_mmdetection, to_mmdetection
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.structures import Framing, Placement
from support.compare import relative_rms

pytestmark = pytest.mark.shared


@dataclass
class Official:
    detector: InternImageDetector
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    placements: list[Placement]


@pytest.fixture(scope="module", params=["mask_rcnn", "cascade"])
def official(request: pytest.FixtureRequest, golden: Path) -> Official:
    path = golden / f"detection/{request.param}.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        metadata = file.metadata()
    state = {
        key.removeprefix("state_dict."): tensors.pop(key) for key in list(tensors) if key.startswith("state_dict.")
    }
    state = {key: each.float() if each.is_floating_point() else each for key, each in state.items()}
    detector = InternImageDetector(config_of(json.loads(metadata["config"])))
    detector.load_state_dict(from_mmdetection(state).state)
    placements = [
        Placement(tuple(meta["img_shape"][:2]), tuple(meta["ori_shape"][:2]), tuple(meta["scale_factor"][:2]))
        for meta in json.loads(metadata["img_metas"])
    ]
    return Official(detector.eval(), state, tensors, placements)


def config_of(theirs: dict[str, Any]) -> DetectorConfig:
    """Their tiny networks' settings; the files' own converter is for the released ones."""
    arguments = {
        key: value for key, value in theirs["backbone"].items() if key not in ("type", "init_cfg", "out_indices")
    }
    roi, limits = theirs["roi_head"], theirs["test_cfg"]
    heads = roi["bbox_head"] if isinstance(roi["bbox_head"], list) else [roi["bbox_head"]]
    return DetectorConfig(
        InternImageConfig.from_official(arguments | {"num_classes": 0}),
        num_classes=heads[0]["num_classes"],
        stages=len(heads),
        fpn_channels=theirs["neck"]["out_channels"],
        head_convs=heads[0].get("num_shared_convs", 0),
        head_layers=heads[0].get("num_shared_fcs", 2),
        head_channels=heads[0]["fc_out_channels"],
        finest_scale=roi["bbox_roi_extractor"].get("finest_scale", 56),
        proposals_per_level=limits["rpn"]["nms_pre"],
        proposals=limits["rpn"]["max_per_img"],
        detections=limits["rcnn"]["max_per_img"],
    )


def test_every_weight_has_its_place_and_goes_back(official: Official) -> None:
    converted = from_mmdetection(official.state)
    assert not converted.foreign
    assert len(converted.state) == len(official.state)
    back = to_mmdetection(converted.state)
    assert back.keys() == official.state.keys()
    assert all(torch.equal(back[key], official.state[key]) for key in back)


@torch.inference_mode()
def test_pyramid_and_proposals(official: Official) -> None:
    detector, tensors = official.detector, official.tensors
    stages = detector.backbone(tensors["input"])
    for stage, map_NCHW in enumerate(stages):
        assert relative_rms(map_NCHW, tensors[f"backbone.stage{stage}"]) < 1e-5
    pyramid = detector.pyramid(tensors["input"])
    for level, map_NCHW in enumerate(pyramid):
        assert relative_rms(map_NCHW, tensors[f"neck.{level}"]) < 1e-5
    logits, deltas = detector.rpn.head(pyramid)
    for level in range(5):
        assert relative_rms(logits[level], tensors[f"rpn.objectness_logits.{level}"]) < 1e-5
        assert relative_rms(deltas[level], tensors[f"rpn.deltas.{level}"]) < 1e-5
    for image, proposals in enumerate(detector.propose(pyramid, official.placements)):
        torch.testing.assert_close(proposals, tensors[f"proposals.{image}"][:, :4], rtol=0, atol=5e-3)


def test_from_picture_to_boxes(official: Official) -> None:
    """With our own preparation of the pictures in place of theirs."""
    pictures = [official.tensors[f"raw_bgr_uint8.{number}"].numpy()[..., ::-1].copy() for number in range(2)]
    prepared = [prepare(Image.fromarray(each), Framing((152, 224))) for each in pictures]
    with torch.inference_mode():
        found = official.detector(pad_batch([image for image, _ in prepared]), [place for _, place in prepared])
    for image, each in enumerate(found):
        assert torch.equal(each.labels, official.tensors[f"final.{image}.labels"])
        torch.testing.assert_close(each.boxes, official.tensors[f"final.{image}.boxes"], rtol=0, atol=5e-3)


@torch.inference_mode()
def test_detections(official: Official) -> None:
    found = official.detector(official.tensors["input"], official.placements)
    for image, each in enumerate(found):
        wanted = {key: official.tensors[f"final.{image}.{key}"] for key in ("boxes", "scores", "labels", "masks")}
        assert torch.equal(each.labels, wanted["labels"])
        torch.testing.assert_close(each.boxes, wanted["boxes"], rtol=0, atol=5e-3)
        torch.testing.assert_close(each.scores, wanted["scores"], rtol=0, atol=5e-5)
        probabilities = official.tensors[f"final.{image}.mask_probs"]
        assert each.mask_probabilities is not None
        assert each.masks is not None
        torch.testing.assert_close(each.mask_probabilities, probabilities, rtol=0, atol=1e-3)
        assert int((each.masks != wanted["masks"].bool()).sum()) <= 20
