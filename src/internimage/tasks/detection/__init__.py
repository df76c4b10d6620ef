"""Training detectors: the task, its data, COCO's average precision, and the page of a run."""

from internimage.tasks.detection.data import DetectionData
from internimage.tasks.detection.task import DetectionTask

__all__ = ["DetectionData", "DetectionTask"]
