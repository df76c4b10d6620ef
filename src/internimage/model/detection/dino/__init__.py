"""DINO: Deformable DETR with mixed query selection, contrastive denoising and boxes that look forward twice."""

from internimage.model.detection.dino.config import DinoConfig
from internimage.model.detection.dino.detector import InternImageDino

__all__ = ["DinoConfig", "InternImageDino"]
