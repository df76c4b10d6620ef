"""What a released DINO's checkpoint says of itself beyond its weights: settings, and rules that can't be otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from internimage.model.checkpoints.mmcv_configuration import find, is_same
from internimage.model.checkpoints.mmdetection import Rules, said_by

_HEAD, _TRANSFORMER = "model.bbox_head.", "model.bbox_head.transformer."
_LAYERS = tuple(f"{_TRANSFORMER}{half}.transformerlayers." for half in ("encoder", "decoder"))
# Where a setting of `DinoConfig` stands in the configuration.
_SETTINGS = {
    "detections": "model.test_cfg.max_per_img",
    "denoising_queries": _HEAD + "dn_cfg.group_cfg.num_dn_queries",
    "label_noise": _HEAD + "dn_cfg.noise_scale.label",
    "box_noise": _HEAD + "dn_cfg.noise_scale.box",
}
# What is always so here; a configuration that leaves it out means the same.
_FIXED: dict[str, Any] = {
    _HEAD + "as_two_stage": True,
    _HEAD + "with_box_refine": True,
    _HEAD + "dn_cfg.group_cfg.dynamic": True,
    _HEAD + "loss_cls.use_sigmoid": True,
    "model.neck.norm_cfg.type": "GN",
    "model.neck.norm_cfg.num_groups": 32,
    _HEAD + "positional_encoding.type": "SinePositionalEncoding",
    _HEAD + "positional_encoding.temperature": 20,
    _HEAD + "positional_encoding.normalize": True,
    _HEAD + "positional_encoding.offset": 0.0,
    _TRANSFORMER + "decoder.with_rp_noise": False,
    _LAYERS[0] + "operation_order": ["self_attn", "norm", "ffn", "norm"],
    _LAYERS[1] + "operation_order": ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"],
    **{layer + "ffn_cfgs.act_cfg.type": "ReLU" for layer in _LAYERS},
}
_HEADS = 8


def dino_rules(said: Mapping[str, Any], path: str) -> Rules:
    """The rules in a checkpoint's ``meta``; the released configurations' where it holds no configuration.

    Raises:
        ValueError: a rule that a DINO here does not follow; with the file, the rule and what would be followed.
    """
    rules, config = said_by(said, path)
    asked = [(where, find(config, where), wanted) for where, wanted in _FIXED.items()]
    asked += [(where, heads, _HEADS) for where, heads in _head_counts(config)]
    for where, given, wanted in asked:
        if given is not None and not is_same(given, wanted):
            raise ValueError(f"{path} was made with {where}={given}, and a DINO here follows {wanted} only")
    settings = {name: value for name, where in _SETTINGS.items() if (value := find(config, where)) is not None}
    return Rules(settings, rules.labels, rules.framing, rules.backbone)


def _head_counts(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """Of every attention: the weights do not show them."""
    counts: list[tuple[str, Any]] = []
    for layer in _LAYERS:
        given: Any = find(config, layer + "attn_cfgs")
        for number, attention in enumerate(cast(list[Any], given) if isinstance(given, list) else [given]):
            counts.append((f"{layer}attn_cfgs.{number}.num_heads", find(attention, "num_heads")))
    return counts
