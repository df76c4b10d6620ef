"""The head of H and G: stages 3 and 4 meet, one query attends to all positions.

Shape legend: N batch, T tokens (positions of stage 3), C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage.model.config import InternImageConfig
from internimage.model.layers import layer_norm, to_nchw

# Sizes of the image tower that H and G were pretrained with.
_TOKEN_CHANNELS, _NUM_HEADS, _EMBEDDING = 1024, 16, 768


class AttentionPool(nn.Module):
    """Attention with the mean token as the only query: (N, T, 1024) to (N, 768)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_q, self.norm_k, self.norm_v = (layer_norm(_TOKEN_CHANNELS) for _ in range(3))
        self.q, self.k, self.v = (nn.Linear(_TOKEN_CHANNELS, _TOKEN_CHANNELS) for _ in range(3))
        self.proj = nn.Linear(_TOKEN_CHANNELS, _EMBEDDING)

    def forward(self, tokens_NTC: Tensor) -> Tensor:
        """(N, T, 1024) to (N, 768)."""
        query_N1C = self.q(self.norm_q(tokens_NTC.mean(1, keepdim=True)))
        key_NTC, value_NTC = self.k(self.norm_k(tokens_NTC)), self.v(self.norm_v(tokens_NTC))
        heads = (x.unflatten(-1, (_NUM_HEADS, -1)).transpose(1, 2) for x in (query_N1C, key_NTC, value_NTC))
        pooled = F.scaled_dot_product_attention(*heads)
        return self.proj(pooled.transpose(1, 2).flatten(1))


class ClipHead(nn.Module):
    """Pixel-shuffled stage 4 plus stage 3, attention pooling, layer normalisation, linear layer.

    Where stage 3 has an odd height or width, the shuffled stage 4 is one pixel larger; its last row or column is
    dropped, so that any image size works. On sizes that the released code accepts nothing changes.

    Source: released code (classification/models/intern_image.py, 31c962d).
    """

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__()
        self.num_features = _EMBEDDING
        self.proj4 = nn.Conv2d(config.stage_channels[3], 4 * _TOKEN_CHANNELS, 1)
        self.proj3 = nn.Conv2d(config.stage_channels[2], _TOKEN_CHANNELS, 1)
        self.pool = AttentionPool()
        self.norm = layer_norm(_EMBEDDING)
        self.fc = nn.Linear(_EMBEDDING, config.num_classes) if config.num_classes else nn.Identity()

    @property
    def map_channels(self) -> int:
        """Channels of `feature_map`."""
        return _TOKEN_CHANNELS

    def feature_map(self, maps_NHWC: list[Tensor]) -> Tensor:
        """The four maps to the one that the query attends to, (N, 1024, H, W) of stage 3's size."""
        stage3_NCHW = self.proj3(to_nchw(maps_NHWC[2]))
        stage4_NCHW = F.pixel_shuffle(self.proj4(to_nchw(maps_NHWC[3])), 2)
        # Slices would tie torch.export and torch.compile to even sizes or to odd ones.
        rows, columns = (torch.arange(size, device=stage3_NCHW.device) for size in stage3_NCHW.shape[2:])
        stage4_NCHW = stage4_NCHW.index_select(2, rows).index_select(3, columns)
        return stage4_NCHW + stage3_NCHW

    def pooled(self, x_NCHW: Tensor) -> Tensor:
        """The `feature_map` to (N, 768)."""
        return self.norm(self.pool(x_NCHW.flatten(2).transpose(1, 2)))

    def forward(self, maps_NHWC: list[Tensor], pre_logits: bool = False) -> Tensor:
        """The four maps to (N, num_classes), or to the pooled (N, 768)."""
        pooled_NC = self.pooled(self.feature_map(maps_NHWC))
        return pooled_NC if pre_logits else self.fc(pooled_NC)
