"""InternImage (CVPR 2023) and its operator DCNv3.

The public names below are loaded when they are first used; importing the package costs torch and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internimage.inference import Classifier
    from internimage.inference.detection import Detector
    from internimage.inference.inspection import Inspector
    from internimage.inference.segmentation import Segmenter
    from internimage.model import (
        DCNv3,
        DCNv4,
        InternImage,
        InternImageClassifier,
        InternImageConfig,
        create_model,
        list_models,
        load_checkpoint,
        save_checkpoint,
    )
    from internimage.ops.dcnv3 import dcnv3, explain_dcnv3
    from internimage.structures import (
        Classification,
        Detections,
        Framing,
        LabelMap,
        Merging,
        Preprocess,
        SegmentationMap,
        Viewing,
    )

__version__ = "0.1.0"

_HOME = {
    "Classification": "internimage.structures",
    "Classifier": "internimage.inference",
    "DCNv3": "internimage.model",
    "DCNv4": "internimage.model",
    "Detections": "internimage.structures",
    "Detector": "internimage.inference.detection",
    "Framing": "internimage.structures",
    "Inspector": "internimage.inference.inspection",
    "InternImage": "internimage.model",
    "InternImageClassifier": "internimage.model",
    "InternImageConfig": "internimage.model",
    "LabelMap": "internimage.structures",
    "Merging": "internimage.structures",
    "Preprocess": "internimage.structures",
    "SegmentationMap": "internimage.structures",
    "Segmenter": "internimage.inference.segmentation",
    "Viewing": "internimage.structures",
    "create_model": "internimage.model",
    "dcnv3": "internimage.ops.dcnv3",
    "explain_dcnv3": "internimage.ops.dcnv3",
    "list_models": "internimage.model",
    "load_checkpoint": "internimage.model",
    "save_checkpoint": "internimage.model",
}
__all__ = [
    "Classification",
    "Classifier",
    "DCNv3",
    "DCNv4",
    "Detections",
    "Detector",
    "Framing",
    "Inspector",
    "InternImage",
    "InternImageClassifier",
    "InternImageConfig",
    "LabelMap",
    "Merging",
    "Preprocess",
    "SegmentationMap",
    "Segmenter",
    "Viewing",
    "create_model",
    "dcnv3",
    "explain_dcnv3",
    "list_models",
    "load_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'internimage' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
