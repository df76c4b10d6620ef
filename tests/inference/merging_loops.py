"""Every rule by which detections of several views become one list, in plain loops: one class after the other.

Imports nothing of the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]


@dataclass
class Found:
    """A box, its score and class, and the best of the given boxes behind it."""

    box: Box
    score: float
    label: int
    row: int


def overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return width * height / (sum(areas) - width * height)


def mean(boxes: Sequence[Found]) -> Box:
    total = sum(each.score for each in boxes)
    x1, y1, x2, y2 = (sum(each.score * each.box[side] for each in boxes) / total for side in range(4))
    return x1, y1, x2, y2


def suppressed(found: Sequence[Found], iou: float) -> list[Found]:
    kept: list[Found] = []
    for each in found:
        if all(overlap(each.box, better.box) <= iou for better in kept):
            kept.append(each)
    return kept


def voted(found: Sequence[Found], iou: float, votes: float) -> list[Found]:
    return [
        Found(mean([each for each in found if overlap(each.box, best.box) >= votes]), best.score, best.label, best.row)
        for best in suppressed(found, iou)
    ]


def softened(found: Sequence[Found], iou: float, sigma: float | None) -> list[Found]:
    left, taken = [Found(each.box, each.score, each.label, each.row) for each in found], list[Found]()
    while left:
        best = max(left, key=lambda each: each.score)
        left.remove(best)
        taken.append(best)
        for each in left:
            shared = overlap(best.box, each.box)
            if sigma is not None:
                each.score *= math.exp(-(shared**2) / sigma)
            elif shared >= iou:
                each.score *= 1 - shared
    return taken


def fused(found: Sequence[Found], iou: float, views: int) -> list[Found]:
    clusters: list[list[Found]] = []
    for each in found:
        shared = [overlap(each.box, mean(cluster)) for cluster in clusters]
        if shared and max(shared) > iou:
            clusters[shared.index(max(shared))].append(each)
        else:
            clusters.append([each])
    return [
        Found(
            mean(cluster),
            sum(each.score for each in cluster) / len(cluster) * min(len(cluster), views) / views,
            cluster[0].label,
            cluster[0].row,
        )
        for cluster in clusters
    ]


def merged(found: Sequence[Found], rule: str, *, iou: float, sigma: float, votes: float, views: int) -> list[Found]:
    """Best first, of all classes."""
    results: list[Found] = []
    for label in sorted({each.label for each in found}):
        own = sorted((each for each in found if each.label == label), key=lambda each: -each.score)
        results += {
            "nms": lambda own=own: suppressed(own, iou),
            "soft_nms": lambda own=own: softened(own, iou, sigma),
            "soft_nms_linear": lambda own=own: softened(own, iou, None),
            "box_voting": lambda own=own: voted(own, iou, votes),
            "box_fusion": lambda own=own: fused(own, iou, views),
        }[rule]()
    return sorted(results, key=lambda each: -each.score)
