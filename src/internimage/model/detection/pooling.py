"""What a box sees: RoIAlign on the pyramid level of its size.

Shape legend: N images, R boxes of all images, C channels, S output side.
"""

# torchvision's detection parts are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from internimage.model.detection.proposals import STRIDES

# Of the five levels, the coarsest serves proposals only.
_LEVELS = 4


class RoIPooling(nn.Module):
    """Aligned RoIAlign with as many samples as a bin has pixels; torchvision's pooler has neither.

    Source: ``SingleRoIExtractor`` of mmdet 2.28, roi_heads/roi_extractors; ``RoIAlign`` of mmcv 1.7.

    Args:
        output_size: S.
        finest_scale: see `DetectorConfig`.
    """

    def __init__(self, output_size: int, finest_scale: int) -> None:
        super().__init__()
        self.output_size, self.finest_scale = output_size, finest_scale

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Maps (N, C, H, W) at strides 4 to 32 and each image's boxes (R, 4) to (R, C, S, S), images in order."""
        images = [each.new_full((len(each), 1), number) for number, each in enumerate(boxes)]
        rois_R5 = torch.cat((torch.cat(images), torch.cat(list(boxes))), 1)
        levels_R = self.levels(rois_R5[:, 1:])
        first = maps[0]
        out = first.new_zeros(len(rois_R5), first.shape[1], self.output_size, self.output_size)
        for level, map_NCHW in enumerate(maps[:_LEVELS]):
            chosen = (levels_R == level).nonzero()[:, 0]
            pooled = roi_align(map_NCHW, rois_R5[chosen], self.output_size, 1 / STRIDES[level], -1, aligned=True)
            out = out.index_copy(0, chosen, pooled.to(out.dtype))
        return out

    def levels(self, boxes_R4: Tensor) -> Tensor:
        """0 for the finest map to 3."""
        side_R = ((boxes_R4[:, 2] - boxes_R4[:, 0]) * (boxes_R4[:, 3] - boxes_R4[:, 1])).sqrt()
        return (side_R / self.finest_scale + 1e-6).log2().floor().clamp(0, _LEVELS - 1).long()
