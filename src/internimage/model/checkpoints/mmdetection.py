"""What an mmdetection checkpoint says of itself: the rules that no weight shows, read from the configuration inside.

A rule that a detector here can follow becomes a setting; one that it can't is refused in words, for the weights would
then mean something else.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

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
# What is always so here; a configuration that leaves it out means the same.
_FIXED: dict[str, Any] = {
    "model.neck.type": "FPN",
    "model.neck.num_outs": 5,
    "model.neck.start_level": 0,
    "model.rpn_head.anchor_generator.scales": [8],
    "model.rpn_head.anchor_generator.ratios": [0.5, 1.0, 2.0],
    "model.rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "model.rpn_head.anchor_generator.center_offset": 0.0,
    "model.rpn_head.bbox_coder.target_means": [0.0] * 4,
    "model.rpn_head.bbox_coder.target_stds": [1.0] * 4,
    "model.roi_head.bbox_roi_extractor.type": "SingleRoIExtractor",
    "model.roi_head.bbox_roi_extractor.roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
    "model.roi_head.bbox_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "model.roi_head.mask_roi_extractor.roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
    "model.test_cfg.rpn.nms.type": "nms",
    "model.test_cfg.rpn.nms.iou_threshold": 0.7,
    "model.test_cfg.rpn.min_bbox_size": 0,
    "model.test_cfg.rcnn.nms.type": "nms",
}
_FIXED_HEAD: dict[str, Any] = {
    "bbox_coder.type": "DeltaXYWHBBoxCoder",
    "bbox_coder.target_means": [0.0] * 4,
    "reg_class_agnostic": False,
    "loss_cls.use_sigmoid": False,
}
_STDS = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])


@dataclass(frozen=True)
class Rules:
    """What a file's configuration asks for beyond its weights.

    Args:
        settings: of `DetectorConfig`.
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
    names = said.get("CLASSES")
    listed = [str(name) for name in cast(list[Any], names)] if isinstance(names, list | tuple) else []
    labels = LabelMap.telling_apart(listed) if listed else None
    text = said.get("config")
    if not isinstance(text, str):
        log.info("%s holds no configuration: the released detectors' limits and thresholds are used", path)
        return Rules(labels=labels)
    try:
        config = _evaluate(text)
    except (SyntaxError, ValueError) as error:
        log.warning("%s: its configuration can't be read (%s): the released detectors' rules are used", path, error)
        return Rules(labels=labels)
    _check(config, path)
    settings = {name: value for name, where in _SETTINGS.items() if (value := _find(config, where)) is not None}
    backbone = _find(config, "model.backbone")
    return Rules(settings, labels, _framing(config, path), cast("dict[str, Any] | None", backbone))


def _check(config: Mapping[str, Any], path: str) -> None:
    asked = [(where, _find(config, where), wanted) for where, wanted in _FIXED.items()]
    heads: Any = _find(config, "model.roi_head.bbox_head")
    for stage, head in enumerate(cast(list[Any], heads) if isinstance(heads, list) else [heads]):
        wanted = _FIXED_HEAD | {"bbox_coder.target_stds": _STDS[min(stage, 2)]}
        asked += [(f"bbox_head.{stage}.{where}", _find(head, where), each) for where, each in wanted.items()]
    for where, given, wanted in asked:
        if given is not None and given != wanted:
            raise ValueError(f"{path} was made with {where}={given}, and a detector here follows {wanted} only")


def _framing(config: Mapping[str, Any], path: str) -> Framing:
    """Size and normalisation of its test pictures."""
    base, steps = Framing(), _steps(config.get("test_pipeline"))
    scale: Any = next((step["img_scale"] for step in steps if "img_scale" in step), None)
    normal = next((step for step in steps if step.get("type") == "Normalize"), None)
    if scale is not None and (not isinstance(scale, tuple) or len(cast(tuple[Any, ...], scale)) != 2):
        log.warning("%s was tested at several scales (%r); the usual one is used", path, cast(object, scale))
        scale = None
    if normal is not None and not normal.get("to_rgb", False):
        raise ValueError(f"{path} takes BGR pictures (to_rgb=False), and a detector here takes RGB only")
    mean, std = (tuple(each / 255 for each in normal[key]) if normal else () for key in ("mean", "std"))
    frame = base.frame if scale is None else cast(tuple[int, int], tuple(sorted(cast(tuple[int, int], scale))))
    if normal is None or (_close(mean, base.mean) and _close(std, base.std)):
        return Framing(frame)
    return Framing(frame, mean, std)


def _close(some: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return len(some) == len(others) and all(abs(a - b) < 1e-5 for a, b in zip(some, others, strict=True))


def _steps(pipeline: Any) -> list[dict[str, Any]]:
    """All steps of a pipeline, also those inside others."""
    found: list[dict[str, Any]] = []
    for step in cast(list[Any], pipeline) if isinstance(pipeline, list) else []:
        if isinstance(step, dict):
            named = cast(dict[str, Any], step)
            found += [named, *_steps(named.get("transforms"))]
    return found


def _find(config: Any, where: str) -> Any:
    for name in where.split("."):
        if not isinstance(config, dict):
            return None
        config = cast(dict[str, Any], config).get(name)
    return config


def _evaluate(text: str) -> dict[str, Any]:
    """The values of a configuration as mmcv writes it down: assignments of literals and ``dict(...)``, no code."""
    values: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = _value(statement.value)
    return values


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {str(each.arg): _value(each.value) for each in node.keywords}
    if isinstance(node, ast.List):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(each) for each in node.elts)
    if isinstance(node, ast.Dict):
        return {_value(key) if key else "": _value(each) for key, each in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)
