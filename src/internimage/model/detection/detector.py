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
from internimage.model.detection.losses import roi_losses
from internimage.model.detection.proposals import build_rpn
from internimage.model.detection.results import Detected
from internimage.model.detection.roi_heads import RoIHeads
from internimage.model.detection.targets import Objects
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
            list(config.backbone.stage_channels),
            config.fpn_channels,
            extra_blocks=LastLevelMaxPool(),
            norm_layer=ChannelNorm if config.fpn_norm else None,
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

    def losses(
        self, image_NCHW: Tensor, truths: Sequence[Objects], placements: Sequence[Placement] | None = None
    ) -> dict[str, Tensor]:
        """What to minimise, by name, already weighted; their sum is the loss. The module must be in training mode.

        Args:
            image_NCHW: as for `forward`.
            truths: of each image, in its pixels; an image without objects is background.
            placements: as for `forward`.

        Raises:
            ValueError: evaluation mode, whose region proposal network has no losses.
        """
        if not self.training:
            raise ValueError("losses need the detector in training mode; call detector.train() first")
        size = (image_NCHW.shape[-2], image_NCHW.shape[-1])
        places = list(placements or [Placement(size, size)] * len(image_NCHW))
        maps = self.pyramid(image_NCHW)
        images = ImageList(image_NCHW, [place.size for place in places])
        proposals, losses = self.rpn(images, _by_name(maps), [{"boxes": each.boxes} for each in truths])
        found = {"rpn_class": losses["loss_objectness"], "rpn_box": losses["loss_rpn_box_reg"]}
        return found | roi_losses(self.roi_heads, maps, [each.detach() for each in proposals], truths, places)

    def propose(self, maps: Sequence[Tensor], placements: Sequence[Placement]) -> list[Tensor]:
        """Boxes (R, 4) of each image that may hold an object, in input pixels, best first."""
        # Of the images torchvision's network asks for their number and sizes alone.
        images = ImageList(maps[0], [place.size for place in placements])
        proposals, _ = self.rpn(images, _by_name(maps))
        return proposals


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of every position of an NCHW map, with mmcv's epsilon of 1e-5.

    Source: ``FPN_vitdet`` of the released DCNv4, 4b848f7, detection/mmdet_custom/models/necks/fpn.py.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _by_name(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(level): each for level, each in enumerate(maps)}
