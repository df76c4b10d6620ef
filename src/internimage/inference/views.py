"""A detector in several views of each picture: one look after the other goes through the network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from internimage.data.detection.images import Look
from internimage.inference.merging import merge_views
from internimage.model.detection import Detected, Detector
from internimage.structures import Merging


class NotFiniteError(ValueError):
    """Boxes or scores that are no numbers, of weights that are none or of a training that diverged."""


def detect(network: Detector, looks: Iterable[Look], merging: Merging) -> list[Detected]:
    """What the looks at a batch of pictures show, per picture, in its own pixels and on the CPU.

    Args:
        network: in evaluation mode.
        looks: at the same pictures, at least one; each is moved to the network's device when its turn comes.
        merging: how what they show is put together. Without its ``iou`` the detector's ``nms_threshold`` holds, or 0.5.
            Least score and number of objects are the detector's own.

    Raises:
        NotFiniteError: boxes or scores that are not finite.
    """
    config = network.config
    if merging.iou is None and merging.has_threshold:
        merging = replace(merging, iou=getattr(config, "nms_threshold", None))
    seen = [_look(network, look) for look in looks]
    return [
        merge_views(views, merging, score_threshold=config.score_threshold, limit=config.detections)
        for views in zip(*seen, strict=True)
    ]


def _look(network: Detector, look: Look) -> list[Detected]:
    device = next(network.parameters()).device
    found = network(look.images.to(device, non_blocking=True), look.placements)
    return [
        _turned_back(_checked(each), place.original_size[1]) if look.mirrored else _checked(each)
        for each, place in zip(found, look.placements, strict=True)
    ]


def _checked(found: Detected) -> Detected:
    """On the CPU and in float32."""
    boxes, scores, labels = found.boxes.float().cpu(), found.scores.float().cpu(), found.labels.cpu()
    if not (boxes.isfinite().all() and scores.isfinite().all()):
        raise NotFiniteError("boxes or scores that are not finite")
    return Detected(boxes, scores, labels, None if found.masks is None else found.masks.cpu())


def _turned_back(found: Detected, width: int) -> Detected:
    """What was seen in a mirrored picture."""
    x1, y1, x2, y2 = found.boxes.unbind(-1)
    masks = None if found.masks is None else found.masks.flip(-1)
    return replace(found, boxes=torch.stack((width - x2, y1, width - x1, y2), -1), masks=masks)
