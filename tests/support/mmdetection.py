"""Checkpoints as mmdetection writes them: a configuration as text beside the weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from internimage.model.checkpoints.detectors import to_mmdetection
from internimage.structures import IMAGENET_MEAN, IMAGENET_STD

_POOLING = {"type": "SingleRoIExtractor", "out_channels": 16, "featmap_strides": [4, 8, 16, 32]}
_CODER = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0, 0.0, 0.0, 0.0]}
_NORMALIZE = {
    "type": "Normalize",
    "mean": [255 * each for each in IMAGENET_MEAN],
    "std": [255 * each for each in IMAGENET_STD],
    "to_rgb": True,
}
_PIPELINE = [
    {"type": "LoadImageFromFile"},
    {
        "type": "MultiScaleFlipAug",
        "img_scale": (1333, 800),
        "flip": False,
        "transforms": [
            {"type": "Resize", "keep_ratio": True},
            {"type": "RandomFlip"},
            _NORMALIZE,
            {"type": "Pad", "size_divisor": 32},
            {"type": "ImageToTensor", "keys": ["img"]},
        ],
    },
]
CONFIG: dict[str, Any] = {
    "model": {
        "type": "MaskRCNN",
        "neck": {"type": "FPN", "out_channels": 16, "num_outs": 5},
        "rpn_head": {
            "type": "RPNHead",
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [8],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64],
            },
            "bbox_coder": {**_CODER, "target_stds": [1.0, 1.0, 1.0, 1.0]},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                **_POOLING,
                "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
            },
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "num_classes": 3,
                "bbox_coder": {**_CODER, "target_stds": [0.1, 0.1, 0.2, 0.2]},
                "reg_class_agnostic": False,
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            },
            "mask_roi_extractor": {
                **_POOLING,
                "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
            },
            "mask_head": {"type": "FCNMaskHead", "num_convs": 4, "num_classes": 3},
        },
        "train_cfg": {"rpn": {"assigner": None}},
        "test_cfg": {
            "rpn": {
                "nms_pre": 1000,
                "max_per_img": 1000,
                "nms": {"type": "nms", "iou_threshold": 0.7},
                "min_bbox_size": 0,
            },
            "rcnn": {
                "score_thr": 0.05,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 100,
                "mask_thr_binary": 0.5,
            },
        },
    },
    "data": {"samples_per_gpu": 2, "test": {"type": "CocoDataset", "pipeline": _PIPELINE}},
    "test_pipeline": _PIPELINE,
    "optimizer": {"type": "AdamW", "lr": 0.0001, "paramwise_cfg": {"depths": [4, 4, 18, 4]}},
    "work_dir": "./work_dirs/mask_rcnn",
    "resume_from": None,
}


def changed(where: str, value: Any) -> dict[str, Any]:
    """`CONFIG` with another value at a place such as ``model.neck.type`` or ``test_pipeline.1.img_scale``."""
    config = copy.deepcopy(CONFIG)
    inner: Any = config
    *path, last = (int(name) if name.isdigit() else name for name in where.split("."))
    for name in path:
        if isinstance(inner, dict):
            inner.setdefault(name, {})
        inner = inner[name]
    inner[last] = value
    if where.startswith("test_pipeline"):
        config["data"]["test"]["pipeline"] = config["test_pipeline"]
    return config


def text_of(config: dict[str, Any]) -> str:
    """The configuration as mmcv's ``pretty_text`` has it."""
    return "\n".join(f"{name} = {_spelled(value)}" for name, value in config.items()) + "\n"


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_spelled(each)}' for key, each in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    return repr(value)


def write_pth(model: nn.Module, path: Path, **meta: Any) -> Path:
    """The model's weights under mmdetection's names, with this ``meta``."""
    torch.save({"state_dict": to_mmdetection(model.state_dict()), "meta": {"epoch": 12, **meta}, "optimizer": {}}, path)
    return path
