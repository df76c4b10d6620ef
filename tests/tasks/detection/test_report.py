"""The page of a detection run, and the counts under its pictures."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internimage.structures import Detections, LabelMap
from internimage.tasks.detection.report import DetectionReport, compare

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
NAMES = LabelMap(("cat", "dog"))


def objects(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    labels, scores, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores), np.array(labels), NAMES, (100, 100))


HERE, THERE, NEAR_HERE = (0.0, 0.0, 20.0, 20.0), (50.0, 50.0, 90.0, 90.0), (0.0, 0.0, 20.0, 16.0)


@pytest.mark.parametrize(
    ("found", "truth", "counts"),
    [
        ([(0, 0.9, HERE)], [(0, 1.0, HERE)], (1, 0, 0)),
        ([(1, 0.9, HERE)], [(0, 1.0, HERE)], (0, 1, 1)),
        ([(0, 0.6, HERE), (0, 0.9, NEAR_HERE)], [(0, 1.0, HERE)], (1, 1, 0)),
        ([], [(0, 1.0, HERE), (1, 1.0, THERE)], (0, 0, 2)),
        ([(0, 0.9, THERE)], [], (0, 1, 0)),
        ([(0, 0.9, (0.0, 0.0, 20.0, 9.0))], [(0, 1.0, HERE)], (0, 1, 1)),
        ([(0, 0.9, (0.0, 0.0, 20.0, 10.0))], [(0, 1.0, HERE)], (1, 0, 0)),
        ([(0, 0.5, HERE), (1, 0.9, THERE)], [(1, 1.0, THERE), (0, 1.0, HERE)], (2, 0, 0)),
    ],
)
def test_counts_by_hand(found: Any, truth: Any, counts: tuple[int, int, int]) -> None:
    """Found, false, missed: by class, at IoU 0.5, each object once."""
    assert compare(objects(*found), objects(*truth)) == counts


def test_the_page(finished: Run) -> None:
    folder = finished.folder
    finished.trainer.state.fn = SimpleNamespace()
    path = DetectionReport(folder)(finished.trainer, finished.task, finished.history)
    page = path.read_text(encoding="utf-8")
    for text in ("object detection with masks", "Validation box AP50", "Validation mask AP", "Average precision"):
        assert text in page
    for title in ("Training", "Predictions", "Worst cases", "Precision and recall"):
        assert re.search(rf">\s*{title}\s*<", page), title
    for name in finished.datamodule.labels:
        assert name in page
    for picture in ("curves", "predictions", "worst", "precision_recall"):
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) > 200
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results == finished.task.results()
    assert all({"image_id", "category_id", "bbox", "score", "segmentation"} == set(row) for row in results)
