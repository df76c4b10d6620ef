"""UPerNet: transformers' head and auxiliary head, with the dropout and the first weights of the released ones.

With the released weights both give the released logits, to the bit.
"""

# transformers is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any, cast

from torch import nn

from internimage.model.segmentation.config import SegmenterConfig
from internimage.model.segmentation.layers import Classifier, Norm, start_convolution

_NEEDS = "UPerNet needs transformers: pip install 'internimage-torch[segmentation]'"


def build_upernet(config: SegmenterConfig) -> nn.Module:
    """Four maps, finest first, to logits (N, C, H, W) at the size of the first; raises as `InternImageSegmenter`."""
    parts, settings = _parts(config)
    return _start(parts.UperNetHead(settings, in_channels=list(config.backbone.stage_channels)), config)


def build_auxiliary(config: SegmenterConfig) -> nn.Module:
    """Four maps to logits at the size of the third; raises as `InternImageSegmenter`."""
    parts, settings = _parts(config)
    return _start(parts.UperNetFCNHead(settings, in_channels=list(config.backbone.stage_channels)), config)


def _parts(config: SegmenterConfig) -> tuple[Any, Any]:
    """The module that has transformers' heads, and what they are built from."""
    try:
        import transformers
        from transformers.models.upernet import modeling_upernet
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    library: Any = transformers
    settings = library.UperNetConfig(
        hidden_size=config.channels,
        pool_scales=list(config.pool_scales),
        auxiliary_channels=config.auxiliary_channels,
        num_labels=config.num_classes,
    )
    return cast(Any, modeling_upernet), settings


def _start(head: Any, config: SegmenterConfig) -> nn.Module:
    for module in list(head.modules()):
        if isinstance(getattr(module, "batch_norm", None), nn.BatchNorm2d):
            module.batch_norm = Norm(module.batch_norm.num_features)
            start_convolution(module.conv)
    head.classifier = Classifier(head.channels, config.num_classes, config.dropout)
    return head
