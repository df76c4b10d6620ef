"""The released constructors' arguments and our configuration, in both directions: InternImage's and FlashInternImage's.

Source: classification/models of the released code: intern_image.py (InternImage, 31c962d), flash_intern_image.py
(DCNv4, 4b848f7).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, cast

from internimage.model.config import Activation, InternImageConfig

# Official constructor argument -> our field, where the value carries over as it is.
FIELDS = {
    "channels": "channels",
    "depths": "depths",
    "groups": "groups",
    "num_classes": "num_classes",
    "mlp_ratio": "mlp_ratio",
    "drop_rate": "drop_rate",
    "drop_path_rate": "drop_path_rate",
    "drop_path_type": "drop_path_schedule",
    "layer_scale": "layer_scale",
    "offset_scale": "offset_scale",
    "post_norm": "post_norm",
    "cls_scale": "head_ratio",
    "with_cp": "gradient_checkpointing",
    "dw_kernel_size": "dw_kernel_size",
    "res_post_norm": "res_post_norm",
    "center_feature_scale": "center_feature_scale",
    "remove_center": "remove_center",
}
# Of FlashInternImage alone: InternImage always has these biases.
FLASH_FIELDS = {"dcn_output_bias": "core_output_bias", "mlp_fc2_bias": "mlp_output_bias"}
_OTHERS = (
    "core_op",
    "act_layer",
    "norm_layer",
    "use_clip_projector",
    "level2_post_norm",
    "level2_post_norm_block_ids",
)
OFFICIAL_ARGUMENTS = frozenset({*FIELDS, *FLASH_FIELDS, *_OTHERS})
DCNV4, FLASH_BACKBONE = "DCNv4", "FlashInternImage"
# The constructors' own defaults, where ours differ.
_DEFAULTS = {"drop_path_rate": 0.2, "depths": (3, 4, 18, 5), "groups": (3, 6, 12, 24)}
_FLASH_DEFAULTS = {"offset_scale": 0.5, "dcn_output_bias": False, "mlp_fc2_bias": False}
_ACTIVATIONS: dict[Activation, str] = {"gelu": "GELU", "relu": "ReLU", "silu": "SiLU"}


def read_arguments(arguments: Mapping[str, Any]) -> InternImageConfig:
    """`InternImageConfig.from_official`, which says more."""
    if unknown := sorted(set(arguments) - OFFICIAL_ARGUMENTS):
        raise ValueError(f"unknown official arguments {unknown}; known are {sorted(OFFICIAL_ARGUMENTS)}")
    # YAML 1.1 reads 1e-5 and None as strings.
    given = {key: _plain(value) for key, value in arguments.items()}
    for key, expected in (("norm_layer", ("LN",)), ("core_op", ("DCNv3", "DCNv3_pytorch", DCNV4))):
        if given.get(key, expected[0]) not in expected:
            raise ValueError(
                f"{key} {given[key]!r} is not supported: released models use {' or '.join(map(repr, expected))}"
            )
    values, is_flash = _DEFAULTS | given, given.get("core_op") == DCNV4
    if is_flash:
        values = _FLASH_DEFAULTS | values
        if values.get("remove_center"):
            raise ValueError("the official FlashInternImage takes no notice of remove_center; leave it out")
    # False is how a configuration of both families spells that there is no such option.
    elif foreign := sorted(key for key in FLASH_FIELDS if given.get(key)):
        raise ValueError(f"{', '.join(foreign)} are FlashInternImage's: set core_op to {DCNV4}, or leave them out")
    table = FIELDS | FLASH_FIELDS if is_flash else FIELDS
    ours = {field: values[key] for key, field in table.items() if key in values}
    if is_flash:
        ours |= {"core": "dcnv4", "normalize": "none"}
    return InternImageConfig(
        **cast(dict[str, Any], ours),
        head="clip" if values.get("use_clip_projector") else "conv",
        activation=cast(Activation, str(values.get("act_layer", "GELU")).lower()),
        level2_post_norm_blocks=cast(
            tuple[int, ...],
            values.get("level2_post_norm_block_ids") or () if values.get("level2_post_norm") else (),
        ),
    )


def write_arguments(config: InternImageConfig) -> dict[str, Any]:
    """`InternImageConfig.to_official`, which says more."""
    if config.in_chans != 3 or config.stem_strides != (2, 2):
        raise ValueError("the official network always has in_chans 3 and stem strides (2, 2)")
    is_flash = config.core == "dcnv4"
    form = ("none", "modulations as they are") if is_flash else ("softmax", "softmax modulations")
    if not config.shared_weights or config.normalize != form[0]:
        raise ValueError(f"the official network always has shared weights and {form[1]}")
    if not is_flash and not (config.core_output_bias and config.mlp_output_bias):
        raise ValueError("the official InternImage always has core_output_bias and mlp_output_bias")
    if is_flash and config.remove_center:
        raise ValueError("the official FlashInternImage has no remove_center")
    values = {key: _listed(getattr(config, field)) for key, field in FIELDS.items()}
    if is_flash:
        del values["remove_center"]
        values |= {key: getattr(config, field) for key, field in FLASH_FIELDS.items()}
    return values | {
        "core_op": DCNV4 if is_flash else "DCNv3",
        "act_layer": _ACTIVATIONS[config.activation],
        "norm_layer": "LN",
        "use_clip_projector": config.head == "clip",
        "level2_post_norm": bool(config.level2_post_norm_blocks),
        "level2_post_norm_block_ids": list(config.level2_post_norm_blocks) or None,
    }


def _plain(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _listed(value: Any) -> Any:
    return list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
