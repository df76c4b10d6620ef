"""What turns feature maps into class scores."""

from internimage.model.heads.clip import ClipHead
from internimage.model.heads.conv import ConvHead

__all__ = ["ClipHead", "ConvHead"]
