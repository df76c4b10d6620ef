"""Rules in an mmdetection checkpoint's configuration: followed, or refused in words; its text is never run."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from internimage.model.checkpoints.mmdetection import Rules, rules_of
from internimage.model.detection import DetectorConfig
from internimage.structures import Framing
from support.mmdetection import CONFIG, changed, text_of

STEPS = "test_pipeline.1.transforms"


def rules(config: dict[str, Any], **said: Any) -> Rules:
    return rules_of({"config": text_of(config), **said}, "x.pth")


def test_the_released_rules_are_the_defaults() -> None:
    found, defaults = rules(CONFIG), DetectorConfig.from_variant("t")
    known = {each.name for each in fields(DetectorConfig)}
    assert set(found.settings) == known & set(found.settings)
    assert len(found.settings) == 6
    assert all(getattr(defaults, name) == value for name, value in found.settings.items())
    assert (found.labels, found.framing, found.backbone) == (None, Framing(), None)


@pytest.mark.parametrize(
    ("where", "value", "setting"),
    [
        ("model.test_cfg.rpn.nms_pre", 200, "proposals_per_level"),
        ("model.test_cfg.rpn.max_per_img", 40, "proposals"),
        ("model.test_cfg.rcnn.max_per_img", 12, "detections"),
        ("model.test_cfg.rcnn.score_thr", 0.3, "score_threshold"),
        ("model.test_cfg.rcnn.nms.iou_threshold", 0.6, "nms_threshold"),
        ("model.test_cfg.rcnn.mask_thr_binary", 0.4, "mask_threshold"),
    ],
)
def test_a_limit_becomes_a_setting(where: str, value: float, setting: str) -> None:
    found = rules(changed(where, value)).settings
    assert found[setting] == value
    assert {name: found[name] for name in found if name != setting} == {
        name: each for name, each in rules(CONFIG).settings.items() if name != setting
    }


def test_one_scale_for_boxes_and_masks() -> None:
    config = changed("model.roi_head.bbox_roi_extractor.finest_scale", 28)
    config["model"]["roi_head"]["mask_roi_extractor"]["finest_scale"] = 28
    assert rules(config).settings["finest_scale"] == 28
    for kind, given, followed in (("bbox", 56, 28), ("mask", 28, 56)):
        config = changed(f"model.roi_head.{kind}_roi_extractor.finest_scale", 28)
        config["model"]["roi_head"]["mask_roi_extractor"].setdefault("finest_scale", 56)
        message = rf"x\.pth was made with .*mask_roi_extractor\.finest_scale={given}, .* follows {followed} only"
        with pytest.raises(ValueError, match=message):
            rules(config)


@pytest.mark.parametrize(
    ("where", "value", "followed"),
    [
        ("model.neck.type", "PAFPN", "FPN"),
        ("model.neck.num_outs", 4, "5"),
        ("model.neck.start_level", 1, "0"),
        ("model.neck.upsample_cfg.mode", "bilinear", "nearest"),
        ("model.rpn_head.anchor_generator.type", "LegacyAnchorGenerator", "AnchorGenerator"),
        ("model.rpn_head.anchor_generator.scales", [4], r"\[8\]"),
        ("model.rpn_head.anchor_generator.ratios", [1.0], r"\[0\.5, 1\.0, 2\.0\]"),
        ("model.rpn_head.anchor_generator.strides", [8, 16, 32, 64, 128], r"\[4, 8, 16, 32, 64\]"),
        ("model.rpn_head.anchor_generator.center_offset", 0.5, r"0\.0"),
        ("model.rpn_head.bbox_coder.type", "LegacyDeltaXYWHBBoxCoder", "DeltaXYWHBBoxCoder"),
        ("model.rpn_head.bbox_coder.target_means", [0.0, 0.0, 0.0, 0.1], r"\[0\.0, 0\.0, 0\.0, 0\.0\]"),
        ("model.rpn_head.bbox_coder.target_stds", [0.1, 0.1, 0.2, 0.2], r"\[1\.0, 1\.0, 1\.0, 1\.0\]"),
        ("model.rpn_head.bbox_coder.clip_border", False, "True"),
        ("model.roi_head.bbox_roi_extractor.type", "GenericRoIExtractor", "SingleRoIExtractor"),
        ("model.roi_head.bbox_roi_extractor.featmap_strides", [8, 16, 32], r"\[4, 8, 16, 32\]"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.type", "RoIPool", "RoIAlign"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.output_size", 14, "7"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio", 2, "0"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.aligned", False, "True"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.pool_mode", "max", "avg"),
        ("model.roi_head.mask_roi_extractor.type", "GenericRoIExtractor", "SingleRoIExtractor"),
        ("model.roi_head.mask_roi_extractor.featmap_strides", [8, 16, 32], r"\[4, 8, 16, 32\]"),
        ("model.roi_head.mask_roi_extractor.roi_layer.type", "RoIPool", "RoIAlign"),
        ("model.roi_head.mask_roi_extractor.roi_layer.output_size", 28, "14"),
        ("model.roi_head.mask_roi_extractor.roi_layer.sampling_ratio", 2, "0"),
        ("model.roi_head.mask_roi_extractor.roi_layer.aligned", False, "True"),
        ("model.test_cfg.rpn.nms.type", "soft_nms", "nms"),
        ("model.test_cfg.rpn.nms.iou_threshold", 0.8, r"0\.7"),
        ("model.test_cfg.rpn.min_bbox_size", 4, "0"),
        ("model.test_cfg.rpn.nms_pre", -1, "limits of 1 or more"),
        ("model.test_cfg.rpn.max_per_img", 0, "limits of 1 or more"),
        ("model.test_cfg.rcnn.max_per_img", -1, "limits of 1 or more"),
        ("model.test_cfg.rcnn.nms.type", "soft_nms", "nms"),
        ("model.test_cfg.rcnn.nms.class_agnostic", True, "False"),
    ],
)
def test_another_rule_is_refused(where: str, value: Any, followed: str) -> None:
    with pytest.raises(ValueError, match=rf"^x\.pth was made with {where}=.* follows {followed} only$") as error:
        rules(changed(where, value))
    assert f"{where}={value}" in str(error.value)


@pytest.mark.parametrize(
    ("where", "value", "followed"),
    [
        ("bbox_coder.type", "TBLRBBoxCoder", "DeltaXYWHBBoxCoder"),
        ("bbox_coder.target_means", [0.1] * 4, r"\[0\.0, 0\.0, 0\.0, 0\.0\]"),
        ("bbox_coder.target_stds", [0.2, 0.2, 0.2, 0.2], r"\[0\.\d+, .*\]"),
        ("bbox_coder.clip_border", False, "True"),
        ("reg_class_agnostic", True, "False"),
        ("loss_cls.use_sigmoid", True, "False"),
        ("cls_predictor_cfg.type", "NormedLinear", "Linear"),
        ("reg_predictor_cfg.type", "NormedLinear", "Linear"),
    ],
)
@pytest.mark.parametrize("stage", [None, 0, 2])
def test_another_rule_of_a_box_head_is_refused(where: str, value: Any, followed: str, stage: int | None) -> None:
    if stage is None:
        config = changed(f"model.roi_head.bbox_head.{where}", value)
    else:
        head = CONFIG["model"]["roi_head"]["bbox_head"]
        stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        heads = [head | {"bbox_coder": head["bbox_coder"] | {"target_stds": each}} for each in stds]
        whole = changed("model.roi_head.bbox_head", heads)
        assert rules(whole), "as released"
        *path, last = where.split(".")
        inner = heads[stage] = {**heads[stage]}
        for name in path:
            inner[name] = inner = {**inner.get(name, {})}
        inner[last] = value
        config = changed("model.roi_head.bbox_head", heads)
    message = rf"^x\.pth was made with bbox_head\.{stage or 0}\.{where}=.* follows {followed} only$"
    with pytest.raises(ValueError, match=message):
        rules(config)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("model.rpn_head.anchor_generator.scales", (8,)),
        ("model.rpn_head.bbox_coder.target_stds", (1.0, 1.0, 1.0, 1.0)),
        ("model.roi_head.bbox_roi_extractor.roi_layer", {"type": "RoIAlign", "output_size": (7, 7)}),
        ("model.roi_head.mask_roi_extractor.roi_layer", {"type": "RoIAlign", "output_size": 14, "aligned": True}),
        ("model.roi_head.mask_roi_extractor", None),
        ("model.neck", {"type": "FPN"}),
        ("test_pipeline.1.img_scale", [(1333, 800)]),
    ],
)
def test_another_way_to_say_the_same(where: str, value: Any) -> None:
    assert rules(changed(where, value)) == rules(CONFIG)


class TestPictures:
    @pytest.mark.parametrize("scale", [(224, 152), (152, 224)])
    def test_size(self, scale: tuple[int, int]) -> None:
        assert rules(changed("test_pipeline.1.img_scale", scale)).framing == Framing((152, 224))

    def test_what_was_tested_counts(self) -> None:
        """Not a variable of the same name that nothing refers to."""
        config = changed("data.test.pipeline", [{"type": "Resize", "img_scale": (500, 400), "keep_ratio": True}])
        assert rules(config).framing.frame == (400, 500)
        del config["data"]
        assert rules(config).framing.frame == (800, 1333)

    def test_mean_and_deviation(self) -> None:
        normal = {"type": "Normalize", "mean": [127.5, 102.0, 51.0], "std": [51.0, 25.5, 127.5]}
        framing = rules(changed(f"{STEPS}.2", normal)).framing
        assert framing.mean == pytest.approx((0.5, 0.4, 0.2))
        assert framing.std == pytest.approx((0.2, 0.1, 0.5))

    def test_several_scales(self, caplog: pytest.LogCaptureFixture) -> None:
        assert rules(changed("test_pipeline.1.img_scale", [(1333, 800), (1333, 640)])).framing == Framing()
        assert "x.pth was tested at several scales ([(1333, 800), (1333, 640)]); the usual one is used" in caplog.text

    @pytest.mark.parametrize(
        ("step", "name", "value"), [(0, "keep_ratio", False), (2, "to_rgb", False), (3, "size_divisor", 1)]
    )
    def test_another_preparation_is_refused(self, step: int, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"^x\.pth was tested with \w+\.{name}={value}, .* only$"):
            rules(changed(f"{STEPS}.{step}.{name}", value))


class TestText:
    """Whoever publishes a file writes this text: it is data."""

    def test_code_is_not_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "harm"
        code = f"__import__('pathlib').Path({str(path)!r}).touch()"
        for text in (code, f"model = {code}", f"model = dict(type={code})", f"model = [{code}]"):
            assert rules_of({"config": text}, "x.pth") == Rules()
        assert not path.exists()
        assert "x.pth: model in its configuration can't be read" in caplog.text
        with pytest.raises(ValueError, match="PAFPN"):
            rules_of({"config": f"{code}\nmodel = dict(neck=dict(type='PAFPN'))\nother = {code}"}, "x.pth")

    @pytest.mark.parametrize(
        "text",
        ["model = dict(", "model = \0", "(" * 5000, "model = " + "[" * 300 + "]" * 300, "model = {[]: 1}", "dict(**x)"],
    )
    def test_no_configuration(self, text: str, caplog: pytest.LogCaptureFixture) -> None:
        assert rules_of({"config": text}, "x.pth") == Rules()
        if text != "dict(**x)":
            assert "the released detectors' rules are used" in caplog.text

    def test_paths_of_windows(self) -> None:
        text = f"data_root = 'C:\\data\\set'\n{text_of(changed('model.test_cfg.rcnn.score_thr', 0.3))}"
        assert rules_of({"config": text}, "x.pth").settings["score_threshold"] == 0.3

    def test_names_that_are_none(self) -> None:
        text = "model = dict(neck={'type': 'FPN', '': 1}, backbone=dict(channels=64))\nx.y = 3\na, b = 1, 2\ndel a\n"
        assert rules_of({"config": text}, "x.pth").backbone == {"channels": 64}

    def test_without_configuration(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "internimage"):
            assert rules_of({}, "x.pth") == Rules()
        assert "x.pth holds no configuration: the released detectors' limits and thresholds are used" in caplog.text


def test_class_names() -> None:
    assert rules(CONFIG, CLASSES=("ant", "bee", "cow")).labels == rules(CONFIG, CLASSES=["ant", "bee", "cow"]).labels
    found = rules(CONFIG, CLASSES=("ant", "bee", "ant")).labels
    assert found is not None
    assert found.names == ("ant (0)", "bee", "ant (2)")
    assert rules(CONFIG, CLASSES=()).labels is None
    assert rules(CONFIG, CLASSES="nucleus").labels is None
