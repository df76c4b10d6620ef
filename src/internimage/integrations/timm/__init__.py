"""InternImage as timm models: importing this is enough for ``timm.create_model("internimage_t")``."""

from __future__ import annotations

try:
    import timm  # noqa: F401
except ImportError as error:
    raise ImportError("internimage.integrations.timm needs timm: pip install internimage-torch[timm]") from error

from internimage.integrations.timm.internimage import register
from internimage.integrations.timm.network import TimmInternImage

__all__ = ["TimmInternImage", "register"]

register()
