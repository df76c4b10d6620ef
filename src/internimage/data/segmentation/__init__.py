"""Pictures with a class for every pixel: label maps, datasets of them, and how they become a segmenter's input.

Augmentation is for training only and is imported by name, from ``internimage.data.segmentation.augment``.
"""

from internimage.data.segmentation.dataset import Batch, Raw, Sample, SegmentationDataset, Source, collate, view
from internimage.data.segmentation.palettes import (
    KNOWN,
    find_palette,
    label_image,
    read_classes,
    read_palette,
    spread_palette,
)
from internimage.data.segmentation.rules import LabelRules, find_classes, find_colours
from internimage.data.segmentation.sources import CocoMaps, LabelMapPictures, SceneMaps

__all__ = [
    "KNOWN",
    "Batch",
    "CocoMaps",
    "LabelMapPictures",
    "LabelRules",
    "Raw",
    "Sample",
    "SceneMaps",
    "SegmentationDataset",
    "Source",
    "collate",
    "find_classes",
    "find_colours",
    "find_palette",
    "label_image",
    "read_classes",
    "read_palette",
    "spread_palette",
    "view",
]
