"""Other formats of detection sets, as COCO's: Pascal VOC's XML and YOLO's text files."""

from internimage.data.detection.formats.conversion import (
    Format,
    convert_to_coco,
    detect_format,
    voc_to_coco,
    yolo_to_coco,
)

__all__ = ["Format", "convert_to_coco", "detect_format", "voc_to_coco", "yolo_to_coco"]
