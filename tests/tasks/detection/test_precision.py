"""Average precision on scenes computed by hand, and number by number as pycocotools."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from internimage.data.detection.rle import encode_masks
from internimage.tasks.detection.precision import average_precision

Box = tuple[float, float, float, float]


def scene(*pictures: list[tuple[int, Box]], crowd: bool = False) -> dict[str, Any]:
    """Truth of pictures of 200 x 200 pixels; an object is (category, x y width height); categories 3 and 7."""
    objects = [(number, *each) for number, listed in enumerate(pictures, 1) for each in listed]
    annotations = [
        {"id": row, "image_id": number, "category_id": category, "bbox": list(box), "area": box[2] * box[3]}
        | {"iscrowd": int(crowd), "segmentation": polygon(box)}
        for row, (number, category, box) in enumerate(objects, 1)
    ]
    images = [{"id": number, "width": 200, "height": 200} for number in range(1, len(pictures) + 1)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    }


def polygon(box: Box) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def found(*rows: tuple[int, int, Box, float]) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": c, "bbox": list(box), "score": score} for i, c, box, score in rows]


SMALL, MEDIUM, LARGE = (10.0, 10.0, 20.0, 20.0), (50.0, 10.0, 50.0, 50.0), (20.0, 80.0, 110.0, 110.0)
TRUTH = scene([(3, SMALL), (7, MEDIUM)], [(3, LARGE)])


def test_perfect() -> None:
    perfect = average_precision(TRUTH, found((1, 3, SMALL, 0.9), (1, 7, MEDIUM, 0.8), (2, 3, LARGE, 0.7)), "bbox")
    assert list(perfect.metrics().values()) == pytest.approx([1.0] * 6)
    np.testing.assert_allclose(perfect.per_class, np.ones((3, 2)))
    assert perfect.objects.tolist() == [2, 1]
    assert perfect.curves.shape == (10, 101, 2)


def test_nothing_found() -> None:
    assert list(average_precision(TRUTH, [], "bbox").metrics().values()) == [0.0] * 6


def test_nothing_to_find() -> None:
    """No number, rather than a good or a bad one; crowds are no objects."""
    for truth in (scene([], []), scene([(3, SMALL)], crowd=True)):
        empty = average_precision(truth, found((1, 3, SMALL, 0.9)), "bbox")
        assert all(math.isnan(value) for value in empty.metrics().values())
        assert empty.objects.tolist() == [0, 0]


def test_shifted_by_a_fifth() -> None:
    """An object moved by 10 of its 50 pixels: IoU 40/60, enough for the thresholds 0.5 to 0.65, four of ten."""
    truth = scene([(7, MEDIUM)])
    shifted = average_precision(truth, found((1, 7, (60.0, 10.0, 50.0, 50.0), 0.9)), "bbox")
    assert (shifted.ap, shifted.ap50, shifted.ap75) == pytest.approx((0.4, 1.0, 0.0))
    assert (shifted.medium, shifted.per_class[0, 1]) == pytest.approx((0.4, 0.4))
    assert math.isnan(shifted.small)
    assert math.isnan(shifted.per_class[0, 0])


def test_found_twice() -> None:
    """Two objects, the first one found twice before the second: precision 1 up to recall 1/2, then 2/3.

    Of the 101 recalls, 51 lie at or below 1/2.
    """
    truth = scene([(3, SMALL), (3, MEDIUM)])
    double = average_precision(truth, found((1, 3, SMALL, 0.9), (1, 3, SMALL, 0.8), (1, 3, MEDIUM, 0.7)), "bbox")
    assert double.ap == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_half_found_before_a_mistake() -> None:
    """One of two found, with one mistake above it: precision 1/2 up to recall 1/2, 0 beyond."""
    truth = scene([(3, SMALL), (3, MEDIUM)])
    half = average_precision(truth, found((1, 3, (150.0, 150.0, 20.0, 20.0), 0.9), (1, 3, SMALL, 0.8)), "bbox")
    assert half.ap == pytest.approx(51 * 0.5 / 101)


def test_masks_by_hand() -> None:
    """A mask of the left half of its object: IoU 1/2 at the lowest threshold alone."""
    truth = scene([(3, MEDIUM)])
    result = found((1, 3, MEDIUM, 0.9))
    result[0]["segmentation"] = _filled((50.0, 10.0, 25.0, 50.0))
    masks, boxes = (average_precision(truth, result, kind) for kind in ("segm", "bbox"))
    assert (masks.ap, masks.ap50) == pytest.approx((0.1, 1.0))
    assert boxes.ap == pytest.approx(1.0)


def test_a_mask_is_as_large_as_its_pixels() -> None:
    """A diagonal line in a box of medium size: small."""
    line = np.eye(200, dtype=bool)[None]
    line[0, 60:] = False
    (code,) = encode_masks(line)
    truth = scene([(3, (0.0, 0.0, 60.0, 60.0))])
    truth["annotations"][0] |= {"segmentation": code, "area": 60}
    (result,) = found((1, 3, (0.0, 0.0, 60.0, 60.0), 0.9))
    precision = average_precision(truth, [result | {"segmentation": code}], "segm")
    assert precision.small == pytest.approx(1.0)
    assert math.isnan(precision.medium)


def test_classes_keep_the_order_of_the_truth() -> None:
    """Labels are those of the training set, whose order need not be that of the validation set's ids."""
    truth = scene([(3, SMALL), (7, MEDIUM)], [(3, LARGE)])
    truth["categories"].reverse()
    precision = average_precision(truth, found((1, 7, MEDIUM, 0.8)), "bbox")
    assert precision.objects.tolist() == [1, 2]
    np.testing.assert_allclose(precision.per_class, [[1, 0]] * 3)
    np.testing.assert_allclose(precision.curves[..., 0], 1)


