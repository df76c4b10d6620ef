"""Noisy copies of the truth, which the decoder learns to mend or to refuse.

Shape legend: N images, G groups, R most objects of an image, Q all queries, C channels.

Source: contrastive denoising, arXiv:2203.03605, section 3.3; ``CdnQueryGenerator`` of the released code, 31c962d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from internimage.model.detection.dino.config import DinoConfig
from internimage.model.detection.dino.positions import inverse_sigmoid

_CORNERS = ((-0.5, -0.5), (0.5, 0.5))


@dataclass(frozen=True)
class Copies:
    """Noisy copies of every object, in groups: of a group the better ones first, then as many worse ones.

    Args:
        labels: (N, Q), perhaps wrong ones; 0 where there is no object.
        logits: (N, Q, 4), boxes (center x, center y, width, height) before the sigmoid; 0 where there is no object.
        is_object: (N, Q), whether an image has that many objects.
        groups: G; Q is G * 2 * R.
    """

    labels: Tensor
    logits: Tensor
    is_object: Tensor
    groups: int

    @property
    def rows(self) -> int:
        """R, the places for objects in one half of a group."""
        return self.labels.shape[1] // (2 * self.groups)

    def better(self) -> Tensor:
        """(G, R): the queries that should become their object."""
        numbers = torch.arange(self.labels.shape[1], device=self.labels.device)
        return numbers.view(self.groups, 2, self.rows)[:, 0]


def make_copies(boxes: Sequence[Tensor], labels: Sequence[Tensor], config: DinoConfig) -> Copies | None:
    """Of each image's boxes (R, 4) in [0, 1] (center x, center y, width, height) and labels (R,); None without objects.

    There are as many groups as ``config.denoising_queries`` have room for, but one at least.
    """
    most = max(len(each) for each in labels)
    if not most or not config.denoising_queries:
        return None
    first, groups = boxes[0], max(config.denoising_queries // most, 1)
    box_NR4 = first.new_zeros((len(boxes), most, 4))
    label_NR = labels[0].new_zeros((len(boxes), most))
    is_object_NR = torch.zeros(label_NR.shape, dtype=torch.bool, device=first.device)
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        box_NR4[row, : len(box)], label_NR[row, : len(box)], is_object_NR[row, : len(box)] = box, label, True
    label_NQ, is_object_NQ = label_NR.repeat(1, 2 * groups), is_object_NR.repeat(1, 2 * groups)
    wrong_NQ = torch.rand(label_NQ.shape, device=first.device) < config.label_noise / 2
    label_NQ = torch.where(wrong_NQ & is_object_NQ, torch.randint_like(label_NQ, config.num_classes), label_NQ)
    logit_NQ4 = inverse_sigmoid(_shaken(box_NR4, groups, config.box_noise)) * is_object_NQ[..., None]
    return Copies(label_NQ, logit_NQ4, is_object_NQ, groups)


def _shaken(box_NR4: Tensor, groups: int, noise: float) -> Tensor:
    """(N, Q, 4): boxes whose corners moved, in each coordinate either way."""
    images, most, _ = box_NR4.shape
    shape = (images, groups, 2, most, 2, 2)
    center_NR2, side_NR2 = box_NR4[..., :2], box_NR4[..., 2:]
    corner_NR22 = center_NR2[:, :, None] + side_NR2[:, :, None] * box_NR4.new_tensor(_CORNERS)
    # In halves of a side: [0, 1) for the better ones, [1, 2) for the worse ones.
    reach = torch.rand(shape, device=box_NR4.device) + torch.arange(2, device=box_NR4.device).view(2, 1, 1, 1)
    sign = torch.randint(0, 2, shape, device=box_NR4.device) * 2 - 1
    moved = corner_NR22[:, None, None] + sign * reach * noise * side_NR2[:, None, None, :, None] / 2
    low, high = moved.clamp(0, 1).flatten(1, 3).unbind(-2)
    return torch.cat(((low + high) / 2, high - low), -1)


def visible(copies: Copies, queries: int) -> Tensor:
    """(Q, Q) of bool, may the first see the second: a copy its own group and the queries, a query the queries alone."""
    count = copies.labels.shape[1]
    group_Q = torch.arange(count, device=copies.labels.device) // (2 * copies.rows)
    group_Q = torch.cat((group_Q, group_Q.new_full((queries,), copies.groups)))
    return (group_Q[:, None] == group_Q) | (group_Q == copies.groups)
