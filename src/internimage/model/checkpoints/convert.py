"""Names of weights: ours, the official code's (classification, mmdetection, mmsegmentation) and Hugging Face's.

One table, read in both directions. A row is (ours, official); ``{i}``, ``{j}`` and ``{k}`` stand for a stage, a block
and an extra norm, ``*`` for what follows (``.weight``, ``.bias``, ...).

Source: classification/models/intern_image.py and classification/huggingface/convert.py of InternImage, 31c962d;
classification/models/flash_intern_image.py of DCNv4, 4b848f7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

_STAGE, _THEIR_STAGE = "backbone.stages.{i}.", "levels.{i}."
_BLOCK, _THEIR_BLOCK = _STAGE + "blocks.{j}.", _THEIR_STAGE + "blocks.{j}."

_TABLE: tuple[tuple[str, str], ...] = (
    ("backbone.stem.conv1*", "patch_embed.conv1*"),
    ("backbone.stem.norm1*", "patch_embed.norm1.1*"),
    ("backbone.stem.conv2*", "patch_embed.conv2*"),
    ("backbone.stem.norm2*", "patch_embed.norm2.1*"),
    (_BLOCK + "norm1*", _THEIR_BLOCK + "norm1.0*"),
    (_BLOCK + "norm2*", _THEIR_BLOCK + "norm2.0*"),
    (_BLOCK + "res_norm1*", _THEIR_BLOCK + "res_post_norm1.0*"),
    (_BLOCK + "res_norm2*", _THEIR_BLOCK + "res_post_norm2.0*"),
    (_BLOCK + "layer_scale1", _THEIR_BLOCK + "gamma1"),
    (_BLOCK + "layer_scale2", _THEIR_BLOCK + "gamma2"),
    (_BLOCK + "dcn.dw_conv*", _THEIR_BLOCK + "dcn.dw_conv.0*"),
    (_BLOCK + "dcn.dw_norm*", _THEIR_BLOCK + "dcn.dw_conv.1.1*"),
    (_BLOCK + "dcn.offset*", _THEIR_BLOCK + "dcn.offset*"),
    (_BLOCK + "dcn.mask*", _THEIR_BLOCK + "dcn.mask*"),
    (_BLOCK + "dcn.input_proj*", _THEIR_BLOCK + "dcn.input_proj*"),
    (_BLOCK + "dcn.output_proj*", _THEIR_BLOCK + "dcn.output_proj*"),
    (_BLOCK + "dcn.value_proj*", _THEIR_BLOCK + "dcn.value_proj*"),
    (_BLOCK + "dcn.offset_mask*", _THEIR_BLOCK + "dcn.offset_mask*"),
    (_BLOCK + "dcn.offset_mask_dw*", _THEIR_BLOCK + "dcn.offset_mask_dw*"),
    (_BLOCK + "dcn.center_scale.weight", _THEIR_BLOCK + "dcn.center_feature_scale_proj_weight"),
    (_BLOCK + "dcn.center_scale.bias", _THEIR_BLOCK + "dcn.center_feature_scale_proj_bias"),
    (_BLOCK + "mlp.fc1*", _THEIR_BLOCK + "mlp.fc1*"),
    (_BLOCK + "mlp.fc2*", _THEIR_BLOCK + "mlp.fc2*"),
    (_STAGE + "norm*", _THEIR_STAGE + "norm.0*"),
    (_STAGE + "post_norms.{k}*", _THEIR_STAGE + "post_norms.{k}.0*"),
    (_STAGE + "downsample.conv*", _THEIR_STAGE + "downsample.conv*"),
    (_STAGE + "downsample.norm*", _THEIR_STAGE + "downsample.norm.1*"),
    ("head.conv*", "conv_head.0*"),
    ("head.norm.{n}", "conv_head.1.0.{n}"),
    ("head.fc*", "head*"),
    ("head.proj4*", "dcnv3_head_x4.0*"),
    ("head.proj3*", "dcnv3_head_x3*"),
    ("head.pool.norm_q*", "clip_projector.norm1_q.0*"),
    ("head.pool.norm_k*", "clip_projector.norm1_k.0*"),
    ("head.pool.norm_v*", "clip_projector.norm1_v.0*"),
    ("head.pool.q.weight", "clip_projector.cross_dcn.q.weight"),
    ("head.pool.k.weight", "clip_projector.cross_dcn.k.weight"),
    ("head.pool.v.weight", "clip_projector.cross_dcn.v.weight"),
    ("head.pool.q.bias", "clip_projector.cross_dcn.q_bias"),
    ("head.pool.k.bias", "clip_projector.cross_dcn.k_bias"),
    ("head.pool.v.bias", "clip_projector.cross_dcn.v_bias"),
    ("head.pool.proj*", "clip_projector.cross_dcn.proj*"),
)
# Of these alone a composite is made (model/checkpoints/official/composite.py).
BACKBONE_ROWS = tuple(row for row in _TABLE if row[0].startswith("backbone."))
# head.norm is batch normalisation in the conv head and layer normalisation in the CLIP head.
_CLIP_NORM = ("head.norm.{n}", "fc_norm.0.{n}")
# What one official checkpoint holds beyond the network: iNaturalist's branch for date and place.
_DATE_AND_PLACE = re.compile(r"(^|\.)meta_(head|head_1|head_2|norm)\.")
_WILDCARDS = {
    "{i}": r"(?P<i>\d+)",
    "{j}": r"(?P<j>\d+)",
    "{k}": r"(?P<k>\d+)",
    "{n}": r"(?P<n>weight|bias|running_mean|running_var|num_batches_tracked)",
    "*": r"(?P<rest>\.(?:weight|bias))",
}
# Every InternImage has these; of a composite's backbones only the first has a stem.
_OURS_MARK, _OFFICIAL_MARK = "stem.conv1.weight", "levels.0.blocks.0.norm1.0.weight"


@dataclass(frozen=True)
class Converted:
    """Weights under our classifier's names (``backbone.*``, ``head.*``), and the keys that belong to something else."""

    state: dict[str, Tensor]
    foreign: tuple[str, ...]
    origin: str


