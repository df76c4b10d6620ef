"""Backbone, pyramid, proposals, heads.

Shape legend: N images, H W of the padded batch.
"""

# torchvision's detection parts are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from internimage.model.backbone import InternImage
from internimage.model.detection.config import DetectorConfig
from internimage.model.detection.proposals import build_rpn
from internimage.model.detection.results import Detected
from internimage.model.detection.roi_heads import RoIHeads
from internimage.structures import Placement


class InternImageDetector(nn.Module):
    """Mask R-CNN or Cascade Mask R-CNN on InternImage, with the arithmetic of the released detectors.

    Args:
        config: see `DetectorConfig`.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = InternImage(config.backbone)
        self.fpn = FeaturePyramidNetwork(
            list(config.backbone.stage_channels), config.fpn_channels, extra_blocks=LastLevelMaxPool()
        )
        self.rpn = build_rpn(config)
        self.roi_heads = RoIHeads(config)

    def forward(self, image_NCHW: Tensor, placements: Sequence[Placement] | None = None) -> list[Detected]:
        """What is in each picture.

        Args:
            image_NCHW: normalised, padded with zeros at the right and at the bottom; sides are multiples of 32.
            placements: of each image; by default the batch is what the pictures are.
        """
        size = (image_NCHW.shape[-2], image_NCHW.shape[-1])
        places = list(placements or [Placement(size, size)] * len(image_NCHW))
        maps = self.pyramid(image_NCHW)
        return self.roi_heads(maps, self.propose(maps, places), places)

    def pyramid(self, image_NCHW: Tensor) -> list[Tensor]:
        """Five maps at strides 4 to 64."""
        stages = self.backbone(image_NCHW)
        return list(self.fpn(OrderedDict((str(number), each) for number, each in enumerate(stages))).values())

    def propose(self, maps: Sequence[Tensor], placements: Sequence[Placement]) -> list[Tensor]:
        """Boxes (R, 4) of each image that may hold an object, in input pixels, best first."""
        # Of the images torchvision's network asks for their number and sizes alone.
        images = ImageList(maps[0], [place.size for place in placements])
        proposals, _ = self.rpn(images, {str(level): each for level, each in enumerate(maps)})
        return proposals
