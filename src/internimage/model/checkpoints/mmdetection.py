"""What an mmdetection checkpoint says of itself: the rules that no weight shows, read from the configuration inside.

A rule that a detector here can follow becomes a setting; one that it can't is refused in words, for the weights would
then mean something else.
"""

from __future__ import annotations

import ast
import logging
import warnings
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
    "model.neck.type": "FPN",
    "model.neck.num_outs": 5,
    "model.neck.start_level": 0,
    "model.neck.upsample_cfg.mode": "nearest",
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
# What of a configuration is looked at, and how text fails to be one.
_READ = ("model", "data", "test_pipeline")
_UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)


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
    config = _evaluate(text, path)
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
    # Boxes and masks are read from the same levels here.
    scales = [_find(config, f"model.roi_head.{kind}_roi_extractor.finest_scale") for kind in ("mask", "bbox")]
    asked.append(("model.roi_head.mask_roi_extractor.finest_scale", scales[0], scales[1] or _FINEST_SCALE))
    for name in ("proposals_per_level", "proposals", "detections"):
        limit: Any = _find(config, _SETTINGS[name])
        asked.append((_SETTINGS[name], limit if isinstance(limit, int) and limit < 1 else None, "limits of 1 or more"))
    for where, given, wanted in asked:
        if given is not None and not _is_same(given, wanted):
            raise ValueError(f"{path} was made with {where}={given}, and a detector here follows {wanted} only")


def _is_same(given: Any, wanted: Any) -> bool:
    """Tuples count as lists, and one side of a square as both."""
    if isinstance(given, tuple):
        given = list(cast(tuple[Any, ...], given))
    return given in (wanted, [wanted, wanted])


def _framing(config: Mapping[str, Any], path: str) -> Framing:
    """Size and normalisation of its test pictures."""
    # What `data` says was done; `test_pipeline` is mostly where that was written down.
    base, steps = Framing(), _steps(_find(config, "data.test.pipeline") or config.get("test_pipeline"))
    scale: Any = next((step["img_scale"] for step in steps if "img_scale" in step), None)
    if isinstance(scale, list) and len(cast(list[Any], scale)) == 1:
        (scale,) = cast(list[Any], scale)
    normal = next((step for step in steps if step.get("type") == "Normalize"), None)
    for kind, name, wanted in _FIXED_STEPS:
        given = next((step[name] for step in steps if step.get("type") == kind and name in step), wanted)
        if given != wanted:
            raise ValueError(f"{path} was tested with {kind}.{name}={given}, and a detector here follows {wanted} only")
    if scale is not None and (not isinstance(scale, tuple) or len(cast(tuple[Any, ...], scale)) != 2):
        log.warning("%s was tested at several scales (%r); the usual one is used", path, cast(object, scale))
        scale = None
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


def _evaluate(text: str, path: str) -> dict[str, Any]:
    """The values of a configuration as mmcv writes it down: assignments of literals and ``dict(...)``, no code."""
    values: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            # Of a path with backslashes, which mmcv does not escape.
            warnings.simplefilter("ignore")
            statements = ast.parse(text).body
    except _UNREADABLE as error:
        log.warning("%s: its configuration can't be read (%s): the released detectors' rules are used", path, error)
        return values
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            try:
                values[name] = _value(statement.value)
            except _UNREADABLE as error:
                if name in _READ:
                    words = "%s: %s in its configuration can't be read (%s): the released detectors' rules are used"
                    log.warning(words, path, name, error)
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
