"""The file of an evaluation: pictures as they were, or nearly, and nothing but numbers in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.structures import Detections, LabelMap
from internimage.visualization.evaluation import (
    ClassificationEvaluation,
    DetectionEvaluation,
    FoundObjects,
    Guesses,
    read_evaluation,
    write_evaluation,
)
from internimage.visualization.evaluation.store import Shelf, write_shelf

LABELS = LabelMap(("cat", "dog"))


def evaluated(*images: Image.Image) -> ClassificationEvaluation:
    count = len(images)
    shares, truth = np.full((count, 2), 0.5, np.float32), np.zeros(count, np.int64)
    return ClassificationEvaluation("test", LABELS, np.array([[2, 1], [0, 4]]), Guesses(list(images), shares, truth))


def test_small_pictures_are_exact_and_large_ones_nearly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (64, 48, 3), np.uint8))
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
    large = coarse.resize((800, 600), Image.Resampling.BICUBIC)
    write_evaluation(tmp_path, evaluated(small, large, small.convert("L"), small.convert("P")))
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.npz"]
    assert (tmp_path / "evaluation.npz").stat().st_size < large.width * large.height
    found = read_evaluation(tmp_path)
    assert isinstance(found, ClassificationEvaluation)
    images = found.examples.images
    assert [image.mode for image in images] == ["RGB", "RGB", "L", "RGB"]
    assert images[0].tobytes() == small.tobytes()
    assert images[2].tobytes() == small.convert("L").tobytes()
    difference = np.asarray(images[1], float) - np.asarray(large, float)
    assert 0 < np.abs(difference).mean() < 2
    assert (found.split, found.labels, found.mistakes) == ("test", LABELS, None)
    assert found.confusion.tolist() == [[2, 1], [0, 4]]
    write_evaluation(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_objects_keep_boxes_and_masks(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (3, 13, 21)).astype(bool)
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = Detections(boxes, np.array([0.9, 0.8, 0.5]), np.array([1, 0, 1]), LABELS, (13, 21), masks)
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), LABELS, (13, 21))
    examples = FoundObjects([Image.new("RGB", (21, 13))], [found], [nothing], ["0 of 0 found"])
    curves = {"box": np.linspace(0, 1, 40).reshape(10, 2, 2)}
    write_evaluation(tmp_path, DetectionEvaluation("validation", LABELS, 7, 0.5, examples, None, curves))
    again = read_evaluation(tmp_path)
    assert isinstance(again, DetectionEvaluation)
    (objects,), (truth,) = again.examples.found, again.examples.truths
    assert objects.masks is not None
    assert (objects.masks == masks).all()
    assert (objects.boxes == boxes).all()
    assert (objects.labels.tolist(), objects.classes, objects.size) == ([1, 0, 1], LABELS, (13, 21))
    assert (len(truth), truth.masks) == (0, None)
    assert (again.total, again.worst, list(again.examples.captions)) == (7, None, ["0 of 0 found"])
    assert (again.curves["box"] == curves["box"]).all()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.npz"
    with pytest.raises(ValueError, match=r"evaluation.npz is missing; internimage validate --run"):
        read_evaluation(tmp_path)
    write_shelf(path, Shelf({"task": "poetry"}))
    with pytest.raises(ValueError, match=r"evaluation.npz is damaged \('poetry'\)"):
        read_evaluation(tmp_path)
    np.savez(path, header=np.frombuffer(b'{"format": 2}', np.uint8))
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        read_evaluation(tmp_path)
    # Nothing in a file is run.
    np.savez(path, header=np.array([{"format": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"is damaged \(Object arrays cannot be loaded"):
        read_evaluation(tmp_path)
