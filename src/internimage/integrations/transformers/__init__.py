"""InternImage as transformers knows models: configuration, model, image classifier, backbone, image processor.

Importing this registers them with transformers' Auto classes, so that ``AutoModelForImageClassification``,
``pipeline`` and ``backbone_config`` find them, and the published ``OpenGVLab/internimage_*`` repositories load without
``trust_remote_code``.
"""

from __future__ import annotations

import warnings

try:
    from internimage.integrations.transformers.config import InternImageConfig
    from internimage.integrations.transformers.models import (
        InternImageBackbone,
        InternImageForImageClassification,
        InternImageModel,
        InternImagePreTrainedModel,
    )
    from internimage.integrations.transformers.processing import image_processor
    from internimage.integrations.transformers.registration import register
except ImportError as error:
    raise ImportError(
        "internimage.integrations.transformers needs transformers 5.6 or newer "
        f"(pip install internimage-torch[transformers]): {error}"
    ) from error

__all__ = [
    "InternImageBackbone",
    "InternImageConfig",
    "InternImageForImageClassification",
    "InternImageModel",
    "InternImagePreTrainedModel",
    "image_processor",
    "register",
]

try:
    register()
except ValueError as error:
    # The classes work by their own names, whoever the Auto classes belong to.
    warnings.warn(str(error), stacklevel=2)
