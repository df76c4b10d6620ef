"""Names for the classes of weights that come without any."""

from __future__ import annotations

import logging

from internimage.structures import LabelMap

log = logging.getLogger(__name__)


def imagenet_labels(num_classes: int) -> LabelMap | None:
    """ImageNet-1K's class names for 1,000 classes, from timm if it is installed; None otherwise."""
    if num_classes != 1000:
        return None
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ImportError:
        log.warning("classes are shown by number; install internimage-torch[timm] for ImageNet's class names")
        return None
    info = ImageNetInfo("imagenet-1k")
    names = [str(info.index_to_description(index)).split(",")[0] for index in range(num_classes)]
    return LabelMap.telling_apart(names)


def coco_labels(num_classes: int) -> LabelMap | None:
    """COCO's class names for 80 classes, in the order of the released detectors; None otherwise."""
    if num_classes != 80:
        return None
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    # It numbers 91 categories, of which the first is the background and ten are not used.
    named: list[str] = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return LabelMap(tuple(name for name in named if name not in ("__background__", "N/A")))
