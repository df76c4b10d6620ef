"""Names of a detector's weights: ours and mmdetection's, one table read in both directions.

A row is (ours, mmdetection's); ``{i}`` stands for a level or a cascade stage, ``{j}`` for a layer. Mask R-CNN's one box
head has no number there and is stage 0 here. Nothing is reordered: the background is the last class in both.

Source: the key lists of detection/configs/coco in the released code, 31c962d, under mmdet 2.28; the pyramid with norms
from detection/mmdet_custom/models/necks/fpn.py of DCNv4, 4b848f7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from internimage.model.checkpoints.convert import Renamer, to_official, to_ours

_BOX, _THEIR_BOX = "roi_heads.box_heads.{i}.", "roi_head.bbox_head.{i}."
_MASK, _THEIR_MASK = "roi_heads.mask_heads.{i}.", "roi_head.mask_head.{i}."
_TABLE: tuple[tuple[str, str], ...] = (
    ("fpn.inner_blocks.{i}.0*", "neck.lateral_convs.{i}.conv*"),
    ("fpn.layer_blocks.{i}.0*", "neck.fpn_convs.{i}.conv*"),
    ("fpn.inner_blocks.{i}.1*", "neck.lateral_convs.{i}.ln*"),
    ("fpn.layer_blocks.{i}.1*", "neck.fpn_convs.{i}.ln*"),
    ("rpn.head.conv.0.0*", "rpn_head.rpn_conv*"),
    ("rpn.head.cls_logits*", "rpn_head.rpn_cls*"),
    ("rpn.head.bbox_pred*", "rpn_head.rpn_reg*"),
    (_BOX + "convs.{j}.conv.weight", _THEIR_BOX + "shared_convs.{j}.conv.weight"),
    (_BOX + "convs.{j}.norm.{n}", _THEIR_BOX + "shared_convs.{j}.bn.{n}"),
    (_BOX + "layers.{j}.linear*", _THEIR_BOX + "shared_fcs.{j}*"),
    (_BOX + "cls*", _THEIR_BOX + "fc_cls*"),
    (_BOX + "reg*", _THEIR_BOX + "fc_reg*"),
    (_MASK + "convs.{j}.conv*", _THEIR_MASK + "convs.{j}.conv*"),
    (_MASK + "upsample*", _THEIR_MASK + "upsample*"),
    (_MASK + "logits*", _THEIR_MASK + "conv_logits*"),
)
_FROM_OFFICIAL = Renamer((theirs, ours) for ours, theirs in _TABLE)
_TO_OFFICIAL = Renamer(_TABLE)
_UNNUMBERED = re.compile(r"^(roi_head\.(?:bbox|mask)_head)\.(?!\d)")


@dataclass(frozen=True)
class ConvertedDetector:
    """Weights under our detector's names, and the keys that are none of its."""

    state: dict[str, Tensor]
    foreign: tuple[str, ...]


def from_mmdetection(state: Mapping[str, Tensor]) -> ConvertedDetector:
    """A Mask R-CNN's or Cascade R-CNN's weights under our names.

    Raises:
        ValueError: no InternImage, or no such detector, is among them.
    """
    found = to_ours(state)
    named, foreign = dict(found.state), list[str]()
    for key in found.foreign:
        new = _FROM_OFFICIAL(_UNNUMBERED.sub(r"\1.0.", key))
        if new is None:
            foreign.append(key)
        else:
            named[new] = state[key]
    if "rpn.head.cls_logits.weight" not in named:
        raise ValueError("these weights hold no region proposal network: they are not a Mask or Cascade R-CNN's")
    return ConvertedDetector(named, tuple(foreign))


def to_mmdetection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our detector's weights under mmdetection's names."""
    backbone = {key: tensor for key, tensor in state.items() if key.startswith("backbone.")}
    renamed = {f"backbone.{key}": tensor for key, tensor in to_official(backbone).items()}
    is_cascade = any(key.startswith("roi_heads.box_heads.1.") for key in state)
    for key in state.keys() - backbone.keys():
        new = _TO_OFFICIAL(key)
        if new is None:
            raise ValueError(f"this weight has no name in mmdetection: {key}")
        renamed[new if is_cascade else re.sub(r"^(roi_head\.(?:bbox|mask)_head)\.0\.", r"\1.", new)] = state[key]
    return renamed
