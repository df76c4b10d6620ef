"""From the backbone's maps to maps of one width.

Shape legend: N images, C channels, H W of a map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

_GROUPS = 32


class ChannelMapper(nn.Module):
    """A 1x1 convolution for each map; further maps by 3x3 convolutions of stride 2, the first on the last given map.

    Source: ``ChannelMapper`` of mmdet 2.28, necks/channel_mapper.py, as the released configurations set it.

    Args:
        in_channels: of the given maps, finest first.
        channels: C, of all resulting maps.
        levels: how many of them.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(_convolution(width, channels, 1) for width in in_channels)
        more = levels - len(in_channels)
        self.reductions = nn.ModuleList(
            _convolution(in_channels[-1] if index == 0 else channels, channels, 3) for index in range(more)
        )

    def forward(self, maps_NCHW: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C, H, W), finest first."""
        found = [layer(each) for layer, each in zip(self.projections, maps_NCHW, strict=True)]
        last = maps_NCHW[-1]
        for layer in self.reductions:
            last = cast(Tensor, layer(last))
            found.append(last)
        return found


def _convolution(in_channels: int, channels: int, side: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, side, stride=1 if side == 1 else 2, padding=side // 2, bias=False)
    nn.init.xavier_uniform_(conv.weight)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(_GROUPS, channels)))
