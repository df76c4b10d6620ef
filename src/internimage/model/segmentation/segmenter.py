"""Backbone and head.

Shape legend: N images, C classes, H W of the images, h w of the maps at stride 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from internimage.model.backbone import InternImage
from internimage.model.segmentation.config import SegmenterConfig
from internimage.model.segmentation.mask2former import Mask2FormerHead
from internimage.model.segmentation.segformer import SegformerHead
from internimage.model.segmentation.upernet import build_auxiliary, build_upernet
from internimage.structures import IGNORED


class InternImageSegmenter(nn.Module):
    """A UPerNet, SegFormer's head or a Mask2Former on InternImage, with the arithmetic of the released segmenters.

    Args:
        config: see `SegmenterConfig`.

    Raises:
        ImportError: transformers is missing, which UPerNet and Mask2Former are made of.

    >>> from internimage import InternImageConfig
    >>> backbone = InternImageConfig.from_variant("femto", num_classes=0)
    >>> segmenter = InternImageSegmenter(SegmenterConfig(backbone, 5, "segformer", channels=32)).eval()
    >>> tuple(segmenter(torch.zeros(1, 3, 64, 90)).shape)
    (1, 5, 16, 23)
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = InternImage(config.backbone)
        self.decode_head = _head(config)
        self.auxiliary_head = build_auxiliary(config) if config.auxiliary else None

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """What every position shows: (N, C, h, w), for every class how much speaks for it.

        Logits of UPerNet and SegFormer; of Mask2Former, sums over its queries of the class's probability times the
        mask's. To be resized to the image's size (bilinear) before the best class is chosen.

        Args:
            image_NCHW: normalised; any height and width.
        """
        return self.decode_head(self.backbone(image_NCHW))

    def losses(
        self, image_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What to minimise, by name, already weighted; their sum is the loss. The module must be in training mode.

        UPerNet and SegFormer have ``decode``, and ``auxiliary`` with an auxiliary head: cross entropy at the size of
        the labels, a mean over all pixels in which an ignored one counts as 0. So a batch with many of them has a
        small loss, as in the released code. Names of Mask2Former: see `mask_losses`.

        Args:
            image_NCHW: as for `forward`.
            labels_NHW: the class of every pixel, int64; 255 is ignored.
            class_weights_C: of UPerNet and SegFormer: what a pixel of each class counts, instead of 1.

        Raises:
            ImportError: scipy is missing, which Mask2Former needs.
            ValueError: evaluation mode, labels of another type or number than the images, or weights for
                Mask2Former.
        """
        if not self.training:
            raise ValueError("losses need the segmenter in training mode; call segmenter.train() first")
        if labels_NHW.dim() != 3 or len(labels_NHW) != len(image_NCHW) or labels_NHW.dtype != torch.int64:
            raise ValueError(
                f"labels must be an int64 map of each of {len(image_NCHW)} images, "
                f"got {labels_NHW.dtype} of shape {tuple(labels_NHW.shape)}"
            )
        if class_weights_C is not None and self.config.head == "mask2former":
            raise ValueError("mask2former learns whole masks and takes no class weights; leave them out")
        maps = self.backbone(image_NCHW)
        if isinstance(self.decode_head, Mask2FormerHead):
            return self.decode_head.losses(maps, labels_NHW)
        losses = {"decode": _cross_entropy(self.decode_head(maps), labels_NHW, class_weights_C)}
        if self.auxiliary_head is not None:
            loss = _cross_entropy(self.auxiliary_head(maps), labels_NHW, class_weights_C)
            losses["auxiliary"] = self.config.auxiliary_weight * loss
        return losses


def _head(config: SegmenterConfig) -> nn.Module:
    if config.head == "upernet":
        return build_upernet(config)
    return SegformerHead(config) if config.head == "segformer" else Mask2FormerHead(config)


def _cross_entropy(logits_NChw: Tensor, labels_NHW: Tensor, weights_C: Tensor | None = None) -> Tensor:
    """Source: ``CrossEntropyLoss`` of mmseg 0.27, with its default ``avg_non_ignore=False``."""
    # 16 bits of a logit are too few to sum over pixels.
    logits_NCHW = functional.interpolate(
        logits_NChw.float(), size=labels_NHW.shape[-2:], mode="bilinear", align_corners=False
    )
    total = functional.cross_entropy(logits_NCHW, labels_NHW, weights_C, ignore_index=IGNORED, reduction="sum")
    return total / labels_NHW.numel()
