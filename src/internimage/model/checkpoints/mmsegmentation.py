"""What an mmsegmentation checkpoint says of itself: class names, and the rules that no weight shows.

A rule that a segmenter here can follow becomes a setting; one that it can't is refused in words, for the weights would
then mean something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from internimage.model.checkpoints.mmcv_configuration import (
    evaluate,
    find,
    is_close,
    is_same,
    normalisation,
    steps_of,
    tested_size,
    tested_steps,
)
from internimage.model.checkpoints.official.arguments import DCNV4, FLASH_BACKBONE
from internimage.structures import Colour, LabelMap, Viewing

log = logging.getLogger(__name__)
Head = Literal["upernet", "segformer", "mask2former"]
STREET = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""The classes of Cityscapes, in order: also what the released training on Mapillary made of that set's 66."""
_HEAD, _PIXELS = "model.decode_head.", "model.decode_head.pixel_decoder."
_ENCODER = _PIXELS + "encoder.transformerlayers."
_DECODER = _HEAD + "transformer_decoder.transformerlayers."
# Where a setting of `SegmenterConfig` stands in the configuration.
SETTINGS: dict[Head, dict[str, str]] = {
    "upernet": {
        "dropout": _HEAD + "dropout_ratio",
        "pool_scales": _HEAD + "pool_scales",
        "auxiliary_weight": "model.auxiliary_head.loss_decode.loss_weight",
    },
    "segformer": {"dropout": _HEAD + "dropout_ratio"},
    "mask2former": {"points": "model.train_cfg.num_points"},
}
# What is always so here; a configuration that leaves it out means the same.
_FIXED: dict[str, Any] = {
    "model.neck": "none",
    "model.backbone.out_indices": [0, 1, 2, 3],
    _HEAD + "in_index": [0, 1, 2, 3],
    _HEAD + "align_corners": False,
    _HEAD + "act_cfg.type": "ReLU",
    _HEAD + "norm_cfg.eps": 1e-5,
}
_FIXED_HEAD: dict[Head, dict[str, Any]] = {
    "upernet": {
        "model.type": "EncoderDecoder",
        _HEAD + "type": "UPerHead",
        "model.auxiliary_head.type": "FCNHead",
        "model.auxiliary_head.in_index": 2,
        "model.auxiliary_head.num_convs": 1,
        "model.auxiliary_head.concat_input": False,
        "model.auxiliary_head.align_corners": False,
    },
    "segformer": {
        "model.type": "EncoderDecoder",
        _HEAD + "type": "SegformerHead",
        _HEAD + "interpolate_mode": "bilinear",
        "model.auxiliary_head": "none",
    },
    "mask2former": {
        "model.type": "EncoderDecoderMask2Former",
        _HEAD + "type": "Mask2FormerHead",
        _HEAD + "num_transformer_feat_level": 3,
        _HEAD + "enforce_decoder_input_project": False,
        _HEAD + "positional_encoding.normalize": True,
        _PIXELS + "type": "MSDeformAttnPixelDecoder",
        _PIXELS + "num_outs": 3,
        _PIXELS + "norm_cfg.num_groups": 32,
        _PIXELS + "act_cfg.type": "ReLU",
        _PIXELS + "positional_encoding.normalize": True,
        _ENCODER + "attn_cfgs.num_levels": 3,
        _ENCODER + "attn_cfgs.num_points": 4,
        _ENCODER + "attn_cfgs.use_softmax": True,
        _ENCODER + "ffn_cfgs.act_cfg.type": "ReLU",
        _ENCODER + "operation_order": ["self_attn", "norm", "ffn", "norm"],
        _DECODER + "ffn_cfgs.act_cfg.type": "ReLU",
        _DECODER + "operation_order": ["cross_attn", "norm", "self_attn", "norm", "ffn", "norm"],
        "model.auxiliary_head": "none",
    },
}
# Of the pictures it was tested on: step, argument, value.
_FIXED_STEPS = (
    ("Resize", "keep_ratio", True),
    ("Resize", "min_size", None),
    ("Normalize", "to_rgb", True),
    ("Pad", "size", None),
    ("Pad", "size_divisor", None),
)
# The step's own default.
_MULTIPLE = 32


