"""Detectors: the backbone under torchvision's R-CNN parts or transformers' DETR parts, with the released arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from internimage.model.detection.config import DetectorConfig
from internimage.model.detection.detector import InternImageDetector
from internimage.model.detection.results import Detected
from internimage.model.detection.targets import Objects

if TYPE_CHECKING:
    from internimage.model.detection.detr import InternImageDetr
    from internimage.model.detection.dino import InternImageDino

# What a detector's task, file and user can count on: `config`, `forward` and `losses`.
Detector: TypeAlias = "InternImageDetector | InternImageDetr | InternImageDino"

__all__ = ["Detected", "Detector", "DetectorConfig", "InternImageDetector", "Objects"]
