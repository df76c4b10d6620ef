"""Backbone and head: an image to class scores."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from internimage.model.backbone import InternImage, init_weights
from internimage.model.config import InternImageConfig
from internimage.model.heads import ClipHead, ConvHead


class InternImageClassifier(nn.Module):
    """InternImage with its classification head: (N, in_chans, H, W) to (N, num_classes).

    >>> import torch
    >>> InternImageClassifier(InternImageConfig.from_variant("femto", num_classes=10))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = InternImage(config)
        self.head = ClipHead(config) if config.head == "clip" else ConvHead(config)
        self.head.apply(init_weights)

    @property
    def num_classes(self) -> int:
        """Outputs; 0 after ``reset_classifier(0)``."""
        return self.config.num_classes

    @property
    def num_features(self) -> int:
        """Width of the pooled features before the last linear layer."""
        return self.head.num_features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `InternImage.set_grad_checkpointing`."""
        self.backbone.set_grad_checkpointing(enable)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh last layer of ``num_classes`` outputs in place; 0 makes the model return pooled features."""
        self.config = replace(self.config, num_classes=num_classes)
        self.backbone.config = self.config
        weight = next(self.head.parameters())
        fc = nn.Linear(self.head.num_features, num_classes) if num_classes else nn.Identity()
        fc.apply(init_weights)
        self.head.fc = fc.to(weight.device, weight.dtype)

    def forward_features(self, image_NCHW: Tensor) -> list[Tensor]:
        """The four stages' maps, channels-last (N, H, W, C)."""
        return self.backbone.forward_stages(image_NCHW)

    def forward_head(self, maps_NHWC: list[Tensor], pre_logits: bool = False) -> Tensor:
        """Maps to class scores, or to pooled features with ``pre_logits``."""
        return self.head(maps_NHWC, pre_logits)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Class scores (logits)."""
        return self.forward_head(self.forward_features(image_NCHW))
