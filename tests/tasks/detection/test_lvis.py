"""Average precision of a federated set: by hand, and number by number as an evaluation written as LVIS describes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from internimage.data.detection.coco import read_coco
from internimage.data.detection.dataset import CocoPictures
from internimage.tasks.detection.precision import AveragePrecision, average_precision, coco_truth
from support.annotations import annotation, write_coco

Row = dict[str, Any]
BOX, ELSEWHERE = [10.0, 10.0, 40.0, 40.0], [100.0, 100.0, 40.0, 40.0]
RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def truth(*objects: tuple[int, int, list[float]], absent: Any = None, partly: Any = None, images: int = 2) -> Row:
    """Objects as (image, category, box); of images by number which categories are absent, or annotated in part."""
    listed = [
        {"id": number, "width": 200, "height": 200}
        | {"neg_category_ids": (absent or {}).get(number, [])}
        | {"not_exhaustive_category_ids": (partly or {}).get(number, [])}
        for number in range(1, images + 1)
    ]
    annotations = [
        {"id": row, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for row, (image, category, box) in enumerate(objects, 1)
    ]
    categories = [
        {"id": number, "name": str(number), "frequency": kind} for number, kind in ((4, "f"), (2, "r"), (9, "c"))
    ]
    return {"images": listed, "annotations": annotations, "categories": categories}


def found(*rows: tuple[int, int, list[float], float]) -> list[Row]:
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in rows]


# A wrong result above a right one halves the precision, where it counts.
WRONG_ABOVE = found((2, 4, BOX, 0.9), (1, 4, BOX, 0.8))


@pytest.mark.parametrize(
    ("absent", "partly", "expected"),
    [
        ({}, {}, 1.0),
        ({2: [4]}, {}, 0.5),
        ({2: [2]}, {}, 1.0),
        ({2: [4]}, {2: [4]}, 1.0),
        ({2: [4]}, {1: [4]}, 0.5),
    ],
    ids=["nothing known", "looked for", "another was looked for", "annotated in part", "in part elsewhere"],
)
def test_a_wrong_result_counts_where_its_class_was_looked_for(absent: Row, partly: Row, expected: float) -> None:
    precision = average_precision(truth((1, 4, BOX), absent=absent, partly=partly), WRONG_ABOVE, "bbox")
    assert precision.ap == pytest.approx(expected)
    assert precision.metrics()["map_frequent"] == pytest.approx(expected)
    assert math.isnan(precision.metrics()["map_rare"])


def test_a_second_box_counts_unless_the_class_is_annotated_in_part() -> None:
    """In the image of the object itself; the object is found in any case."""
    twice = found((1, 4, ELSEWHERE, 0.9), (1, 4, BOX, 0.8))
    assert average_precision(truth((1, 4, BOX)), twice, "bbox").ap == pytest.approx(0.5)
    assert average_precision(truth((1, 4, BOX), partly={1: [4]}), twice, "bbox").ap == pytest.approx(1.0)


def test_the_best_300_of_an_image_count() -> None:
    """Of all classes together: 300 better ones of a class of which nothing is known hide the right one."""
    right, others = (1, 4, BOX, 0.1), [(1, 9, ELSEWHERE, 0.5)] * 300
    assert average_precision(truth((1, 4, BOX)), found(*others[1:], right), "bbox").ap == pytest.approx(1.0)
    assert average_precision(truth((1, 4, BOX)), found(*others, right), "bbox").ap == 0
    # Of one class COCO would count 100.
    many = [(1, 4, ELSEWHERE, 0.5)] * 150
    assert average_precision(truth((1, 4, BOX)), found(*many, right), "bbox").ap == pytest.approx(1 / 151)


@pytest.mark.parametrize("seed", range(6))
def test_as_an_evaluation_in_loops(seed: int) -> None:
    draw = np.random.default_rng(seed)
    objects = [(int(draw.integers(1, 7)), int(draw.choice([2, 4, 9])), box(draw)) for _ in range(30)]
    lists = [
        {image: draw.choice([2, 4, 9], draw.integers(0, 3), False).tolist() for image in range(1, 7)} for _ in "ab"
    ]
    shown = {(image, category) for image, category, _ in objects}
    absent = {image: [each for each in listed if (image, each) not in shown] for image, listed in lists[0].items()}
    wanted = truth(*objects, absent=absent, partly=lists[1], images=6)
    near = [(i, c, [v + float(draw.normal(0, 4)) for v in b]) for i, c, b in objects if draw.random() < 0.8]
    near = [(i, c, [x, y, max(w, 2.0), max(h, 2.0)]) for i, c, (x, y, w, h) in near]
    far = [(int(draw.integers(1, 7)), int(draw.choice([2, 4, 9])), box(draw)) for _ in range(40)]
    results = found(*((*each, float(draw.random())) for each in [*near, *far]))
    ours, theirs = average_precision(wanted, results, "bbox"), in_loops(wanted, results)
    named = {"map": ours.ap, "map50": ours.ap50, "map75": ours.ap75} | ours.metrics()
    assert named == pytest.approx(theirs, abs=1e-9, nan_ok=True)
    assert 0.05 < ours.ap < 0.95, "a scene that says something"


def box(draw: np.random.Generator) -> list[float]:
    width, height = draw.uniform(10, 110, 2)
    return [float(draw.uniform(0, 200 - width)), float(draw.uniform(0, 200 - height)), float(width), float(height)]


def iou(a: list[float], b: list[float]) -> float:
    sides = [max(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]), 0.0) for i in (0, 1)]
    both = sides[0] * sides[1]
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def in_loops(truth: Row, results: list[Row]) -> dict[str, float]:
    """Written from the description of the metric: every class, size, threshold and image by itself."""
    values = {
        (category["id"], size, step): class_precision(truth, results, category["id"], RANGES[size], 0.5 + 0.05 * step)
        for category in truth["categories"]
        for size in RANGES
        for step in range(10)
    }
    kinds = {each["id"]: each["frequency"] for each in truth["categories"]}

    def mean(size: str = "all", step: int | None = None, kind: str | None = None) -> float:
        taken = [
            value
            for (category, each, at), value in values.items()
            if each == size and step in (None, at) and kind in (None, kinds[category]) and value is not None
        ]
        return sum(taken) / len(taken) if taken else math.nan

    sizes = {f"map_{size}": mean(size) for size in RANGES if size != "all"}
    rarities = {f"map_{name}": mean(kind=name[0]) for name in ("rare", "common", "frequent")}
    return {"map": mean(), "map50": mean(step=0), "map75": mean(step=5)} | sizes | rarities


def class_precision(
    truth: Row, results: list[Row], category: int, sizes: tuple[float, float], least: float
) -> float | None:
    """Mean precision at 101 recalls, or None without objects."""
    hits: list[tuple[float, bool]] = []
    total = 0
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
        if not own and category not in image["neg_category_ids"]:
            continue
        counts = [sizes[0] <= a["area"] <= sizes[1] for a in own]
        total += sum(counts)
        taken: set[int] = set()
        rows = [r for r in results if (r["image_id"], r["category_id"]) == (image["id"], category)]
        for row in sorted(rows, key=lambda r: -r["score"]):
            free = [(counts[at], iou(row["bbox"], a["bbox"]), at) for at, a in enumerate(own) if at not in taken]
            fits = [each for each in free if each[1] >= least]
            if fits:
                # One that counts goes before one of another size.
                is_counted, _, at = max(fits)
                taken.add(at)
                if is_counted:
                    hits.append((row["score"], True))
                continue
            is_known = category not in image["not_exhaustive_category_ids"]
            if is_known and sizes[0] <= row["bbox"][2] * row["bbox"][3] <= sizes[1]:
                hits.append((row["score"], False))
    if not total:
        return None
    hits.sort(key=lambda each: -each[0])
    right = np.cumsum([hit for _, hit in hits])
    points = [(right[at] / total, right[at] / (at + 1)) for at in range(len(hits))]
    # These floating-point recalls, 0.3 of which lies a hair above 3 of 10, belong to the metric.
    recalls = np.linspace(0, 1, 101)
    return sum(max([p for r, p in points if r >= wanted], default=0.0) for wanted in recalls) / 101


def test_from_the_file_to_the_truth(tmp_path: Any) -> None:
    """As LVIS v1 writes it: no file names, no crowds, and what was looked for."""
    images = [
        {"id": 3, "coco_url": "http://images.cocodataset.org/images/a.jpg", "width": 40, "height": 30}
        | {"neg_category_ids": [2], "not_exhaustive_category_ids": [7]},
        {"id": 1, "coco_url": "http://images.cocodataset.org/images/b.jpg", "width": 20, "height": 10}
        | {"neg_category_ids": [], "not_exhaustive_category_ids": []},
    ]
    categories = [{"id": 7, "name": "dog", "frequency": "c"}, {"id": 2, "name": "cat", "frequency": "r"}]
    path = write_coco(tmp_path, annotation(iscrowd=None), images=images, categories=categories)
    read = read_coco(path, tmp_path)
    read.check()
    assert [each.path.name for each in read.pictures] == ["a.jpg", "b.jpg"]
    assert read.frequencies == ("r", "c")
    assert read.image_counts() == [0, 1]
    wanted = coco_truth(CocoPictures(read))
    assert [each["neg_category_ids"] for each in wanted["images"]] == [[2], []]
    assert [each["not_exhaustive_category_ids"] for each in wanted["images"]] == [[7], []]
    assert [each["frequency"] for each in wanted["categories"]] == ["r", "c"]
    result = average_precision(wanted, [{**annotation(), "score": 0.5}], "bbox")
    assert isinstance(result, AveragePrecision)
    assert result.metrics()["map_common"] == pytest.approx(1.0)


def test_pictures_in_the_last_folder_of_their_names(tmp_path: Any) -> None:
    """As Objects365 lists and lays them; a whole name goes first."""
    images = [{"id": 3, "file_name": "images/v1/images/a.jpg", "width": 40, "height": 30}]
    path = write_coco(tmp_path, annotation(), images=images)
    read = read_coco(path, tmp_path)
    read.check()
    assert "images taken from the last folder of their name: 1" in read.summary()
    assert read.pictures[0].path == tmp_path / "images/a.jpg"
    other = tmp_path / "images/v1/images/a.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(read.pictures[0].path.read_bytes())
    assert read_coco(path, tmp_path).pictures[0].path == other


def test_what_was_looked_for_must_be_a_list(tmp_path: Any) -> None:
    images = [{"id": 3, "file_name": "a.jpg", "width": 40, "height": 30, "neg_category_ids": "cat"}]
    read = read_coco(write_coco(tmp_path, annotation(), images=images), tmp_path / "images")
    with pytest.raises(ValueError, match="neg_category_ids must be a list of category ids, got 'cat'"):
        read.check()
