"""Training with Lightning: one task per file, their data, and what a run leaves behind."""

from internimage.tasks.base import BaseTask, OptimizerSettings
from internimage.tasks.classification import ClassificationTask
from internimage.tasks.datamodules import ClassificationData

__all__ = ["BaseTask", "ClassificationData", "ClassificationTask", "OptimizerSettings"]
