"""The page of a detection run, and the counts under its pictures."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internimage.structures import Detections, LabelMap
from internimage.tasks.callbacks import History, Report, read_rows
from internimage.tasks.detection.report import DetectionReport, _worst, compare
from support.pictures import Listed, rectangles

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
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


class TestWorst:
    """By hand, on four pictures of two objects each."""

    first, second = (4, 4, 24, 24), (30, 8, 50, 40)

    def row(self, picture: int, box: tuple[int, int, int, int], category: int, score: float = 0.9) -> dict[str, Any]:
        x1, y1, x2, y2 = box
        return {"image_id": picture + 1, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}

    def test_the_pictures_with_the_most_mistakes_come_first(self, finished: Run) -> None:
        pictures = [rectangles((48, 64), self.first, self.second) for _ in range(5)]
        right = {0: (self.first, 1), 1: (self.second, 2)}
        rows = {picture: [self.row(picture, *each) for each in right.values()] for picture in range(5)}
        # One is missed, for 0.3 is not shown; all are missed; one is seen where there is none; one is another class.
        rows[1][0]["score"] = 0.3
        rows[2] = []
        rows[3].append(self.row(3, (0, 40, 20, 48), 1))
        rows[4][1]["category_id"] = 1
        task = copy.copy(finished.task)
        task._results = rows
        assert _worst(task, Listed(pictures), range(5)) == [2, 4, 1, 3]
        assert _worst(task, Listed(pictures), [0]) == []

    def test_no_picture_is_read_for_it(self, finished: Run) -> None:
        """With a file of 100,000 pictures that would take longer than the evaluation."""
        source = finished.datamodule.dataset("val").source
        unread = type(source)(source.coco, with_masks=True)
        unread.read = None  # pyright: ignore
        assert _worst(finished.task, unread, range(5)) == _worst(finished.task, source, range(5)) != []


def test_the_page_says_which_epoch_its_numbers_are_of(finished: Run, tmp_path: Path) -> None:
    """The weight file holds the best epoch, the pictures show the last one."""
    best = History(tmp_path / "metrics.csv")
    best.rows = [{**finished.history.rows[0], "val/map": 0.875}, *finished.history.rows[1:]]
    finished.trainer.state.fn = "fit"
    page = DetectionReport(tmp_path)(finished.trainer, finished.task, best).read_text(encoding="utf-8")
    assert re.search(r"Box AP, best epoch \(saved\)</dt><dd>87\.5%", page)


def test_after_a_test_the_page_shows_the_test(run: Run) -> None:
    """Another process: all it knows of the training is the CSV file."""
    run.epochs = 1
    run.fit()
    rows = read_rows(run.folder / "metrics.csv")
    run.build(callbacks=None)
    history = History(run.folder / "metrics.csv")
    history.read()
    run.trainer.callbacks.append(Report(DetectionReport(run.folder), history))
    (measured,) = run.trainer.test(run.task, run.datamodule, ckpt_path=str(run.best), weights_only=True, verbose=False)
    assert measured["test/map"] == pytest.approx(rows[-1]["val/map"], abs=1e-6), "there are no test pictures"
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Test box AP50" in page
    assert "Validation box" not in page
    assert (run.folder / "curves.png").is_file()
    assert read_rows(run.folder / "metrics.csv") == rows
    assert json.loads((run.folder / "results.json").read_text(encoding="utf-8")) == run.task.results()


def test_pictures_of_an_earlier_evaluation_do_not_stay(run: Run, tmp_path: Path) -> None:
    """Nothing to find: no precision, no curves, no table; but a page."""
    shutil.copytree(run.root, tmp_path / "empty")
    for split in ("train", "val"):
        path = tmp_path / f"empty/annotations/{split}.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(values | {"annotations": []}), encoding="utf-8")
    run.root, run.epochs = tmp_path / "empty", 1
    run.folder.mkdir()
    (run.folder / "precision_recall.png").touch()
    run.fit()
    assert not any(name.startswith("val/") for name in run.history.rows[0])
    assert not run.best.exists()
    assert run.weights.is_file(), "the last weights"
    page = DetectionReport(run.folder)(run.trainer, run.task, run.history).read_text(encoding="utf-8")
    assert "Average precision" not in page
    assert not (run.folder / "precision_recall.png").exists()
    assert (run.folder / "predictions.png").is_file()


def test_nothing_was_measured(run: Run) -> None:
    run.fit(max_epochs=1, limit_val_batches=0)
    page = DetectionReport(run.folder)(run.trainer, run.task, run.history).read_text(encoding="utf-8")
    assert "Validation pictures</dt><dd>0<" in page
    assert json.loads((run.folder / "results.json").read_text(encoding="utf-8")) == []
    assert [path.name for path in run.folder.glob("*.png")] == ["curves.png"]
