"""Weights to train from.

Source: ``init_weights`` of ``DeformableDetrTransformer``, ``DeformableDETRHead`` and ``MultiScaleDeformableAttention``
(mmdet 2.28, mmcv 1.7, and the released code, 31c962d).
"""

# transformers is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from internimage.model.detection.dino.transformer import DinoTransformer

# How probable every class is at first.
_PRIOR = 0.01
_HEADS = ("class_heads.", "box_heads.")
# There they are one matrix, whose three times as many rows halve Xavier's variance.
_JOINT, _JOINT_GAIN = (".q_proj", ".k_proj", ".v_proj"), 0.5**0.5


@torch.no_grad()
def start(transformer: DinoTransformer) -> None:
    """Matrices by Xavier; every head of an attention looks into a direction of its own; boxes stay where they are.

    The heads' other layers, and biases outside of attention, stay as PyTorch made them.
    """
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith(_HEADS):
            nn.init.xavier_uniform_(module.weight, _JOINT_GAIN if name.endswith(_JOINT) else 1.0)
            if "_attn." in name:
                nn.init.zeros_(module.bias)
    for module in transformer.modules():
        if hasattr(module, "sampling_offsets"):
            _start_attention(module)
    nn.init.normal_(transformer.level_codes)
    nn.init.normal_(transformer.queries.weight)
    for head in transformer.class_heads:
        nn.init.constant_(head.bias, math.log(_PRIOR / (1 - _PRIOR)))  # pyright: ignore[reportArgumentType]
    for head in transformer.box_heads:
        last: Any = head.layers[-1]  # pyright: ignore[reportIndexIssue]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


def _start_attention(attention: Any) -> None:
    """Head h looks at angle 2 pi h / heads, point p at p + 1 times that far; all points count the same."""
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    angles = torch.arange(heads) * (2 * math.pi / heads)
    direction_H2 = torch.stack((angles.cos(), angles.sin()), -1)
    direction_H2 = direction_H2 / direction_H2.abs().amax(-1, keepdim=True)
    reach_P = torch.arange(1, points + 1.0)
    grid_HLP2 = (direction_H2[:, None, None] * reach_P[:, None]).expand(heads, levels, points, 2)
    nn.init.zeros_(attention.sampling_offsets.weight)
    attention.sampling_offsets.bias.copy_(grid_HLP2.flatten())
    nn.init.zeros_(attention.attention_weights.weight)
