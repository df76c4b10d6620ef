"""Checkpoints as mmsegmentation writes them: a configuration as text beside the weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from internimage.model.checkpoints.segmenters import to_mmsegmentation
from support.mmdetection import text_of

_SCALED = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
_PIPELINE = [
    {"type": "LoadImageFromFile"},
    {
        "type": "MultiScaleFlipAug",
        "img_scale": (2048, 512),
        "flip": False,
        "transforms": [
            {"type": "Resize", "keep_ratio": True},
            {"type": "ResizeToMultiple", "size_divisor": 32},
            {"type": "RandomFlip"},
            {"type": "Normalize", **_SCALED},
            {"type": "ImageToTensor", "keys": ["img"]},
            {"type": "Collect", "keys": ["img"]},
        ],
    },
]
_SINE = {"type": "SinePositionalEncoding", "num_feats": 16, "normalize": True}
_NORM = {"type": "SyncBN", "requires_grad": True}
_PLAIN = {"in_index": [0, 1, 2, 3], "dropout_ratio": 0.1, "num_classes": 150, "norm_cfg": _NORM, "align_corners": False}
_MODELS: dict[str, dict[str, Any]] = {
    "upernet": {
        "type": "EncoderDecoder",
        "decode_head": {"type": "UPerHead", **_PLAIN, "pool_scales": (1, 2, 3, 6), "channels": 512},
        "auxiliary_head": {
            "type": "FCNHead",
            "in_index": 2,
            "num_convs": 1,
            "concat_input": False,
            "align_corners": False,
            "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 0.4},
        },
        "test_cfg": {"mode": "whole"},
    },
    "segformer": {
        "type": "EncoderDecoder",
        "decode_head": {"type": "SegformerHead", **_PLAIN, "channels": 256},
        "test_cfg": {"mode": "whole"},
    },
    "mask2former": {
        "type": "EncoderDecoderMask2Former",
        "decode_head": {
            "type": "Mask2FormerHead",
            "in_index": [0, 1, 2, 3],
            "num_transformer_feat_level": 3,
            "enforce_decoder_input_project": False,
            "positional_encoding": _SINE,
            "pixel_decoder": {
                "type": "MSDeformAttnPixelDecoder",
                "num_outs": 3,
                "norm_cfg": {"type": "GN", "num_groups": 32},
                "act_cfg": {"type": "ReLU"},
                "positional_encoding": dict(_SINE),
                "encoder": {
                    "type": "DetrTransformerEncoder",
                    "transformerlayers": {
                        "attn_cfgs": {"num_heads": 4, "num_levels": 3, "num_points": 4},
                        "ffn_cfgs": {"act_cfg": {"type": "ReLU", "inplace": True}},
                        "operation_order": ("self_attn", "norm", "ffn", "norm"),
                    },
                },
            },
            "transformer_decoder": {
                "type": "DetrTransformerDecoder",
                "transformerlayers": {
                    "attn_cfgs": {"num_heads": 4},
                    "ffn_cfgs": {"act_cfg": {"type": "ReLU", "inplace": True}},
                    "operation_order": ("cross_attn", "norm", "self_attn", "norm", "ffn", "norm"),
                },
            },
        },
        "train_cfg": {"num_points": 12544},
        "test_cfg": {"mode": "slide", "crop_size": (1024, 1024), "stride": (512, 512)},
    },
}


def changed(head: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A released configuration with other values at places such as ``model.neck`` or ``test_pipeline.1.img_scale``."""
    train = [{"type": "LoadImageFromFile"}, {"type": "Resize", "img_scale": (2048, 512), "ratio_range": (0.5, 2.0)}]
    config: dict[str, Any] = copy.deepcopy(
        {"model": _MODELS[head], "train_pipeline": train, "test_pipeline": _PIPELINE, "work_dir": "./work_dirs"}
    )
    for where, value in (changes or {}).items():
        inner: Any = config
        *path, last = (int(name) if name.isdigit() else name for name in where.split("."))
        for name in path:
            if isinstance(inner, dict):
                inner.setdefault(name, {})
            inner = inner[name]
        inner[last] = value
    return config


def said_of(head: str, changes: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    """The ``meta`` of a checkpoint with this configuration."""
    return {"iter": 160000, "config": text_of(changed(head, changes)), **meta}


def write_pth(model: nn.Module, path: Path, meta: dict[str, Any]) -> Path:
    """The model's weights under mmsegmentation's names, with this ``meta``."""
    torch.save({"state_dict": to_mmsegmentation(model.state_dict()), "meta": meta, "optimizer": {}}, path)
    return path
