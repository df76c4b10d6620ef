"""COCO's average precision of boxes and of masks, and results in COCO's format.

Shape legend: T thresholds of IoU (0.5 to 0.95), R recalls (0 to 1 by 0.01), K classes.
"""

# faster-coco-eval has no types.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from internimage.data.detection.annotations import Instance
from internimage.data.detection.dataset import CocoPictures, Source
from internimage.data.detection.lvis import MOST_RESULTS, Frequency, best_of_images, is_federated
from internimage.data.detection.rle import encode_masks
from internimage.model.detection import Detected

Kind = Literal["bbox", "segm"]
_HALF, _THREE_QUARTERS = 0, 5
_RARITIES: dict[Frequency, str] = {"r": "map_rare", "c": "map_common", "f": "map_frequent"}


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """COCO's numbers; NaN where there is nothing to find.

    Args:
        ap: mean over IoU thresholds 0.5 to 0.95 and over classes, in [0, 1].
        ap50: at IoU 0.5.
        ap75: at IoU 0.75.
        small: ``ap`` of objects below 32 x 32 pixels.
        medium: from there to 96 x 96.
        large: above.
        per_class: (3, K): ``ap``, ``ap50`` and ``ap75`` of each class, in the order of the truth's categories.
        curves: (T, R, K), precision at each recall; NaN for a class without objects.
        objects: (K,), how many objects there are, without crowds.
        rarities: ``ap`` of the classes that are rare, common and frequent in training, by the names under which they
            are logged; where the truth says which these are.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    per_class: NDArray[np.float64]
    curves: NDArray[np.float64]
    objects: NDArray[np.int64]
    rarities: dict[str, float] = field(default_factory=dict[str, float])

    def metrics(self) -> dict[str, float]:
        """The six numbers, and those by rarity if there are any, by the names under which they are logged."""
        return {
            "map": self.ap,
            "map50": self.ap50,
            "map75": self.ap75,
            "map_small": self.small,
            "map_medium": self.medium,
            "map_large": self.large,
            **self.rarities,
        }


def average_precision(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: Kind) -> AveragePrecision:
    """Compare results with the truth as COCO does, or, where the truth is of a federated set, as LVIS does.

    There only results of classes that were looked for in their image count, and where not every object of a class is
    annotated, none of it is false. Source: arXiv:1908.03195, sec. 3.

    Args:
        truth: of the images that count, in COCO's format (``images``, ``annotations``, ``categories``); of a federated
            set with ``neg_category_ids`` and ``not_exhaustive_category_ids`` of the images.
        results: in COCO's result format, with ``bbox``, or ``segmentation`` as run lengths; at most 100 of an image
            and class count, of a federated set the best 300 of an image. A mask is as large as its pixels, whatever its
            box.
        kind: boxes or masks.

    >>> truth = {"images": [{"id": 1, "width": 64, "height": 64}], "categories": [{"id": 3, "name": "cat"}]}
    >>> cat = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    >>> truth["annotations"] = [cat]
    >>> found = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.9}]
    >>> round(average_precision(truth, found, "bbox").ap, 3), average_precision(truth, [], "bbox").ap
    (1.0, 0.0)
    """
    federated = is_federated(truth["images"])
    precision_TRKA, areas = _precisions(truth, best_of_images(results) if federated else results, kind, federated)
    curves_TRK = precision_TRKA[..., areas.index("all")]
    sizes = [_mean(precision_TRKA[..., areas.index(name)]) for name in ("small", "medium", "large")]
    columns = [curves_TRK, curves_TRK[_HALF], curves_TRK[_THREE_QUARTERS]]
    per_class = np.array([[_mean(each[..., label]) for label in range(curves_TRK.shape[-1])] for each in columns])
    counts = Counter(each["category_id"] for each in truth["annotations"] if not each.get("iscrowd", 0))
    objects = np.array([counts[each["id"]] for each in truth["categories"]], np.int64)
    ap, ap50, ap75 = (_mean(each) for each in columns)
    small, medium, large = sizes
    return AveragePrecision(
        ap, ap50, ap75, small, medium, large, per_class, curves_TRK, objects, _rarities(truth, curves_TRK)
    )


def _rarities(truth: Mapping[str, Any], curves_TRK: NDArray[np.float64]) -> dict[str, float]:
    kinds = [category.get("frequency") for category in truth["categories"]]
    if not any(kinds):
        return {}
    return {name: _mean(curves_TRK[..., [kind == short for kind in kinds]]) for short, name in _RARITIES.items()}


def _precisions(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: Kind, federated: bool
) -> tuple[NDArray[np.float64], list[str]]:
    """(T, R, K, A) precisions, NaN where there is nothing to find, classes as in the truth; and the A ranges' names."""
    COCO, COCOeval_faster = coco_judge()
    # The library writes into what it is given.
    content = copy.deepcopy(dict(truth))
    for category in content["categories"]:
        category.setdefault("frequency", "f")
    wanted = COCO(content)
    # With boxes beside the masks, their areas would say which masks are small.
    rows = [{key: value for key, value in each.items() if kind == "bbox" or key != "bbox"} for each in results]
    found = wanted.loadRes(rows) if rows else COCO({**content, "annotations": []})
    judge = COCOeval_faster(wanted, found, kind, print_function=lambda *_: None, lvis_style=federated)
    if federated:
        judge.params.maxDets = [MOST_RESULTS]
    judge.evaluate()
    judge.accumulate()
    precision_TRKAM = np.asarray(judge.eval["precision"], np.float64)
    precision_TRKAM[precision_TRKAM < 0] = np.nan
    # The library sorts the categories by their ids.
    ids = [category["id"] for category in truth["categories"]]
    order = [sorted(ids).index(each) for each in ids]
    return precision_TRKAM[..., -1][:, :, order], list(judge.params.areaRngLbl)


