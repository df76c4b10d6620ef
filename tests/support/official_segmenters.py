"""The tiny segmenters of the released code with their outputs, as networks of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from internimage import InternImageConfig
from internimage.model.checkpoints.segmenters import from_mmsegmentation
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig

HEADS = {"UPerHead": "upernet", "SegformerHead": "segformer", "Mask2FormerHead": "mask2former"}


@dataclass
class Official:
    segmenter: InternImageSegmenter
    tensors: dict[str, Tensor]


def read(path: Path) -> Official:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        config = json.loads(file.metadata()["config"])
    state = {
        key.removeprefix("state_dict."): tensors.pop(key) for key in list(tensors) if key.startswith("state_dict.")
    }
    state = {key: each.float() if each.is_floating_point() else each for key, each in state.items()}
    segmenter = InternImageSegmenter(config_of(config))
    converted = from_mmsegmentation(state)
    assert not converted.foreign
    segmenter.load_state_dict(converted.state)
    return Official(segmenter.eval(), tensors)


def config_of(theirs: dict[str, Any]) -> SegmenterConfig:
    """Their tiny networks' settings; the files' own converter is for the released ones."""
    others = ("type", "init_cfg", "out_indices")
    arguments = {key: value for key, value in theirs["backbone"].items() if key not in others}
    backbone, head = InternImageConfig.from_official(arguments | {"num_classes": 0}), theirs["decode_head"]
    name = HEADS[head["type"]]
    settings: dict[str, Any] = {"num_classes": head["num_classes"], "head": name}
    if name == "upernet":
        settings |= {"pool_scales": head["pool_scales"], "auxiliary": True}
        settings |= {"auxiliary_channels": theirs["auxiliary_head"]["channels"]}
    if name != "mask2former":
        return SegmenterConfig(backbone, channels=head["channels"], **settings)
    encoder, decoder = head["pixel_decoder"]["encoder"], head["transformer_decoder"]
    return SegmenterConfig(
        backbone,
        channels=head["feat_channels"],
        queries=head["num_queries"],
        encoder_layers=encoder["num_layers"],
        decoder_layers=decoder["num_layers"],
        heads=decoder["transformerlayers"]["attn_cfgs"]["num_heads"],
        encoder_feedforward=encoder["transformerlayers"]["ffn_cfgs"]["feedforward_channels"],
        decoder_feedforward=decoder["transformerlayers"]["ffn_cfgs"]["feedforward_channels"],
        **settings,
    )
