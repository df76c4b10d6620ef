"""What an mmdetection checkpoint says of itself: the rules that no weight shows, read from the configuration inside.

A rule that a detector here can follow becomes a setting; one that it can't is refused in words, for the weights would
then mean something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from internimage.model.checkpoints.mmcv_configuration import (
    evaluate,
    find,
    is_close,
    is_same,
    normalisation,
    tested_size,
    tested_steps,
)
from internimage.structures import Framing, LabelMap

log = logging.getLogger(__name__)
# Where a setting of `DetectorConfig` stands in the configuration.
_SETTINGS = {
    "finest_scale": "model.roi_head.bbox_roi_extractor.finest_scale",
    "proposals_per_level": "model.test_cfg.rpn.nms_pre",
    "proposals": "model.test_cfg.rpn.max_per_img",
    "detections": "model.test_cfg.rcnn.max_per_img",
    "score_threshold": "model.test_cfg.rcnn.score_thr",
    "nms_threshold": "model.test_cfg.rcnn.nms.iou_threshold",
    "mask_threshold": "model.test_cfg.rcnn.mask_thr_binary",
}
_FIXED_POOLING: dict[str, Any] = {
    "type": "SingleRoIExtractor",
    "featmap_strides": [4, 8, 16, 32],
    "roi_layer.type": "RoIAlign",
    "roi_layer.sampling_ratio": 0,
    "roi_layer.pool_mode": "avg",
    "roi_layer.aligned": True,
}
# What is always so here; a configuration that leaves it out means the same.
_FIXED: dict[str, Any] = {
    "model.neck.num_outs": 5,
    "model.neck.start_level": 0,
    "model.neck.upsample_cfg.mode": "nearest",
    "model.neck.use_residual": True,
    "model.rpn_head.anchor_generator.type": "AnchorGenerator",
    "model.rpn_head.anchor_generator.scales": [8],
    "model.rpn_head.anchor_generator.ratios": [0.5, 1.0, 2.0],
    "model.rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "model.rpn_head.anchor_generator.center_offset": 0.0,
    "model.rpn_head.bbox_coder.type": "DeltaXYWHBBoxCoder",
    "model.rpn_head.bbox_coder.target_means": [0.0] * 4,
    "model.rpn_head.bbox_coder.target_stds": [1.0] * 4,
    "model.rpn_head.bbox_coder.clip_border": True,
    **{f"model.roi_head.bbox_roi_extractor.{where}": each for where, each in _FIXED_POOLING.items()},
    "model.roi_head.bbox_roi_extractor.roi_layer.output_size": 7,
    **{f"model.roi_head.mask_roi_extractor.{where}": each for where, each in _FIXED_POOLING.items()},
    "model.roi_head.mask_roi_extractor.roi_layer.output_size": 14,
    "model.test_cfg.rpn.nms.type": "nms",
    "model.test_cfg.rpn.nms.iou_threshold": 0.7,
    "model.test_cfg.rpn.min_bbox_size": 0,
    "model.test_cfg.rcnn.nms.type": "nms",
    "model.test_cfg.rcnn.nms.class_agnostic": False,
}
_FIXED_HEAD: dict[str, Any] = {
    "bbox_coder.type": "DeltaXYWHBBoxCoder",
    "bbox_coder.target_means": [0.0] * 4,
    "bbox_coder.clip_border": True,
    "cls_predictor_cfg.type": "Linear",
    "reg_predictor_cfg.type": "Linear",
    "reg_class_agnostic": False,
    "loss_cls.use_sigmoid": False,
}
# Of the pictures it was tested on: step, argument, value.
_FIXED_STEPS = (("Resize", "keep_ratio", True), ("Normalize", "to_rgb", True), ("Pad", "size_divisor", 32))
# The extractor's own default.
_FINEST_SCALE = 56
_STDS = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])


@dataclass(frozen=True)
class Rules:
    """What a file's configuration asks for beyond its weights.

    Args:
        settings: of the detector's configuration, such as `DetectorConfig`.
        labels: class names, or None.
        framing: how pictures become inputs.
        backbone: the official constructor's arguments, or None.
    """

    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    labels: LabelMap | None = None
    framing: Framing = Framing()  # noqa: RUF009 (it is frozen)
    backbone: Mapping[str, Any] | None = None


def rules_of(said: Mapping[str, Any], path: str) -> Rules:
    """The rules in a checkpoint's ``meta``; the released configurations' where it holds no configuration.

    Raises:
        ValueError: a rule that no detector here follows; with the file, the rule and what would be followed.
    """
    rules, config = said_by(said, path)
    _check(config, path)
    settings = {name: value for name, where in _SETTINGS.items() if (value := find(config, where)) is not None}
    return replace(rules, settings=settings)


def said_by(said: Mapping[str, Any], path: str) -> tuple[Rules, dict[str, Any]]:
    """What every detector's ``meta`` can say (labels, framing, backbone), and its configuration, perhaps empty.

    Raises:
        ValueError: pictures were prepared as none are here.
    """
    names = said.get("CLASSES")
    listed = [str(name) for name in cast(list[Any], names)] if isinstance(names, list | tuple) else []
    labels = LabelMap.telling_apart(listed) if listed else None
    text = said.get("config")
    if not isinstance(text, str):
        log.info("%s holds no configuration: the released detectors' limits and thresholds are used", path)
        return Rules(labels=labels), {}
    config = evaluate(text, path, "the released detectors' rules are used")
    backbone = cast("dict[str, Any] | None", find(config, "model.backbone"))
    return Rules(labels=labels, framing=_framing(config, path), backbone=backbone), config


def _check(config: dict[str, Any], path: str) -> None:
    asked = [(where, find(config, where), wanted) for where, wanted in _FIXED.items()]
    heads: Any = find(config, "model.roi_head.bbox_head")
    for stage, head in enumerate(cast(list[Any], heads) if isinstance(heads, list) else [heads]):
        wanted = _FIXED_HEAD | {"bbox_coder.target_stds": _STDS[min(stage, 2)]}
        asked += [(f"bbox_head.{stage}.{where}", find(head, where), each) for where, each in wanted.items()]
    # The second is the first with norms, which show in the weights.
    neck = find(config, "model.neck.type")
    asked.append(("model.neck.type", None if neck == "FPN_vitdet" else neck, "FPN"))
    # Boxes and masks are read from the same levels here.
    scales = [find(config, f"model.roi_head.{kind}_roi_extractor.finest_scale") for kind in ("mask", "bbox")]
    asked.append(("model.roi_head.mask_roi_extractor.finest_scale", scales[0], scales[1] or _FINEST_SCALE))
    for name in ("proposals_per_level", "proposals", "detections"):
        limit: Any = find(config, _SETTINGS[name])
        asked.append((_SETTINGS[name], limit if isinstance(limit, int) and limit < 1 else None, "limits of 1 or more"))
    for where, given, wanted in asked:
        if given is not None and not is_same(given, wanted):
            raise ValueError(f"{path} was made with {where}={given}, and a detector here follows {wanted} only")


def _framing(config: dict[str, Any], path: str) -> Framing:
    """Size and normalisation of its test pictures."""
    base, steps = Framing(), tested_steps(config)
    for kind, name, wanted in _FIXED_STEPS:
        given = next((step[name] for step in steps if step.get("type") == kind and name in step), wanted)
        if given != wanted:
            raise ValueError(f"{path} was tested with {kind}.{name}={given}, and a detector here follows {wanted} only")
    frame, normal = tested_size(steps, path) or base.frame, normalisation(steps, path)
    if normal is None or (is_close(normal[0], base.mean) and is_close(normal[1], base.std)):
        return Framing(frame)
    return Framing(frame, *normal)
