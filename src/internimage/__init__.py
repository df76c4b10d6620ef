"""InternImage (CVPR 2023) and its operator DCNv3."""

__version__ = "0.1.0"
