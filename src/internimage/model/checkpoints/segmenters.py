"""Names of a segmenter's weights: ours (transformers' for the heads) and mmsegmentation's, one table read both ways.

A row is (ours, mmsegmentation's); ``{i}`` stands for a level or a place in a list, ``{j}`` for a layer. One thing is no
renaming: Mask2Former's self-attention has its three input projections in one tensor there, and in three here.

Source: the key lists of segmentation/configs in the released code, 31c962d, under mmseg 0.27.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from internimage.model.checkpoints.convert import Converted, Renamer, to_official, to_ours

_CONVS = (
    "decode_head.psp_modules.{i}.1",
    "decode_head.bottleneck",
    "decode_head.lateral_convs.{i}",
    "decode_head.fpn_convs.{i}",
    "decode_head.fpn_bottleneck",
    "decode_head.convs.{i}",
    "decode_head.fusion_conv",
    "auxiliary_head.convs.{i}",
)
_PIXELS = "decode_head.pixel_decoder."
_ENCODER = _PIXELS + "encoder.layers.{j}."
_MODULE = "decode_head.transformer_module."
_DECODER, _THEIR_DECODER = _MODULE + "decoder.layers.{j}.", "decode_head.transformer_decoder.layers.{j}."
_MASKS = _MODULE + "decoder.mask_predictor.mask_embedder."
_TABLE: tuple[tuple[str, str], ...] = (
    *((f"{name}.conv.weight", f"{name}.conv.weight") for name in _CONVS),
    *((name + ".batch_norm.{n}", name + ".bn.{n}") for name in _CONVS),
    ("decode_head.classifier*", "decode_head.conv_seg*"),
    ("auxiliary_head.classifier*", "auxiliary_head.conv_seg*"),
    (_PIXELS + "input_projections.{i}.0*", _PIXELS + "input_convs.{i}.conv*"),
    (_PIXELS + "input_projections.{i}.1*", _PIXELS + "input_convs.{i}.gn*"),
    (_ENCODER + "self_attn.sampling_offsets*", _ENCODER + "attentions.0.sampling_offsets*"),
    (_ENCODER + "self_attn.attention_weights*", _ENCODER + "attentions.0.attention_weights*"),
    (_ENCODER + "self_attn.value_proj*", _ENCODER + "attentions.0.value_proj*"),
    (_ENCODER + "self_attn.output_proj*", _ENCODER + "attentions.0.output_proj*"),
    (_ENCODER + "self_attn_layer_norm*", _ENCODER + "norms.0*"),
    (_ENCODER + "final_layer_norm*", _ENCODER + "norms.1*"),
    (_ENCODER + "fc1*", _ENCODER + "ffns.0.layers.0.0*"),
    (_ENCODER + "fc2*", _ENCODER + "ffns.0.layers.1*"),
    (_PIXELS + "level_embed", _PIXELS + "level_encoding.weight"),
    (_PIXELS + "adapter_1.0.weight", _PIXELS + "lateral_convs.0.conv.weight"),
    (_PIXELS + "adapter_1.1*", _PIXELS + "lateral_convs.0.gn*"),
    (_PIXELS + "layer_1.0.weight", _PIXELS + "output_convs.0.conv.weight"),
    (_PIXELS + "layer_1.1*", _PIXELS + "output_convs.0.gn*"),
    (_PIXELS + "mask_projection*", _PIXELS + "mask_feature*"),
    (_MODULE + "queries_embedder.weight", "decode_head.query_embed.weight"),
    (_MODULE + "queries_features.weight", "decode_head.query_feat.weight"),
    (_MODULE + "level_embed.weight", "decode_head.level_embed.weight"),
    (_DECODER + "cross_attn.in_proj_weight", _THEIR_DECODER + "attentions.0.attn.in_proj_weight"),
    (_DECODER + "cross_attn.in_proj_bias", _THEIR_DECODER + "attentions.0.attn.in_proj_bias"),
    (_DECODER + "cross_attn.out_proj*", _THEIR_DECODER + "attentions.0.attn.out_proj*"),
    (_DECODER + "self_attn.out_proj*", _THEIR_DECODER + "attentions.1.attn.out_proj*"),
    (_DECODER + "cross_attn_layer_norm*", _THEIR_DECODER + "norms.0*"),
    (_DECODER + "self_attn_layer_norm*", _THEIR_DECODER + "norms.1*"),
    (_DECODER + "final_layer_norm*", _THEIR_DECODER + "norms.2*"),
    (_DECODER + "fc1*", _THEIR_DECODER + "ffns.0.layers.0.0*"),
    (_DECODER + "fc2*", _THEIR_DECODER + "ffns.0.layers.1*"),
    (_MODULE + "decoder.layernorm*", "decode_head.transformer_decoder.post_norm*"),
    *((f"{_MASKS}{layer}.0*", f"decode_head.mask_embed.{2 * layer}*") for layer in range(3)),
    ("decode_head.class_predictor*", "decode_head.cls_embed*"),
)
_FROM_OFFICIAL = Renamer((theirs, ours) for ours, theirs in _TABLE)
_TO_OFFICIAL = Renamer(_TABLE)
# Queries, keys and values of the self-attention, in the order of their one tensor.
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_PACKED = re.compile(r"decode_head\.transformer_decoder\.(layers\.\d+)\.attentions\.1\.attn\.in_proj_(weight|bias)")
_UNPACKED = re.compile(rf"{re.escape(_MODULE)}decoder\.(layers\.\d+)\.self_attn\.q_proj\.(weight|bias)")
_LAST = ("decode_head.classifier.weight", "decode_head.class_predictor.weight")


def from_mmsegmentation(state: Mapping[str, Tensor]) -> Converted:
    """An UPerNet's, SegFormer's or Mask2Former's weights under our names; the backbone's may be ours already.

    Raises:
        ValueError: no InternImage, or no such segmenter, is among them.
    """
    found = to_ours(state)
    named, foreign = dict(found.state), list[str]()
    for key in found.foreign:
        renamed = dict(_renamed(key, state[key]))
        named |= renamed
        if not renamed:
            foreign.append(key)
    if not any(key in named for key in _LAST):
        raise ValueError("these weights hold no segmentation head: they are no UPerNet's, SegFormer's or Mask2Former's")
    return Converted(named, tuple(foreign), found.origin)


def _renamed(key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Our names of one weight; none for one that no segmenter here has."""
    if packed := _PACKED.fullmatch(key):
        layer, kind = packed.groups()
        for name, part in zip(_PROJECTIONS, tensor.chunk(len(_PROJECTIONS)), strict=True):
            yield f"{_MODULE}decoder.{layer}.self_attn.{name}.{kind}", part
    elif (new := _FROM_OFFICIAL(key)) is not None:
        yield new, tensor


def to_mmsegmentation(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our segmenter's weights under mmsegmentation's names; ``ValueError`` for one that has none there."""
    backbone = {key: tensor for key, tensor in state.items() if key.startswith("backbone.")}
    renamed = {f"backbone.{key}": tensor for key, tensor in to_official(backbone).items()}
    rest = {key: tensor for key, tensor in state.items() if key not in backbone}
    for first in [key for key in rest if _UNPACKED.fullmatch(key)]:
        parts = [rest.pop(first.replace(_PROJECTIONS[0], name)) for name in _PROJECTIONS]
        renamed[_UNPACKED.sub(r"decode_head.transformer_decoder.\1.attentions.1.attn.in_proj_\2", first)] = torch.cat(
            parts
        )
    for key, tensor in rest.items():
        if (new := _TO_OFFICIAL(key)) is None:
            raise ValueError(f"this weight has no name in mmsegmentation: {key}")
        renamed[new] = tensor
    return renamed
