"""Training with Lightning: one folder per task, their data, and what a run leaves behind."""

from internimage.tasks.base import BaseTask, OptimizerSettings
from internimage.tasks.classification import ClassificationData, ClassificationTask

__all__ = ["BaseTask", "ClassificationData", "ClassificationTask", "OptimizerSettings"]
