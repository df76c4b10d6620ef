"""Anchors and proposals: torchvision's RPN with mmdetection's anchors and coder."""

# torchvision's detection parts are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from internimage.model.detection.boxes import BoxCoder
from internimage.model.detection.config import DetectorConfig

STRIDES = (4, 8, 16, 32, 64)
_SCALE, _RATIOS = 8, (0.5, 1.0, 2.0)
# mmdetection drops boxes of width or height 0, torchvision those below a size.
_SMALLEST = 1e-30


class Anchors(AnchorGenerator):
    """Around (x*stride, y*stride), sides not rounded, strides as given: torchvision rounds, and divides sizes.

    Source: ``AnchorGenerator`` of mmdet 2.28, core/anchor/anchor_generator.py.
    """

    def __init__(self) -> None:
        super().__init__(tuple((_SCALE * stride,) for stride in STRIDES), (_RATIOS,) * len(STRIDES))

    def generate_anchors(
        self,
        scales: list[int],
        aspect_ratios: list[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (torchvision's signature)
    ) -> Tensor:
        """Of one position, around 0: (3, 4)."""
        ratios = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        (scale,) = scales
        half_w, half_h = 0.5 * scale / ratios, 0.5 * scale * ratios
        return torch.stack((-half_w, -half_h, half_w, half_h), 1)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """All anchors of every image, levels one after the other; y, x, ratio within one."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in STRIDES]
        every = torch.cat(self.grid_anchors([list(each.shape[-2:]) for each in feature_maps], strides))
        return [every for _ in image_list.image_sizes]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's with the released losses of deltas: L1 in Mask R-CNN, in the cascade smooth L1 as torchvision has.

    Source: detection/configs of the released code, 31c962d.
    """

    is_smooth = True

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(Binary cross-entropy, loss of deltas), both divided by the number of sampled anchors."""
        if self.is_smooth:
            return super().compute_loss(objectness, pred_bbox_deltas, labels, regression_targets)
        positives, negatives = (torch.cat(each).nonzero()[:, 0] for each in self.fg_bg_sampler(labels))
        rows, label, target = torch.cat((positives, negatives)), torch.cat(labels), torch.cat(regression_targets)
        box_loss = functional.l1_loss(pred_bbox_deltas[positives], target[positives], reduction="sum") / len(rows)
        return functional.binary_cross_entropy_with_logits(objectness.flatten()[rows], label[rows]), box_loss


def build_rpn(config: DetectorConfig) -> ProposalNetwork:
    """For five levels."""
    anchors = Anchors()
    rpn = ProposalNetwork(
        anchors,
        RPNHead(config.fpn_channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * config.proposals_per_level, "testing": config.proposals_per_level},
        post_nms_top_n={"training": config.proposals, "testing": config.proposals},
        nms_thresh=0.7,
    )
    rpn.is_smooth = config.stages > 1
    rpn.box_coder = BoxCoder()
    rpn.min_size = _SMALLEST
    return rpn
