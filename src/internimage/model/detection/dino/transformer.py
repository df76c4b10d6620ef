"""Encoder, query selection and decoder: transformers' Deformable DETR layers, and what DINO does between them.

Shape legend: N images, L levels, S tokens of all levels, Q queries, C channels, K classes.
"""

# transformers is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from internimage.model.detection.detr.attention import use_fast_attention
from internimage.model.detection.dino.config import DinoConfig
from internimage.model.detection.dino.positions import (
    Layout,
    box_codes,
    inverse_sigmoid,
    proposals,
    reference_points,
)
from internimage.model.detection.queries import NEEDS


@dataclass(frozen=True)
class Queries:
    """What the decoder starts from beside its own queries: noisy copies of the truth.

    Args:
        content: (N, Q, C), what each asks for.
        logits: (N, Q, 4), boxes (center x, center y, width, height) before the sigmoid.
        visible: which of all queries (these first) may see which.
    """

    content: Tensor
    logits: Tensor
    visible: Tensor


@dataclass(frozen=True)
class Answers:
    """What is said of every query, noisy copies of the truth first.

    Args:
        logits: (decoder layers, N, Q, K), of each class.
        boxes: (decoder layers, N, Q, 4), center x and y, width, height, in [0, 1] of the picture.
        proposed_logits: (N, queries, K), of the chosen tokens.
        proposed_boxes: (N, queries, 4), around them.
        references: (decoder layers + 1, N, Q, 4), the boxes before the first layer and after each.
        memory: (N, S, C), the encoder's tokens.
    """

    logits: Tensor
    boxes: Tensor
    proposed_logits: Tensor
    proposed_boxes: Tensor
    references: Tensor
    memory: Tensor


