"""A detector that looks several times: every way to merge, of both kinds of detectors, and what nothing would use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from inference.test_detector import BACKBONE, NAMES, network
from internimage import Detections, Detector, Framing, Merging
from internimage.data.scenes import Scenes
from internimage.inference.merging import merge
from internimage.model.checkpoints.detector_files import save_detector
from internimage.structures import MergeRule

RULES = get_args(MergeRule)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "clothes.safetensors"
    return save_detector(network(masks=False), path, labels=NAMES, framing=Framing((96, 160)))


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, whose scores lie around 0.5 with the classes' prior gone."""
    pytest.importorskip("transformers")
    from internimage.model.detection.detr import DetrConfig, InternImageDetr

    options = {"num_queries": 10, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    options |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    model = InternImageDetr(DetrConfig(BACKBONE, 3, "deformable_detr", options)).eval()
    for name, each in model.named_parameters():
        if "class_embed" in name:
            torch.nn.init.normal_(each, std=0.5)
    path = tmp_path_factory.mktemp("weights") / "detr.safetensors"
    return save_detector(model, path, labels=NAMES, framing=Framing((96, 160)))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Scenes("val", 1).read(0).image.resize((120, 90))


def rows(found: Detections, *, width: float | None = None) -> np.ndarray[Any, Any]:
    """Boxes, scores and labels in an order of their own; of a mirrored picture, turned back."""
    x1, y1, x2, y2 = found.boxes.T
    if width is not None:
        x1, x2 = width - x2, width - x1
    every = np.stack((found.labels, found.scores, x1, y1, x2, y2), 1)
    return every[np.lexsort(np.round(every[:, ::-1], 3).T)]


@pytest.mark.parametrize("rule", RULES)
def test_a_picture_and_its_mirror_image_show_the_same(weights: Path, picture: Image.Image, rule: Any) -> None:
    """Looked at both ways, they are the same scene, whatever the rule."""
    both = Detector(weights, device="cpu", flip=True, merge=rule)
    found, turned = both(picture), both(ImageOps.mirror(picture))
    assert len(found) > 3
    np.testing.assert_allclose(rows(found), rows(turned, width=picture.width), atol=2e-3)


@pytest.mark.parametrize("kind", ["weights", "detr"])
def test_it_merges_what_each_view_shows(request: pytest.FixtureRequest, picture: Image.Image, kind: str) -> None:
    path = request.getfixturevalue(kind)
    limits: dict[str, Any] = {"device": "cpu", "score": 0.1, "limit": 9}
    alone = [Detector(path, sides=(side,), **limits)(picture) for side in (64, 96)]
    boxes, scores, labels = (
        torch.from_numpy(np.concatenate([getattr(each, name) for each in alone]))
        for name in ("boxes", "scores", "labels")
    )
    for rule in RULES:
        expected = merge(boxes, scores, labels, Merging(rule), views=2, score_threshold=0.1, limit=9)
        found = Detector(path, sides=(64, 96), merge=rule, **limits)(picture)
        assert 0 < len(found) <= 9
        assert (found.scores > 0.1).all()
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_nms_of_several_views_is_for_every_detector(weights: Path, detr: Path, picture: Image.Image) -> None:
    for path in (weights, detr):
        counts = [len(Detector(path, device="cpu", score=0.0, flip=True, nms=nms)(picture)) for nms in (0.05, 0.95)]
        assert counts[0] < counts[1]
        merging = Merging("nms", iou=0.05)
        assert len(Detector(path, device="cpu", score=0.0, flip=True, merge=merging)(picture)) <= counts[1]
    # Of one view, or beside a merging with a threshold of its own or none, it can only be the detector's own.
    settings: tuple[dict[str, Any], ...] = (
        {},
        {"sides": (64,)},
        {"flip": True, "merge": "soft_nms"},
        {"flip": True, "merge": Merging("box_fusion", iou=0.6)},
    )
    for each in settings:
        with pytest.raises(ValueError, match=r"detr\.safetensors holds a detector without nms_threshold; leave that"):
            Detector(detr, device="cpu", nms=0.5, **each)
        assert Detector(weights, device="cpu", nms=0.3, **each).model.config.nms_threshold == 0.3  # pyright: ignore


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge": "soft_nms"}, "merge soft_nms is for several views; add sides or flip"),
        ({"merge": "soft_nms", "sides": (64,)}, "is for several views"),
        ({"merge": "mean", "flip": True}, "merge must be one of nms, soft_nms"),
    ],
)
def test_merging_that_is_refused(weights: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(weights, device="cpu", **settings)
