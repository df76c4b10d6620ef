"""Image classification: the task, its data and its page."""

from internimage.tasks.classification.data import ClassificationData
from internimage.tasks.classification.task import ClassificationTask

__all__ = ["ClassificationData", "ClassificationTask"]
