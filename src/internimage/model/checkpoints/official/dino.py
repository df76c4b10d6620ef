"""Names of a DINO's weights: ours and the released code's, one table read in both directions.

A row is (ours, theirs); ``{i}`` stands for a layer or a level. One thing is more than a name: they keep the three
projections of a self-attention in one matrix, query over key over value.

Source: the key lists of detection/configs/coco/dino_4scale_*.py in the released code, 31c962d, under mmdet 2.28.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from internimage.model.checkpoints.convert import Renamer, to_official, to_ours
from internimage.model.checkpoints.official.composite import composite_to_official, composite_to_ours, holds_composite

_ENCODER, _THEIR_ENCODER = "transformer.encoder.{i}.", "bbox_head.transformer.encoder.layers.{i}."
_DECODER, _THEIR_DECODER = "transformer.decoder.{i}.", "bbox_head.transformer.decoder.layers.{i}."
_ATTENTION = ("sampling_offsets*", "attention_weights*", "value_proj*", "output_proj*")
_TABLE: tuple[tuple[str, str], ...] = (
    ("neck.projections.{i}.conv.weight", "neck.convs.{i}.conv.weight"),
    ("neck.projections.{i}.norm*", "neck.convs.{i}.gn*"),
    ("neck.reductions.{i}.conv.weight", "neck.extra_convs.{i}.conv.weight"),
    ("neck.reductions.{i}.norm*", "neck.extra_convs.{i}.gn*"),
    ("transformer.level_codes", "bbox_head.transformer.level_embeds"),
    *((f"{_ENCODER}self_attn.{part}", f"{_THEIR_ENCODER}attentions.0.{part}") for part in _ATTENTION),
    (_ENCODER + "self_attn_layer_norm*", _THEIR_ENCODER + "norms.0*"),
    (_ENCODER + "mlp.fc1*", _THEIR_ENCODER + "ffns.0.layers.0.0*"),
    (_ENCODER + "mlp.fc2*", _THEIR_ENCODER + "ffns.0.layers.1*"),
    (_ENCODER + "final_layer_norm*", _THEIR_ENCODER + "norms.1*"),
    (_DECODER + "self_attn.o_proj*", _THEIR_DECODER + "attentions.0.attn.out_proj*"),
    (_DECODER + "self_attn_layer_norm*", _THEIR_DECODER + "norms.0*"),
    *((f"{_DECODER}encoder_attn.{part}", f"{_THEIR_DECODER}attentions.1.{part}") for part in _ATTENTION),
    (_DECODER + "encoder_attn_layer_norm*", _THEIR_DECODER + "norms.1*"),
    (_DECODER + "mlp.fc1*", _THEIR_DECODER + "ffns.0.layers.0.0*"),
    (_DECODER + "mlp.fc2*", _THEIR_DECODER + "ffns.0.layers.1*"),
    (_DECODER + "final_layer_norm*", _THEIR_DECODER + "norms.2*"),
    ("transformer.box_position.layers.0*", "bbox_head.transformer.decoder.ref_point_head.0*"),
    ("transformer.box_position.layers.1*", "bbox_head.transformer.decoder.ref_point_head.2*"),
    ("transformer.norm*", "bbox_head.transformer.decoder.norm*"),
    ("transformer.proposing*", "bbox_head.transformer.enc_output*"),
    ("transformer.proposing_norm*", "bbox_head.transformer.enc_output_norm*"),
    ("transformer.queries.weight", "bbox_head.transformer.query_embed.weight"),
    ("transformer.class_heads.{i}*", "bbox_head.cls_branches.{i}*"),
    *(
        (f"transformer.box_heads.{{i}}.layers.{layer}*", f"bbox_head.reg_branches.{{i}}.{2 * layer}*")
        for layer in range(3)
    ),
    ("label_codes.weight", "bbox_head.label_embedding.weight"),
)
_FROM_OFFICIAL = Renamer((theirs, ours) for ours, theirs in _TABLE)
_TO_OFFICIAL = Renamer(_TABLE)
_JOINT = re.compile(r"^bbox_head\.transformer\.decoder\.layers\.(\d+)\.attentions\.0\.attn\.in_proj_(weight|bias)$")
_APART = re.compile(r"^transformer\.decoder\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$")
# The wrapped neck of a composite.
_NECK, _WRAPPED_NECK = "neck.", "neck.0."
# No other released detector has it; label embeddings are there only if it was trained with noisy copies.
_MARK = "bbox_head.transformer.decoder.ref_point_head.0.weight"


@dataclass(frozen=True)
class ConvertedDino:
    """Weights under our detector's names, and the keys that are none of its."""

    state: dict[str, Tensor]
    foreign: tuple[str, ...]


def is_dino(keys: Mapping[str, object]) -> bool:
    """Whether these official names are a DINO's."""
    return _MARK in keys


def dino_to_ours(state: Mapping[str, Tensor]) -> ConvertedDino:
    """A released DINO's weights, on one backbone or on a composite, under our names.

    Raises:
        ValueError: no InternImage is among them.
    """
    found = composite_to_ours(state) if holds_composite(state) else to_ours(state)
    named, foreign = dict(found.state), list[str]()
    for key in found.foreign:
        if joint := _JOINT.match(key):
            for part, tensor in zip("qkv", state[key].chunk(3), strict=True):
                named[f"transformer.decoder.{joint[1]}.self_attn.{part}_proj.{joint[2]}"] = tensor
        elif new := _FROM_OFFICIAL(_NECK + key[len(_WRAPPED_NECK) :] if key.startswith(_WRAPPED_NECK) else key):
            named[new] = state[key]
        else:
            foreign.append(key)
    return ConvertedDino(named, tuple(foreign))


def dino_to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our DINO's weights under the released code's names.

    Raises:
        ValueError: a weight that has no name there.
    """
    backbone = {key: tensor for key, tensor in state.items() if key.startswith("backbone.")}
    composite = any(key.startswith("backbone.lead.") for key in backbone)
    theirs = composite_to_official(backbone) if composite else to_official(backbone)
    renamed = {f"backbone.{key}": tensor for key, tensor in theirs.items()}
    for key in state.keys() - backbone.keys():
        if apart := _APART.match(key):
            layer, _, kind = apart.groups()
            parts = [state[f"transformer.decoder.{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            renamed[f"bbox_head.transformer.decoder.layers.{layer}.attentions.0.attn.in_proj_{kind}"] = torch.cat(parts)
            continue
        new = _TO_OFFICIAL(key)
        if new is None:
            raise ValueError(f"this weight has no name in the released code: {key}")
        renamed[_WRAPPED_NECK + new[len(_NECK) :] if composite and new.startswith(_NECK) else new] = state[key]
    return renamed
