"""The metrics of other sets than COCO, counted by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from internimage.tasks.detection.conventions import measure
from internimage.tasks.detection.precision import average_precision

A, B, C, D = [0, 0, 20, 20], [40, 0, 20, 20], [0, 40, 20, 20], [40, 40, 20, 20]
NOWHERE, WIDE = [80, 80, 20, 20], [0, 0, 60, 60]


def truth(*objects: tuple[int, list[int]], crowds: Any = (), images: int = 1, category: int = 3) -> dict[str, Any]:
    """Objects and crowds as (image, box)."""
    rows = [(*each, 0) for each in objects] + [(*each, 1) for each in crowds]
    annotations = [
        {"id": at, "image_id": i, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for at, (i, box, crowd) in enumerate(rows, 1)
    ]
    listed = [{"id": number, "width": 100, "height": 100} for number in range(1, images + 1)]
    return {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    }


def found(*boxes: list[int], image: int = 1) -> list[dict[str, Any]]:
    """Results of one image, best first."""
    return [
        {"image_id": image, "category_id": 3, "bbox": box, "score": 1 - at / 100} for at, box in enumerate(boxes, 1)
    ]


@pytest.mark.parametrize(
    ("boxes", "area", "eleven"),
    [
        ([A, B, C, D], 1, 1),
        # Right, wrong, right: 1 up to recall 1/4, 2/3 up to 1/2, then nothing. Of eleven recalls 3 and 3 lie there.
        ([A, NOWHERE, B], (1 + 2 / 3) / 4, (3 + 3 * 2 / 3) / 11),
        ([NOWHERE, A], 0.5 / 4, 3 * 0.5 / 11),
        # An object's second result is false, though another object would still be free.
        ([A, A, B], (1 + 2 / 3) / 4, (3 + 3 * 2 / 3) / 11),
        ([], 0, 0),
    ],
    ids=["perfect", "a mistake between", "a mistake above", "found twice", "nothing"],
)
def test_voc_by_hand(boxes: list[list[int]], area: float, eleven: float) -> None:
    wanted = truth(*((1, box) for box in (A, B, C, D)))
    assert measure("voc", wanted, found(*boxes)) == pytest.approx(area)
    assert measure("voc07", wanted, found(*boxes)) == pytest.approx(eleven)


def test_difficult_objects_of_voc_do_not_count() -> None:
    """Neither when they are found, nor when they are not; twice as little as once."""
    wanted = truth((1, A), crowds=[(1, B)])
    for boxes in ([B, B, A], [A], [B, A]):
        assert measure("voc", wanted, found(*boxes)) == 1
    assert measure("voc", wanted, found(NOWHERE, A)) == 0.5
    assert math.isnan(measure("voc", truth(crowds=[(1, A)]), found(A)))


def test_cocos_ap50_is_vocs_where_no_recall_lies_between_its_101() -> None:
    """Of 100 objects in 100 pictures every second is found after a mistake: COCO reads recall 0, too."""
    objects = [(number, A) for number in range(1, 101)]
    wanted = truth(*objects, images=100)
    results = [row for number in range(1, 101, 2) for row in found(NOWHERE, A, image=number)]
    voc, coco = measure("voc", wanted, results), average_precision(wanted, results, "bbox").ap50
    assert voc == pytest.approx(0.25)
    assert coco == pytest.approx((100 * voc + 0.5) / 101)


def test_classes_count_alike() -> None:
    wanted = truth((1, A))
    wanted["annotations"].append({**wanted["annotations"][0], "id": 9, "category_id": 7, "bbox": B})
    assert measure("voc", wanted, found(A)) == 0.5
    assert measure("openimages", wanted, found(A)) == 0.5


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        # The object before the group; a second one in the group does not count.
        ([A, C, D], 1),
        ([C, NOWHERE, A], (1 + 2 / 3) / 2),
        ([A], 0.5),
        # Neither the object's any more, nor in the group by half: false, and the group is found after it.
        ([A, A, C], (1 + 2 / 3) / 2),
    ],
    ids=["all", "a mistake between", "no result in the group", "a second of an object outside the group"],
)
def test_openimages_by_hand(boxes: list[list[int]], expected: float) -> None:
    """One object, and a group that is one more to find."""
    wanted = truth((1, A), crowds=[(1, [0, 30, 60, 60])])
    assert measure("openimages", wanted, found(*boxes)) == pytest.approx(expected)


def test_a_second_result_of_an_object_finds_the_group_around_it() -> None:
    """Objects come first; what finds none of its own is held against the groups."""
    wanted = truth((1, A), crowds=[(1, WIDE)])
    assert measure("openimages", wanted, found(A, A, B)) == 1
    assert measure("openimages", wanted, found(A, NOWHERE, A)) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(("absent", "expected"), [([], 1.0), ([7], 1.0), ([3], 0.5)])
def test_openimages_counts_what_was_looked_for(absent: list[int], expected: float) -> None:
    """A result in a second picture, above the right one: false only where its class was looked for in vain."""
    wanted = truth((1, A), images=2)
    wanted["images"][1]["neg_category_ids"] = absent
    results = found(A, image=2) + [row | {"score": 0.5} for row in found(A)]
    assert measure("openimages", wanted, results) == expected
    assert measure("voc", wanted, results) == 0.5
    # Nobody says what was looked for: everything was.
    assert measure("openimages", truth((1, A), images=2), results) == 0.5


def test_miss_rate_by_hand() -> None:
    """Two objects in 10 pictures: at 0.01 to 0.0562 false ones a picture none is allowed, at 0.1 to 1 more are.

    The first one found is right, the second wrong (0.1 a picture), the third right. Up to 0.1, and there as well, the
    rate is read after the mistake: half is missed, at five places. Above that nothing is left to read but the end,
    where all is found, at four.
    """
    wanted = truth((1, A), (1, B), images=10)
    assert measure("miss_rate", wanted, found(A, NOWHERE, B)) == pytest.approx(0.5 ** (5 / 9) * 1e-10 ** (4 / 9))
    assert measure("miss_rate", wanted, found(A)) == pytest.approx(0.5)
    assert measure("miss_rate", wanted, found(NOWHERE, A)) == pytest.approx(1.0 ** (5 / 9) * 0.5 ** (4 / 9))
    assert measure("miss_rate", wanted, []) == 1
    assert math.isnan(measure("miss_rate", truth(), found(A)))


def test_ignored_regions_of_crowdhuman_do_not_count() -> None:
    """A result in one by half is left out; one on an object counts for the object; a free object is taken before."""
    wanted = truth((1, A), (1, B), crowds=[(1, WIDE)])
    assert measure("miss_rate", wanted, found(C, D, C, A)) == pytest.approx(0.5)
    # The better overlap of the second result is taken, so that it takes the other object.
    near = [8, 0, 20, 20]
    both = truth((1, A), (1, near))
    assert measure("miss_rate", both, found(A, [2, 0, 20, 20])) == pytest.approx(1e-10)