def knows_date_and_place(keys: Iterable[str]) -> bool:
    """Whether these official keys hold the branch that adds what date and place say to the class scores."""
    return any(_DATE_AND_PLACE.search(key) for key in keys)


class Renamer:
    """One direction of a table of names, compiled."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self.rows = [(re.compile(_pattern(source) + "$"), _template(target)) for source, target in rows]

    def __call__(self, key: str) -> str | None:
        """The new name, or None if no row fits."""
        for pattern, template in self.rows:
            if found := pattern.match(key):
                return found.expand(template)
        return None


def _pattern(text: str) -> str:
    pattern = re.escape(text)
    for mark, expression in _WILDCARDS.items():
        pattern = pattern.replace(re.escape(mark), expression)
    return pattern


def _template(text: str) -> str:
    for mark in _WILDCARDS:
        text = text.replace(mark, r"\g<rest>" if mark == "*" else rf"\g<{mark[1]}>")
    return text


_FROM_OFFICIAL = Renamer((official, ours) for ours, official in (*_TABLE, _CLIP_NORM))
_TO_OFFICIAL = {
    "conv": Renamer(_TABLE),
    "clip": Renamer((_CLIP_NORM, *_TABLE)),
}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our classifier's (or backbone's) weights under the official classification code's names."""
    named = _with_backbone_prefix(state)
    renamer = _TO_OFFICIAL["clip" if "head.proj4.weight" in named else "conv"]
    renamed = {key: renamer(key) for key in named}
    if unknown := [key for key, new in renamed.items() if new is None]:
        raise ValueError(f"these weights have no official name: {', '.join(unknown[:5])}")
    return {str(renamed[key]): tensor for key, tensor in named.items()}


def to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of the official Hugging Face models."""
    return {f"model.{_gamma_to_layer_scale(key)}": tensor for key, tensor in to_official(state).items()}


def name_from_huggingface(name: str) -> str | None:
    """Our name of one weight of the official Hugging Face models; None for any other name."""
    theirs = name.removeprefix("model.")
    return None if theirs == name else _FROM_OFFICIAL(_layer_scale_to_gamma(theirs))


def to_ours(state: Mapping[str, Tensor]) -> Converted:
    """Recognise whose names these are, under whatever prefix, and rename them to ours.

    Raises:
        ValueError: these are not an InternImage's weights.
    """
    for mark, origin in ((_OFFICIAL_MARK, "official"), (_OURS_MARK, "ours")):
        prefixes = [key.removesuffix(mark) for key in state if key == mark or key.endswith("." + mark)]
        if prefixes:
            return _strip_and_rename(state, _choose(_with_lead(prefixes, state)), origin)
    some = ", ".join(list(state)[:3]) or "nothing"
    raise ValueError(f"these are not an InternImage's weights: no {_OFFICIAL_MARK} among the keys ({some} ...)")


def _with_lead(prefixes: list[str], state: Iterable[str]) -> list[str]:
    """The prefixes, and those of lead networks in composites of ours, which have no stem to be known by."""
    known = set(state)
    leads = [each.removesuffix("assisting.") + "lead." for each in prefixes if each.endswith("assisting.")]
    return prefixes + [each for each in leads if each + "stages.0.blocks.0.norm1.weight" in known]


def _choose(prefixes: list[str]) -> str:
    """One network of several: the student of a distilled pair; a composite backbone has no single answer."""
    students = [prefix for prefix in prefixes if "student" in prefix]
    chosen = students or prefixes
    if len(chosen) > 1:
        raise ValueError(f"the checkpoint holds {len(chosen)} InternImages, under {', '.join(chosen)}; extract one")
    return chosen[0]


def _strip_and_rename(state: Mapping[str, Tensor], prefix: str, origin: str) -> Converted:
    if origin == "ours":
        # 'model.backbone.' of a training checkpoint: the head lies beside the backbone.
        outer = prefix.removesuffix("backbone.")
        inner = {key.removeprefix(outer): tensor for key, tensor in state.items() if key.startswith(outer)}
        named = _with_backbone_prefix(inner)
        mine = {key: tensor for key, tensor in named.items() if key.startswith(("backbone.", "head."))}
        outside = (key for key in state if not key.startswith(outer))
        return Converted(mine, (*(outer + key for key in named if key not in mine), *outside), origin)
    converted: dict[str, Tensor] = {}
    foreign: list[str] = []
    for key, tensor in state.items():
        inner_key = _layer_scale_to_gamma(key.removeprefix(prefix))
        new = _FROM_OFFICIAL(inner_key) if key.startswith(prefix) else None
        if new is not None:
            converted[new] = tensor
        else:
            foreign.append(key)
    return Converted(converted, tuple(foreign), "huggingface" if prefix == "model." else origin)


def _with_backbone_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    bare = _OURS_MARK in state
    return {f"backbone.{key}" if bare and not key.startswith("head.") else key: state[key] for key in state}


def _gamma_to_layer_scale(key: str) -> str:
    return re.sub(r"\.gamma([12])$", r".layer_scale\1", key)


def _layer_scale_to_gamma(key: str) -> str:
    return re.sub(r"\.layer_scale([12])$", r".gamma\1", key)
