"""How other sets than COCO count: Pascal VOC's and OpenImages' precision, CrowdHuman's miss rate. All at IoU 0.5."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from internimage.data.detection.lvis import absent_in, is_federated

Metric = Literal["voc", "voc07", "openimages", "miss_rate"]
METRICS: dict[Metric, str] = {
    "voc": "AP50 as VOC 2012 counts",
    "voc07": "AP50 as VOC 2007 counts",
    "openimages": "AP50 as OpenImages counts",
    "miss_rate": "miss rate, the lower the better",
}
"""What a run's page calls them."""
_IOU = 0.5
# False results per picture at which CrowdHuman reads the miss rate: nine, evenly spaced in the logarithm.
_RATES = np.logspace(-2, 0, 9)

_Floats = NDArray[np.float64]
_Hits = list[tuple[float, bool]]
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Scene:
    """One class in one picture: boxes (n, 4) as x1, y1, x2, y2, results best first; regions are no objects (crowds)."""

    scores: _Floats
    results: _Floats
    objects: _Floats
    regions: _Floats


def measure(metric: Metric, truth: Mapping[str, Any], results: Sequence[_Row]) -> float:
    """One number of a set, in [0, 1]; NaN where there is nothing to find.

    ``voc``: mean over classes of the area under the precision over the recall; ``voc07``: of the mean precision at
    eleven recalls, as in VOC 2007. An object belongs to the result that overlaps it most, a second result of an object
    is false, and one on a difficult object (a crowd) does not count.

    ``openimages``: as ``voc``, but a group (a crowd) is an object, found by the best of the results that find no object
    of their own and lie in it by half; the others of these do not count. In a federated set, no result counts of a
    class that was not looked for in its picture.

    ``miss_rate``: CrowdHuman's log-average miss rate (MR^-2) of all classes together, the lower the better: the
    geometric mean of the share of missed objects at 0.01 to 1 false results per picture.

    Source: the VOC 2012 development kit; sec. 4 of arXiv:1811.00982, in the order of ``tpfp_openimages`` of mmdet 2.28;
    arXiv:1805.00123 and Dollár et al., Pedestrian Detection: An Evaluation of the State of the Art, TPAMI 2012.

    Args:
        metric: one of the four.
        truth: in COCO's format.
        results: in COCO's result format; only their boxes are looked at.
    """
    if metric == "openimages" and is_federated(truth["images"]):
        results = _looked_for(truth, results)
    scenes = _scenes(truth, results)
    if metric == "miss_rate":
        every = [scene for listed in scenes.values() for scene in listed]
        total = sum(len(scene.objects) for scene in every)
        return _miss_rate(_gathered(every, _crowd_hits), total, len(truth["images"]))
    find = _openimages_hits if metric == "openimages" else _voc_hits
    values: list[float] = []
    for listed in scenes.values():
        total = sum(len(each.objects) + (len(each.regions) if metric == "openimages" else 0) for each in listed)
        if total:
            values.append(_precision(_gathered(listed, find), total, eleven=metric == "voc07"))
    return float(np.mean(values)) if values else math.nan


def _looked_for(truth: Mapping[str, Any], results: Sequence[_Row]) -> list[_Row]:
    """Results of classes that their picture shows, or that were looked for in it in vain."""
    known = {(each["image_id"], each["category_id"]) for each in truth["annotations"]}
    known |= {(image["id"], category) for image in truth["images"] for category in absent_in(image)}
    return [each for each in results if (each["image_id"], each["category_id"]) in known]


def _scenes(truth: Mapping[str, Any], results: Sequence[_Row]) -> dict[int, list[_Scene]]:
    """By category id; pictures without results and objects of it are left out."""
    found: defaultdict[tuple[int, int], list[_Row]] = defaultdict(list)
    objects: defaultdict[tuple[int, int], list[_Row]] = defaultdict(list)
    regions: defaultdict[tuple[int, int], list[_Row]] = defaultdict(list)
    for each in results:
        found[each["category_id"], each["image_id"]].append(each)
    for each in truth["annotations"]:
        (regions if each.get("iscrowd", 0) else objects)[each["category_id"], each["image_id"]].append(each)
    scenes: dict[int, list[_Scene]] = {}
    for key in sorted({*found, *objects, *regions}):
        rows = sorted(found[key], key=lambda row: -row["score"])
        scores = np.array([row["score"] for row in rows], np.float64)
        scenes.setdefault(key[0], []).append(_Scene(scores, *map(_corners, (rows, objects[key], regions[key]))))
    return scenes


