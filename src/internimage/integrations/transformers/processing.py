"""How images are prepared, as transformers' image processors put it: the published ones are CLIP's, with settings."""

from __future__ import annotations

from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.import_utils import is_torchvision_available

from internimage.data.preprocess import RESAMPLING
from internimage.model import WEIGHTS
from internimage.structures import Preprocess


def image_processor(source: str | Preprocess) -> CLIPImageProcessorPil:
    """The image processor for released weights, or for a `Preprocess`.

    It resizes with Pillow, as our own preprocessing does. Saved beside a model, ``AutoImageProcessor`` reads it with
    torchvision if that is installed; ``backend="pil"`` keeps Pillow.

    Args:
        source: a name from the weight table (``"internimage_t.in1k_224"``), or the preprocessing.

    Raises:
        ValueError: an unknown name, or preprocessing for grey images, which this processor makes RGB.

    >>> image_processor("internimage_h.in22k_in1k_640").crop_size["height"]
    640
    """
    if isinstance(source, str):
        if source not in WEIGHTS:
            raise ValueError(f"unknown weights {source!r}; choose from {', '.join(WEIGHTS)}")
        source = Preprocess(size=WEIGHTS[source].image_size)
    if source.in_chans != 3:
        raise ValueError("transformers' image processor makes every image RGB; grey images need internimage.data")
    return CLIPImageProcessorPil(
        size={"shortest_edge": int(source.size / source.crop_ratio)},
        crop_size={"height": source.size, "width": source.size},
        resample=RESAMPLING[source.interpolation],
        image_mean=list(source.mean),
        image_std=list(source.std),
    )


def processor_classes() -> dict[str, Any]:
    """The processor's class for each way of resizing that is installed."""
    classes: dict[str, Any] = {"pil": CLIPImageProcessorPil}
    if is_torchvision_available():
        from transformers import CLIPImageProcessor

        classes["torchvision"] = CLIPImageProcessor
    return classes
