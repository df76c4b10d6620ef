"""Segmenters: the backbone under UPerNet, SegFormer's head or Mask2Former, with the arithmetic of the released ones."""

from internimage.model.segmentation.config import HeadName, SegmenterConfig
from internimage.model.segmentation.segmenter import InternImageSegmenter

__all__ = ["HeadName", "InternImageSegmenter", "SegmenterConfig"]
