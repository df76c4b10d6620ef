"""The head of T to XL: widen, normalise, average, classify."""

from __future__ import annotations

from torch import Tensor, nn

from internimage.model.config import InternImageConfig
from internimage.model.layers import build_activation, to_nchw


class ConvHead(nn.Module):
    """1x1 convolution, batch normalisation, activation, global average, linear layer.

    Source: released code (classification/models/intern_image.py, 31c962d).
    """

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__()
        self.num_features = int(config.stage_channels[-1] * config.head_ratio)
        self.conv = nn.Conv2d(config.stage_channels[-1], self.num_features, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.act = build_activation(config.activation)
        self.fc = nn.Linear(self.num_features, config.num_classes) if config.num_classes else nn.Identity()

    @property
    def map_channels(self) -> int:
        """Channels of `feature_map`."""
        return self.num_features

    def feature_map(self, maps_NHWC: list[Tensor]) -> Tensor:
        """The four maps to the one that is averaged, (N, num_features, H, W)."""
        return self.act(self.norm(self.conv(to_nchw(maps_NHWC[-1]))))

    def pooled(self, x_NCHW: Tensor) -> Tensor:
        """The `feature_map` to (N, num_features)."""
        return x_NCHW.mean((2, 3))

    def forward(self, maps_NHWC: list[Tensor], pre_logits: bool = False) -> Tensor:
        """The four maps to (N, num_classes), or to the pooled (N, num_features)."""
        pooled_NC = self.pooled(self.feature_map(maps_NHWC))
        return pooled_NC if pre_logits else self.fc(pooled_NC)