def coco_judge() -> tuple[Any, Any]:
    """faster-coco-eval's ``COCO`` and ``COCOeval_faster``; ``ImportError`` that says what to install."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        fix = "pip install 'internimage-torch[detection]'"
        raise ImportError(f"average precision needs faster-coco-eval: {fix}", name="faster_coco_eval") from None
    return COCO, COCOeval_faster


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def coco_truth(source: Source, indices: Sequence[int] | None = None) -> dict[str, Any]:
    """The truth of a set, or of some of its pictures, in COCO's format; masks run-length encoded.

    Pictures and categories keep the ids of their file; those that come from none are numbered from 1.
    """
    chosen = range(len(source)) if indices is None else indices
    ids = category_ids(source)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in chosen:
        image, objects = _described(source, index)
        images.append(image)
        annotations += objects
    for number, each in enumerate(annotations):
        each["id"] = number + 1
    categories: list[dict[str, Any]] = [
        {"id": each, "name": name} for each, name in zip(ids, source.labels, strict=True)
    ]
    if isinstance(source, CocoPictures) and source.coco.frequencies:
        for category, frequency in zip(categories, source.coco.frequencies, strict=True):
            category["frequency"] = frequency
    return {"images": images, "annotations": annotations, "categories": categories}


def category_ids(source: Source) -> tuple[int, ...]:
    """The category id of every label; a class that the file does not know gets one that it does not use."""
    if not isinstance(source, CocoPictures):
        return tuple(range(1, len(source.labels) + 1))
    free = itertools.count(max(source.coco.category_ids) + 1)
    return tuple(each if each >= 0 else next(free) for each in source.coco.category_ids)


def image_id(source: Source, index: int) -> int:
    """The image id of a picture."""
    return source.coco.pictures[index].id if isinstance(source, CocoPictures) else index + 1


def _described(source: Source, index: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ids, number = category_ids(source), image_id(source, index)
    if isinstance(source, CocoPictures):
        picture = source.coco.pictures[index]
        image = {"id": number, "file_name": picture.path.name, "height": picture.size[0], "width": picture.size[1]}
        if picture.verified is not None:
            image |= picture.verified.fields()
        rows = [(each.box, each.label, each.area, each.is_crowd, _outline(each)) for each in picture.instances]
    else:
        raw = source.read(index)
        image = {"id": number, "file_name": f"{number}.png", "height": raw.image.height, "width": raw.image.width}
        masks = [None] * len(raw.labels) if raw.masks is None else encode_masks(raw.masks)
        sizes = _areas(raw.boxes) if raw.masks is None else raw.masks.sum((1, 2))
        rows = [
            (box, label, float(size), False, mask)
            for box, label, size, mask in zip(raw.boxes, raw.labels, sizes, masks, strict=True)
        ]
    objects: list[dict[str, Any]] = []
    for (x1, y1, x2, y2), label, area, is_crowd, mask in rows:
        box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
        common = {"image_id": number, "category_id": ids[int(label)], "bbox": box, "area": area}
        objects.append(common | {"iscrowd": int(is_crowd)} | ({} if mask is None else {"segmentation": mask}))
    return image, objects


def _outline(instance: Instance) -> Any:
    """An instance's mask; a crowd, which has no shape of its own, may be its box."""
    if instance.segmentation is not None or not instance.is_crowd:
        return instance.segmentation
    x1, y1, x2, y2 = instance.box
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def _areas(boxes_R4: NDArray[np.float32]) -> NDArray[Any]:
    return (boxes_R4[:, 2] - boxes_R4[:, 0]) * (boxes_R4[:, 3] - boxes_R4[:, 1])


def coco_results(found: Detected, number: int, ids: Sequence[int]) -> list[dict[str, Any]]:
    """What a detector found in one picture in COCO's result format.

    Args:
        found: the objects.
        number: the image's id.
        ids: the category id of each label.
    """
    boxes, scores, labels = (each.cpu().numpy() for each in (found.boxes, found.scores, found.labels))
    masks = [None] * len(labels) if found.masks is None else encode_masks(found.masks.cpu().numpy())
    results: list[dict[str, Any]] = []
    for (x1, y1, x2, y2), score, label, mask in zip(boxes, scores, labels, masks, strict=True):
        box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
        result = {"image_id": number, "category_id": ids[int(label)], "bbox": box, "score": float(score)}
        results.append(result | ({} if mask is None else {"segmentation": mask}))
    return results
