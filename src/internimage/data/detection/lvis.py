"""What a federated set such as LVIS says beyond COCO's format: which classes were looked for in which picture.

Of its many classes every picture is annotated for some: for those with an object in it, and for those that were looked
for in vain. Of a few the objects are annotated in part. Nothing is known of all others.

Source: arXiv:1908.03195, sec. 3, and the annotation files of LVIS v1.
"""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from internimage.data.detection.annotations import Findings

Frequency = Literal["r", "c", "f"]
_FREQUENCIES = ("r", "c", "f")
MOST_RESULTS = 300
"""Results of an image that count, the best of all classes; COCO counts 100 of a class and image."""
_ABSENT, _PARTLY = "neg_category_ids", "not_exhaustive_category_ids"


@dataclass(frozen=True)
class Verified:
    """What was looked for in one picture, by the file's category ids.

    Args:
        absent: classes of which there is no object.
        partly: classes of which not every object is annotated.
    """

    absent: tuple[int, ...] = ()
    partly: tuple[int, ...] = ()

    def fields(self) -> dict[str, list[int]]:
        """The fields of an image in LVIS's format."""
        return {_ABSENT: list(self.absent), _PARTLY: list(self.partly)}


def verified(raw: Mapping[str, Any], where: str, findings: Findings) -> Verified | None:
    """What an image's entry says, or None where it is of no federated set; a list of other things is refused."""
    if _ABSENT not in raw and _PARTLY not in raw:
        return None
    lists: list[tuple[int, ...]] = []
    for key in (_ABSENT, _PARTLY):
        given = raw.get(key, [])
        if not isinstance(given, list) or not all(type(each) is int for each in cast(list[Any], given)):
            findings.refuse("federated classes", where, f"{key} must be a list of category ids, got {given!r:.40}")
            given = []
        lists.append(tuple(cast(list[int], given)))
    return Verified(*lists)


def is_federated(images: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these entries are of a federated set."""
    return any(_ABSENT in each or _PARTLY in each for each in images)


def absent_in(image: Mapping[str, Any]) -> list[int]:
    """The categories that were looked for in vain in an image's entry."""
    return image.get(_ABSENT, [])


def best_of_images(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of results in COCO's format those that count."""
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for each in results:
        by_image.setdefault(each["image_id"], []).append(each)
    key = itemgetter("score")
    return [row for rows in by_image.values() for row in sorted(rows, key=key, reverse=True)[:MOST_RESULTS]]


def file_name(raw: Mapping[str, Any]) -> Any:
    """The name of an image's file: LVIS v1 has it in ``coco_url`` alone, with the folder of COCO that it lies in.

    >>> file_name({"coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg"})
    'val2017/000000397133.jpg'
    """
    url = raw.get("coco_url")
    if "file_name" in raw or not isinstance(url, str):
        return raw.get("file_name")
    return posixpath.normpath(urlsplit(url).path).lstrip("/")


def frequencies(raw: Sequence[Any], label_of: Mapping[int, int], num_classes: int) -> tuple[Frequency, ...]:
    """Of each class whether it is rare, common or frequent in training; empty where the file does not say so of all."""
    found: dict[int, Frequency] = {}
    for each in raw:
        if isinstance(each, dict) and each.get("frequency") in _FREQUENCIES and each.get("id") in label_of:
            found[label_of[each["id"]]] = each["frequency"]
    is_known = all(label in found for label in range(num_classes))
    return tuple(found[label] for label in range(num_classes)) if is_known else ()


def repeats(shown: Sequence[frozenset[int]], threshold: float) -> list[int]:
    """How often a picture is to be seen in an epoch, so that rare classes are learned, too: 1 or more.

    A class that a share f of the pictures show asks for sqrt(threshold / f), a picture for the most that its classes
    ask for, rounded up.

    Source: arXiv:1908.03195, app. A; rounded up as ``ClassBalancedDataset`` of mmdet 2.28 does.

    Args:
        shown: of each picture the classes in it.
        threshold: share of the pictures, below which a class is rare; in (0, 1].

    >>> repeats([frozenset({0})] * 3 + [frozenset({0, 1})], threshold=1.0)
    [1, 1, 1, 2]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"repeat_threshold must be a share of the pictures in (0, 1], got {threshold}")
    counts = Counter(label for labels in shown for label in labels)
    factor = {label: math.sqrt(threshold * len(shown) / count) for label, count in counts.items()}
    return [math.ceil(max([1.0, *(factor[label] for label in labels)])) for labels in shown]