@dataclass(frozen=True)
class Rules:
    """What a file says beyond its weights.

    Args:
        viewing: how a picture is shown.
        settings: of `SegmenterConfig`.
        labels: class names, or None.
        palette: a colour per class, or None.
        backbone: the official constructor's arguments, or None.
    """

    viewing: Viewing
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    labels: LabelMap | None = None
    palette: tuple[Colour, ...] | None = None
    backbone: Mapping[str, Any] | None = None


def rules_of(said: Mapping[str, Any], path: str, head: Head, classes: int, usual: Viewing) -> Rules:
    """The rules in a checkpoint's ``meta``; the released configurations' where it holds no configuration.

    Args:
        said: the ``meta``.
        path: the file, for messages.
        head: of the weights.
        classes: their number of outputs; configurations and names may speak of another one.
        usual: how pictures are shown where the file does not say it.

    Raises:
        ValueError: a rule that no segmenter here follows, with the file, the rule and what would be followed; or more
            names than outputs.
    """
    text = said.get("config")
    config = evaluate(text, path, "the released segmenters' rules are used") if isinstance(text, str) else {}
    _check(config, path, head)
    settings = {name: each for name, where in SETTINGS[head].items() if (each := find(config, where)) is not None}
    viewing = _viewing(config, path, usual)
    names, palette = said.get("CLASSES"), said.get("PALETTE")
    train = find(config, "data.train.pipeline") or config.get("train_pipeline")
    if any(step.get("type") == "MapillaryHack" for step in steps_of(train)):
        # It gave the pixels of Mapillary the classes of Cityscapes; the names in the file are those before it.
        names, palette = STREET, None
    backbone = cast("dict[str, Any] | None", find(config, "model.backbone"))
    return Rules(viewing, settings, _named(names, classes, path), _colours(palette, classes, path), backbone)


def _named(names: Any, classes: int, path: str) -> LabelMap | None:
    """Names of all outputs, also of those that nothing was trained for: released ones for streets have 131 of these."""
    listed = [str(name) for name in cast(list[Any], names)] if isinstance(names, list | tuple) else []
    if not listed:
        return None
    if len(listed) > classes:
        raise ValueError(f"{path} names {len(listed)} classes, but its network has {classes} of them")
    if len(listed) < classes:
        words = "%s names %d classes, and its network has %d outputs: the others are called class %d and so on"
        log.info(words, path, len(listed), classes, len(listed))
    return LabelMap.telling_apart([*listed, *(f"class {index}" for index in range(len(listed), classes))])


def _colours(palette: Any, classes: int, path: str) -> tuple[Colour, ...] | None:
    """A colour per output, black for those without; None where they can't be read."""
    given: Any = palette.tolist() if hasattr(palette, "tolist") else palette
    rows = cast(list[Any], given) if isinstance(given, list | tuple) else []
    if len(rows) > classes or not all(map(is_colour, rows)):
        log.warning("%s has a palette that can't be read: its colours are left out", path)
        return None
    colours = [cast(Colour, tuple(row)) for row in rows]
    return (*colours, *[(0, 0, 0)] * (classes - len(rows))) if colours else None


def is_colour(given: Any) -> bool:
    """Whether these are red, green and blue from 0 to 255."""
    values = cast(list[Any], given) if isinstance(given, list | tuple) else []
    return len(values) == 3 and all(type(each) is int and 0 <= each <= 255 for each in values)


def _check(config: dict[str, Any], path: str, head: Head) -> None:
    asked = [(where, find(config, where), wanted) for where, wanted in (_FIXED | _FIXED_HEAD[head]).items()]
    if head == "mask2former":
        # One number serves both here, and only the encoder's shows in the weights.
        heads = [find(config, where + "attn_cfgs.num_heads") for where in (_DECODER, _ENCODER)]
        asked.append((_DECODER + "attn_cfgs.num_heads", heads[0], heads[1] or heads[0]))
    else:
        outputs = find(config, _HEAD + "out_channels")
        asked.append((_HEAD + "out_channels", 1 if outputs == 1 else None, "an output per class"))
    for where, given, wanted in asked:
        if given is not None and not is_same(given, wanted):
            raise ValueError(f"{path} was made with {where}={given}, and a segmenter here follows {wanted} only")