def _corners(rows: Sequence[_Row]) -> _Floats:
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _gathered(scenes: Sequence[_Scene], find: Callable[[_Scene], Iterator[tuple[float, bool]]]) -> _Hits:
    """What counts in all pictures, best first."""
    return sorted((each for scene in scenes for each in find(scene)), key=lambda each: -each[0])


def _voc_hits(scene: _Scene) -> Iterator[tuple[float, bool]]:
    iou = _overlaps(scene.results, np.concatenate([scene.objects, scene.regions]))
    taken = set[int]()
    for row, score in enumerate(scene.scores):
        best = int(iou[row].argmax()) if iou.shape[1] else -1
        if best < 0 or iou[row, best] < _IOU:
            yield float(score), False
        elif best < len(scene.objects):
            yield float(score), best not in taken
            taken.add(best)


def _openimages_hits(scene: _Scene) -> Iterator[tuple[float, bool]]:
    iou = _overlaps(scene.results, scene.objects)
    inside = _overlaps(scene.results, scene.regions, of_first=True)
    taken, found = set[int](), set[int]()
    for row, score in enumerate(scene.scores):
        best = int(iou[row].argmax()) if iou.shape[1] else -1
        group = int(inside[row].argmax()) if inside.shape[1] else -1
        if best >= 0 and iou[row, best] >= _IOU and best not in taken:
            yield float(score), True
            taken.add(best)
        elif group < 0 or inside[row, group] < _IOU:
            yield float(score), False
        elif group not in found:
            yield float(score), True
            found.add(group)


def _crowd_hits(scene: _Scene) -> Iterator[tuple[float, bool]]:
    """Each result takes the free object that it overlaps most; one in an ignored region by half does not count."""
    iou = _overlaps(scene.results, scene.objects)
    inside = _overlaps(scene.results, scene.regions, of_first=True)
    for row, score in enumerate(scene.scores):
        best = int(iou[row].argmax()) if iou.shape[1] else -1
        if best >= 0 and iou[row, best] > _IOU:
            iou[:, best] = 0
            yield float(score), True
        elif not (inside[row] > _IOU).any():
            yield float(score), False


def _overlaps(one: _Floats, other: _Floats, *, of_first: bool = False) -> _Floats:
    """IoU of every pair, or the share of the first one's area."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    both = np.clip(np.minimum(one[:, None, 2:], other[None, :, 2:]) - corner, 0, None).prod(-1)
    area = (one[:, 2:] - one[:, :2]).prod(-1)[:, None]
    whole = area if of_first else area + (other[:, 2:] - other[:, :2]).prod(-1)[None] - both
    return both / np.maximum(whole, 1e-9)


def _curve(hits: _Hits) -> tuple[_Floats, _Floats]:
    """How many results were right, and how many wrong, after each of them."""
    right = np.array([hit for _, hit in hits], np.float64)
    return right.cumsum(), (1 - right).cumsum()


def _precision(hits: _Hits, total: int, *, eleven: bool) -> float:
    right, wrong = _curve(hits)
    recall, precision = right / total, right / np.maximum(right + wrong, 1)
    # The best precision at this recall or a higher one.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven:
        # Ten times a recall against whole numbers: 0.3 is none in binary.
        return float(np.mean([max(precision[10 * recall >= at - 1e-9], default=0.0) for at in range(11)]))
    return float((np.diff(recall, prepend=0) * precision).sum())


def _miss_rate(hits: _Hits, total: int, num_pictures: int) -> float:
    if not total:
        return math.nan
    if not hits:
        return 1.0
    right, wrong = _curve(hits)
    missed = 1 - right / total
    places = np.minimum(np.searchsorted(wrong / num_pictures, _RATES - 1e-12), len(hits) - 1)
    # Nothing missed would make the mean 0, whatever it is elsewhere.
    return float(np.exp(np.log(np.maximum(missed[places], 1e-10)).mean()))
