"""Multi-scale deformable attention, the sampling and the sum: Eq. (3), arXiv:2010.04159."""

from internimage.ops.attention.op import deformable_attention
from internimage.ops.attention.reference import deformable_attention_reference

__all__ = ["deformable_attention", "deformable_attention_reference"]
