"""Detectors: the backbone under torchvision's R-CNN parts, with the arithmetic of the released ones (mmdetection)."""

from internimage.model.detection.config import DetectorConfig
from internimage.model.detection.detector import InternImageDetector
from internimage.model.detection.results import Detected
from internimage.model.detection.targets import Objects

__all__ = ["Detected", "DetectorConfig", "InternImageDetector", "Objects"]