def test_what_it_is_given_stays_as_it_is() -> None:
    truth, results = scene([(3, SMALL), (7, MEDIUM)]), found((1, 7, MEDIUM, 0.8))
    before = copy.deepcopy((truth, results))
    average_precision(truth, results, "bbox")
    assert (truth, results) == before


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_agrees_with_pycocotools(kind: str) -> None:
    """Forty pictures with crowds, near misses, doubles, false alarms and more than a hundred results in one of them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = _random_set(np.random.default_rng(0))
    ours = average_precision(truth, results, "segm" if kind == "segm" else "bbox")
    wanted = COCO()
    wanted.dataset = copy.deepcopy(truth)
    wanted.createIndex()
    # Beside a box, pycocotools takes its area for the mask's; mmdetection and Detectron2 leave it out.
    rows = [{key: each[key] for key in each if kind == "bbox" or key != "bbox"} for each in copy.deepcopy(results)]
    judge = COCOeval(wanted, wanted.loadRes(rows), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert list(ours.metrics().values()) == pytest.approx(judge.stats[:6].tolist(), abs=1e-6)
    precision = judge.eval["precision"][..., 0, -1]
    np.testing.assert_allclose(np.nan_to_num(ours.curves, nan=-1), precision, atol=1e-6)
    assert 0.05 < ours.ap < 0.95, "a comparison at the ends of the scale would prove little"


def _random_set(random: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    pictures = [
        [(int(random.choice([3, 7])), tuple(random.uniform([0, 0, 8, 8], [90, 90, 110, 110]))) for _ in range(count)]
        for count in random.integers(0, 8, 40)
    ]
    truth = scene(*pictures)
    for each in truth["annotations"][::9]:
        each["iscrowd"] = 1
        each["segmentation"] = _filled(each["bbox"])
    rows: list[tuple[int, int, Box, float]] = []
    for number, listed in enumerate(pictures, 1):
        for category, box in listed:
            for _ in range(int(random.integers(0, 3))):
                near = tuple(np.array(box) + random.normal(0, 4, 4).clip(-7, 7))
                rows.append((number, int(random.choice([category, 3, 7])), near, float(random.uniform())))
    rows += [(1, 3, tuple(random.uniform([0, 0, 8, 8], 90)), float(random.uniform())) for _ in range(130)]
    results = found(*rows)
    for each in results:
        each["segmentation"] = _filled(each["bbox"])
    return truth, results


def _filled(box: Box) -> dict[str, Any]:
    """A run-length encoded rectangle."""
    mask = np.zeros((1, 200, 200), bool)
    x1, y1, x2, y2 = (max(int(each), 0) for each in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    mask[0, y1:y2, x1:x2] = True
    return encode_masks(mask)[0]
