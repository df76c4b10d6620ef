"""Box and mask heads.

Shape legend: R boxes, C classes, F channels of the pyramid, S side of what was pooled.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from internimage.model.detection.config import DetectorConfig

BOX_SIDE, MASK_SIDE = 7, 14
_MASK_CONVS = 4


class BoxHead(nn.Module):
    """Pooled boxes to class logits, the background last, and deltas for every class.

    Source: ``Shared2FCBBoxHead`` and ``ConvFCBBoxHead`` of mmdet 2.28, roi_heads/bbox_heads/convfc_bbox_head.py.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        channels, hidden = config.fpn_channels, config.head_channels
        self.convs = nn.Sequential(*(_conv(channels) for _ in range(config.head_convs)))
        widths = [channels * BOX_SIDE**2, *[hidden] * config.head_layers]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(OrderedDict(linear=nn.Linear(before, after), act=nn.ReLU(inplace=True)))
                for before, after in pairwise(widths)
            )
        )
        self.cls = nn.Linear(hidden, config.num_classes + 1)
        self.reg = nn.Linear(hidden, 4 * config.num_classes)
        nn.init.normal_(self.cls.weight, std=0.01)
        nn.init.normal_(self.reg.weight, std=0.001)
        for layer in (self.cls, self.reg):
            nn.init.zeros_(layer.bias)

    def forward(self, pooled_RFSS: Tensor) -> tuple[Tensor, Tensor]:
        """(R, F, 7, 7) to (R, C + 1) and (R, 4*C)."""
        x = self.layers(self.convs(pooled_RFSS).flatten(1))
        return self.cls(x), self.reg(x)


class MaskHead(nn.Module):
    """Pooled boxes to a mask's logits for every class.

    Source: ``FCNMaskHead`` of mmdet 2.28, roi_heads/mask_heads/fcn_mask_head.py.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        channels = config.fpn_channels
        self.convs = nn.Sequential(
            *(
                nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, channels, 3, padding=1), act=nn.ReLU(inplace=True)))
                for _ in range(_MASK_CONVS)
            )
        )
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.act = nn.ReLU(inplace=True)
        self.logits = nn.Conv2d(channels, config.num_classes, 1)
        for module in (*(each.conv for each in self.convs), self.upsample, self.logits):  # pyright: ignore
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # pyright: ignore
            nn.init.zeros_(module.bias)  # pyright: ignore

    def forward(self, pooled_RFSS: Tensor) -> Tensor:
        """(R, F, 14, 14) to (R, C, 28, 28)."""
        return self.logits(self.act(self.upsample(self.convs(pooled_RFSS))))


def _conv(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(channels),
            act=nn.ReLU(inplace=True),
        )
    )
