"""SegFormer's head as the released segmenters have it (mmsegmentation), which is not quite the paper's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from internimage.model.segmentation.config import SegmenterConfig
from internimage.model.segmentation.layers import Classifier, ConvNorm, pointwise


class SegformerHead(nn.Module):
    """Four maps, finest first, to logits (N, C, H, W) at the size of the first.

    Each map is projected, normalised and rectified, then brought to that size; a further layer joins them, finest
    first. transformers' head of this name has neither the normalisation nor the rectification of each map.

    The joining convolution and the resizing are linear, so their order does not matter: each map goes through its part
    of the weights while it is small, and the large maps are added instead of laid side by side.

    Source: ``SegformerHead`` of mmseg 0.27, models/decode_heads/segformer_head.py.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        widths = config.backbone.stage_channels
        self.convs = nn.ModuleList(ConvNorm(width, config.channels) for width in widths)
        self.fusion_conv = ConvNorm(len(widths) * config.channels, config.channels)
        self.classifier = Classifier(config.channels, config.num_classes, config.dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """See the class."""
        size = maps[0].shape[-2:]
        parts = torch.split(self.fusion_conv.conv.weight, self.fusion_conv.conv.out_channels, 1)
        joined, *others = [
            functional.interpolate(pointwise(conv(each), part), size=size, mode="bilinear", align_corners=False)
            for conv, each, part in zip(self.convs, maps, parts, strict=True)
        ]
        for each in others:
            joined = joined + each
        return self.classifier(self.fusion_conv.finish(joined))
