"""Evaluations as values: what a run's figures show, drawn now or read again from the run's folder."""

from __future__ import annotations

from pathlib import Path

from internimage.visualization.evaluation.classification import ClassificationEvaluation, Guesses
from internimage.visualization.evaluation.detection import DetectionEvaluation, FoundObjects
from internimage.visualization.evaluation.segmentation import FoundRegions, SegmentationEvaluation
from internimage.visualization.evaluation.store import EVALUATION_FILE, damaged, read_shelf, write_shelf

__all__ = [
    "EVALUATION_FILE",
    "ClassificationEvaluation",
    "DetectionEvaluation",
    "Evaluation",
    "FoundObjects",
    "FoundRegions",
    "Guesses",
    "SegmentationEvaluation",
    "read_evaluation",
    "write_evaluation",
]

Evaluation = ClassificationEvaluation | DetectionEvaluation | SegmentationEvaluation
_OF_TASK = {each.task: each for each in (ClassificationEvaluation, DetectionEvaluation, SegmentationEvaluation)}


def write_evaluation(run: Path, evaluation: Evaluation | None) -> None:
    """Leave ``evaluation.npz`` in the run's folder, whole or not at all; None removes that of an earlier one."""
    if evaluation is None:
        (run / EVALUATION_FILE).unlink(missing_ok=True)
        return
    shelf = evaluation.shelve()
    shelf.header["task"] = evaluation.task
    write_shelf(run / EVALUATION_FILE, shelf)


def read_evaluation(run: Path) -> Evaluation:
    """The last evaluation of a run, from its folder alone.

    Raises:
        ValueError: the folder holds none, or its file is damaged.
    """
    path = run / EVALUATION_FILE
    shelf = read_shelf(path)
    try:
        return _OF_TASK[shelf.header["task"]].unshelve(shelf)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise damaged(path, error) from None
