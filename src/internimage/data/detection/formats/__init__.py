"""Other formats of detection sets, as COCO's: those of Pascal VOC, YOLO, CrowdHuman and OpenImages."""

from internimage.data.detection.formats.conversion import (
    KNOWN,
    Converted,
    Format,
    Other,
    convert_split,
    convert_to_coco,
    detect_format,
    find_format,
    splits_of,
    voc_to_coco,
    yolo_to_coco,
)
from internimage.data.detection.formats.labelled import MisreadError

__all__ = [
    "KNOWN",
    "Converted",
    "Format",
    "MisreadError",
    "Other",
    "convert_split",
    "convert_to_coco",
    "detect_format",
    "find_format",
    "splits_of",
    "voc_to_coco",
    "yolo_to_coco",
]
