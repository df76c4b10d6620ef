"""Training segmenters: the task, its data, measures from one confusion matrix, and the page of a run."""

from internimage.tasks.segmentation.data import SegmentationData
from internimage.tasks.segmentation.task import SegmentationTask

__all__ = ["SegmentationData", "SegmentationTask"]