def _viewing(config: dict[str, Any], path: str, usual: Viewing) -> Viewing:
    """Size, windows and normalisation of its test pictures."""
    steps = tested_steps(config)
    for kind, name, wanted in _FIXED_STEPS:
        given = next((step[name] for step in steps if step.get("type") == kind and name in step), wanted)
        if given != wanted:
            raise ValueError(
                f"{path} was tested with {kind}.{name}={given}, and a segmenter here follows {wanted} only"
            )
    changes: dict[str, Any] = {}
    if steps:
        multiples = [step.get("size_divisor", _MULTIPLE) for step in steps if step.get("type") == "ResizeToMultiple"]
        own_size = any("img_scale" in step and step["img_scale"] is None for step in steps)
        changes["frame"] = None if own_size else tested_size(steps, path) or usual.frame
        changes["multiple"] = (*multiples, 1)[0]
        if any(step.get("img_ratios") not in (None, 1.0, [1.0]) or step.get("flip") for step in steps):
            log.info("%s was tested at several sizes or mirrored; here it looks at a picture once", path)
    else:
        log.warning("%s does not say how its pictures were prepared: %s is used", path, usual)
    normal = normalisation(steps, path)
    if normal and not (is_close(normal[0], usual.mean) and is_close(normal[1], usual.std)):
        changes["mean"], changes["std"] = normal
    how: Any = find(config, "model.test_cfg") or config.get("test_cfg")
    mode = find(how, "mode")
    if mode not in (None, "whole", "slide"):
        raise ValueError(f"{path} was tested with mode={mode}, and a segmenter here follows whole and slide only")
    if mode is not None:
        changes["window"] = find(how, "crop_size") if mode == "slide" else None
        changes["stride"] = find(how, "stride") if mode == "slide" else None
    try:
        return replace(usual, **changes)
    except ValueError as error:
        raise ValueError(f"{path} was tested on pictures that can't be shown so here: {error}") from None


def configuration_of(backbone: Mapping[str, Any], head: Head, settings: Mapping[str, Any], viewing: Viewing) -> str:
    """A configuration as text, from which `rules_of` reads the same.

    Args:
        backbone: the official constructor's arguments.
        head: of the weights.
        settings: of `SegmenterConfig`, by name.
        viewing: how a picture is shown.
    """
    kind = FLASH_BACKBONE if backbone.get("core_op") == DCNV4 else "InternImage"
    model: dict[str, Any] = {
        "type": _FIXED_HEAD[head]["model.type"],
        "backbone": {"type": kind, **backbone, "out_indices": (0, 1, 2, 3)},
        "decode_head": {"type": _FIXED_HEAD[head][_HEAD + "type"], "align_corners": False},
        "test_cfg": {"mode": "whole"},
    }
    for name, where in SETTINGS[head].items():
        inner = model
        *path, last = where.split(".")[1:]
        for each in path:
            inner = inner.setdefault(each, {})
        inner[last] = settings[name]
    if viewing.window:
        model["test_cfg"] = {"mode": "slide", "crop_size": viewing.window, "stride": viewing.steps}
    resized = [{"type": "ResizeToMultiple", "size_divisor": viewing.multiple}] if viewing.multiple > 1 else []
    mean, std = ([round(255 * each, 6) for each in values] for values in (viewing.mean, viewing.std))
    steps = [
        {"type": "Resize", "keep_ratio": True},
        *resized,
        {"type": "RandomFlip"},
        {"type": "Normalize", "mean": mean, "std": std, "to_rgb": True},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"]},
    ]
    scale = {"img_scale": viewing.frame[::-1]} if viewing.frame else {"img_scale": None, "img_ratios": [1.0]}
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "MultiScaleFlipAug", **scale, "flip": False, "transforms": steps},
    ]
    return f"model = {model!r}\ntest_pipeline = {pipeline!r}\n"
