"""Samples: reading pictures, preparing them for a network, and datasets of them.

Augmentation needs timm and torchvision, so it is imported by name, from ``internimage.data.augment``.
"""

from internimage.data.class_folders import labels_in
from internimage.data.classification import FolderDataset, SampleDataset, open_samples, open_split
from internimage.data.images import IMAGE_SUFFIXES, ImageReadError, find_images, read_image
from internimage.data.preprocess import crop_image, denormalize, to_tensor
from internimage.data.samples import SAMPLE_LABELS, SAMPLE_PREPROCESS, export_samples, load_sample_arrays, sample_photo

__all__ = [
    "IMAGE_SUFFIXES",
    "SAMPLE_LABELS",
    "SAMPLE_PREPROCESS",
    "FolderDataset",
    "ImageReadError",
    "SampleDataset",
    "crop_image",
    "denormalize",
    "export_samples",
    "find_images",
    "labels_in",
    "load_sample_arrays",
    "open_samples",
    "open_split",
    "read_image",
    "sample_photo",
    "to_tensor",
]
