"""Our multi-scale deformable attention in the place of transformers' own, which is plain PyTorch.

Shape legend: N images, S tokens of all levels, G heads, D channels of a head, Q queries, L levels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from internimage.ops.attention import deformable_attention

_PLAIN = "MultiScaleDeformableAttention"


class FastAttention(nn.Module):
    """Samples and sums; without weights, as the part of transformers' that it replaces."""

    def forward(
        self,
        value_NSGD: Tensor,
        _shapes: Tensor,
        shapes: Sequence[tuple[int, int]],
        _starts: Tensor | None,
        points_NQGLP2: Tensor,
        weights_NQGLP: Tensor,
        _chunk: int,
    ) -> Tensor:
        """(N, Q, G * D)."""
        return deformable_attention(value_NSGD, shapes, points_NQGLP2, weights_NQGLP).flatten(2)


def use_fast_attention(network: nn.Module) -> None:
    """Replace the plain part of every attention in a network of transformers' layers."""
    for module in network.modules():
        plain: Any = getattr(module, "attn", None)
        if type(plain).__name__ == _PLAIN:
            module.attn = FastAttention()