class DinoTransformer(nn.Module):
    """Maps to classes and boxes.

    Source: ``DinoTransformer``, ``DinoTransformerDecoder`` and ``DINOHead`` of the released code, 31c962d,
    detection/mmdet_custom/models; DINO, arXiv:2203.03605, sections 3.4 (mixed query selection) and 3.5 (look forward
    twice).

    Raises:
        ImportError: transformers is missing.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        parts, settings = _library(config)
        channels, classes = config.channels, config.num_classes
        self.checkpointing = False
        self.level_codes = nn.Parameter(torch.empty(config.levels, channels))
        self.encoder = nn.ModuleList(parts.DeformableDetrEncoderLayer(settings) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(parts.DeformableDetrDecoderLayer(settings) for _ in range(config.decoder_layers))
        self.proposing = nn.Linear(channels, channels)
        self.proposing_norm = nn.LayerNorm(channels)
        self.queries = nn.Embedding(config.queries, channels)
        self.box_position = parts.DeformableDetrMLPPredictionHead(2 * channels, channels, channels, 2)
        self.norm = nn.LayerNorm(channels)
        # The last ones judge tokens.
        heads = config.decoder_layers + 1
        self.class_heads = nn.ModuleList(nn.Linear(channels, classes) for _ in range(heads))
        self.box_heads = nn.ModuleList(
            parts.DeformableDetrMLPPredictionHead(channels, channels, 4, 3) for _ in range(heads)
        )
        use_fast_attention(self)

    def forward(self, maps_NCHW: Sequence[Tensor], layout: Layout, copies: Queries | None = None) -> Answers:
        """Answers to all queries, for maps of ``config.channels``."""
        shapes = torch.tensor(layout.shapes, device=maps_NCHW[0].device)
        shared: dict[str, Any] = {"spatial_shapes": shapes, "spatial_shapes_list": layout.shapes}
        memory_NSC = self._encode(maps_NCHW, layout, shared)
        logits_NQK, boxes_NQ4 = self._propose(memory_NSC, layout)
        content_NQC = self.queries.weight.expand(len(memory_NSC), -1, -1)
        start_NQ4, visible = boxes_NQ4.detach(), None
        if copies is not None:
            content_NQC = torch.cat((copies.content, content_NQC), 1)
            start_NQ4, visible = torch.cat((copies.logits, start_NQ4), 1), copies.visible
        shared |= {"encoder_hidden_states": memory_NSC, "encoder_attention_mask": layout.valid}
        shared |= {"attention_mask": None if visible is None else visible[None, None]}
        logits, boxes, references = self._decode(content_NQC, start_NQ4.sigmoid(), layout, shared)
        return Answers(logits, boxes, logits_NQK, boxes_NQ4.sigmoid(), references, memory_NSC)

    def _encode(self, maps_NCHW: Sequence[Tensor], layout: Layout, shared: dict[str, Any]) -> Tensor:
        tokens_NSC = torch.cat([each.flatten(2).transpose(1, 2) for each in maps_NCHW], 1)
        levels = [
            code.expand(each.shape[-2] * each.shape[-1], -1)
            for code, each in zip(self.level_codes, maps_NCHW, strict=True)
        ]
        codes_NSC = (layout.codes + torch.cat(levels)).to(self.level_codes.dtype)
        points_NSL2 = reference_points(layout)
        for layer in self.encoder:
            tokens_NSC = self._run(
                layer,
                tokens_NSC,
                attention_mask=layout.valid,
                spatial_position_embeddings=codes_NSC,
                reference_points=points_NSL2,
                **shared,
            )
        return tokens_NSC

    def _propose(self, memory_NSC: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Class logits and boxes, before the sigmoid, of the tokens that most look like an object."""
        first_NS4 = proposals(layout)
        is_none = first_NS4[..., :1].isinf()
        tokens_NSC = self.proposing_norm(self.proposing(memory_NSC.masked_fill(is_none, 0.0)))
        logits_NSK = self.class_heads[-1](tokens_NSC)
        rows = logits_NSK.amax(-1).topk(self.queries.num_embeddings, 1).indices
        chosen_NQC, first_NQ4 = _take(tokens_NSC, rows), _take(first_NS4, rows)
        return _take(logits_NSK, rows), self.box_heads[-1](chosen_NQC).float() + first_NQ4

    def _decode(
        self, content_NQC: Tensor, boxes_NQ4: Tensor, layout: Layout, shared: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits and boxes after each layer, and the boxes between layers."""
        ratios_NL4 = layout.ratios.repeat(1, 1, 2)
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        references, start = [boxes_NQ4], boxes_NQ4
        heads = self.class_heads[:-1], self.box_heads[:-1]
        for layer, class_head, box_head in zip(self.decoder, *heads, strict=True):
            places_NQL4 = start[:, :, None] * ratios_NL4[:, None]
            codes_NQC = box_codes(places_NQL4[:, :, 0], content_NQC.shape[-1]).to(self.level_codes.dtype)
            content_NQC = self._run(
                layer,
                content_NQC,
                object_queries_position_embeddings=self.box_position(codes_NQC),
                reference_points=places_NQL4,
                **shared,
            )
            # The answer moves the last reference as it was learned: its error reaches the layer before, too.
            normed_NQC = self.norm(content_NQC)
            logits.append(class_head(normed_NQC))
            boxes.append((box_head(normed_NQC).float() + inverse_sigmoid(references[-1])).sigmoid())
            references.append((box_head(content_NQC).float() + inverse_sigmoid(start)).sigmoid())
            start = references[-1].detach()
        return torch.stack(logits), torch.stack(boxes), torch.stack(references)

    def _run(self, layer: nn.Module, tokens: Tensor, **arguments: Any) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            run = cast("Callable[..., Any]", checkpoint)
            return run(layer, tokens, use_reentrant=False, **arguments)
        return layer(tokens, **arguments)


def _take(tokens: Tensor, rows_NQ: Tensor) -> Tensor:
    """(N, S, ...) to (N, Q, ...)."""
    return tokens.gather(1, rows_NQ[..., None].expand(-1, -1, tokens.shape[-1]))


def _library(config: DinoConfig) -> tuple[Any, Any]:
    """transformers' layers, and the settings that they ask for."""
    try:
        from transformers import DeformableDetrConfig
        from transformers.models.deformable_detr import modeling_deformable_detr as parts
    except ImportError as error:
        raise ImportError(NEEDS.format("transformers")) from error
    settings: Any = DeformableDetrConfig(
        d_model=config.channels,
        num_feature_levels=config.levels,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_n_points=config.points,
        decoder_n_points=config.points,
        encoder_ffn_dim=config.hidden_channels,
        decoder_ffn_dim=config.hidden_channels,
        dropout=config.dropout,
        attention_dropout=config.dropout,
        activation_dropout=config.dropout,
        activation_function="relu",
    )
    settings._attn_implementation = "sdpa"
    return parts, settings
