"""Deformable DETR, RT-DETRv2 and D-FINE: transformers' encoders and decoders on our backbone."""

from internimage.model.detection.detr.network import DetrConfig, Family, InternImageDetr

__all__ = ["DetrConfig", "Family", "InternImageDetr"]
