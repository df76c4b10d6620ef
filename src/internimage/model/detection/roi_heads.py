"""From proposals to detections: one box head, or three that hand their boxes on.

Shape legend: R boxes of all images, C classes, S side of a predicted mask.
"""

# How a tensor is split has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from internimage.model.detection.boxes import BoxCoder, clip_boxes, suppress
from internimage.model.detection.config import DetectorConfig
from internimage.model.detection.heads import BOX_SIDE, MASK_SIDE, BoxHead, MaskHead
from internimage.model.detection.pooling import RoIPooling
from internimage.model.detection.results import Detected, paste_masks
from internimage.structures import Placement


class RoIHeads(nn.Module):
    """Box and mask heads of all stages.

    Source: ``StandardRoIHead`` and ``CascadeRoIHead`` of mmdet 2.28, roi_heads.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.coders = [BoxCoder(stds) for stds in config.stage_stds]
        self.box_pooling = RoIPooling(BOX_SIDE, config.finest_scale)
        self.box_heads = nn.ModuleList(BoxHead(config) for _ in range(config.stages))
        if config.masks:
            self.mask_pooling = RoIPooling(MASK_SIDE, config.finest_scale)
            self.mask_heads = nn.ModuleList(MaskHead(config) for _ in range(config.stages))

    def forward(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], placements: Sequence[Placement]
    ) -> list[Detected]:
        """Pyramid maps and each image's proposals (R, 4), in input pixels, to what is in the pictures."""
        config, rois, totals = self.config, list(proposals), list[Tensor]()
        boxes_RC4: list[Tensor] = []
        for stage, (head, coder) in enumerate(zip(self.box_heads, self.coders, strict=True)):
            logits_R, deltas_R = head(self.box_pooling(maps, rois))
            counts = [len(each) for each in rois]
            totals.append(logits_R)
            decoded = [
                clip_boxes(coder.decode_single(deltas, boxes).unflatten(1, (-1, 4)), *placement.size)
                for deltas, boxes, placement in zip(deltas_R.split(counts), rois, placements, strict=True)
            ]
            if stage == config.stages - 1:
                boxes_RC4 = decoded
                break
            # The box of its best class goes on, whatever its score.
            best = logits_R[:, :-1].argmax(1).split(counts)
            rois = [boxes[torch.arange(len(boxes)), label] for boxes, label in zip(decoded, best, strict=True)]
        # The mean of logits, not of probabilities.
        scores = (sum(totals) / len(totals)).softmax(1)[:, :-1]  # pyright: ignore
        found: list[Detected] = []
        for boxes, score_RC, placement in zip(
            boxes_RC4, scores.split([len(each) for each in rois]), placements, strict=True
        ):
            kept = suppress(
                boxes / _scale(placement, boxes),
                score_RC,
                score_threshold=config.score_threshold,
                nms_threshold=config.nms_threshold,
                limit=config.detections,
            )
            found.append(Detected(kept.boxes, kept.scores, kept.labels))
        return self._with_masks(maps, found, placements) if config.masks else found

    def _with_masks(
        self, maps: Sequence[Tensor], found: Sequence[Detected], placements: Sequence[Placement]
    ) -> list[Detected]:
        rois = [each.boxes * _scale(place, each.boxes) for each, place in zip(found, placements, strict=True)]
        pooled, labels = self.mask_pooling(maps, rois), torch.cat([each.labels for each in found])
        rows = torch.arange(len(labels), device=labels.device)
        probabilities = [head(pooled)[rows, labels].sigmoid() for head in self.mask_heads]
        mean_RSS = torch.stack(probabilities).mean(0)
        return [
            Detected(
                each.boxes,
                each.scores,
                each.labels,
                paste_masks(masks, each.boxes, place.original_size, self.config.mask_threshold),
                masks,
            )
            for each, masks, place in zip(
                found, mean_RSS.split([len(each.labels) for each in found]), placements, strict=True
            )
        ]


def _scale(placement: Placement, like: Tensor) -> Tensor:
    """(x, y, x, y): boxes of the picture times this are boxes of the input."""
    return torch.tensor(placement.scale_xy * 2, dtype=torch.float32, device=like.device)
