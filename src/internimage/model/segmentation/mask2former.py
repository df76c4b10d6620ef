"""Mask2Former: transformers' pixel decoder and transformer, started and asked for scores.

Shape legend: N images, C classes, Q queries, H W of the images, h w of the maps at stride 4.
"""

# transformers is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from internimage.model.segmentation.config import SegmenterConfig
from internimage.model.segmentation.layers import full_precision, is_mixed
from internimage.model.segmentation.mask_losses import NEEDS, WEIGHTS, Answers, mask_losses


class Mask2FormerHead(nn.Module):
    """Four maps, finest first, to scores (N, C, h, w) at the size of the first, in [0, Q].

    With the released weights it gives the released scores. Under autocast the pixel decoder stays in 32 bits, as in
    Mask2Former's own code: 16 are too few for positions to sample at.

    Source: ``Mask2FormerHead`` of the released code, 31c962d, segmentation/mmseg_custom.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        try:
            from transformers.models.mask2former import modeling_mask2former
        except ImportError as error:
            raise ImportError(NEEDS.format("transformers")) from error
        parts = cast(Any, modeling_mask2former)
        self.settings = _settings(config)
        self.pixel_decoder: Any = parts.Mask2FormerPixelDecoder(self.settings, list(config.backbone.stage_channels))
        self.transformer_module: Any = parts.Mask2FormerTransformerModule(config.channels, self.settings)
        self.class_predictor = nn.Linear(config.channels, config.num_classes + 1)
        _start(self.pixel_decoder, self.transformer_module)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """See the class."""
        answers = self.answers(maps, last=True)
        # 16 bits are too few to tell near scores apart.
        with full_precision(maps[0].device):
            classes_NQC = answers.classes[-1].float().softmax(-1)[..., :-1]
            return torch.einsum("nqc,nqhw->nchw", classes_NQC, answers.masks[-1].float().sigmoid())

    def answers(self, maps: Sequence[Tensor], *, last: bool = False) -> Answers:
        """What the queries say, layer after layer; or the last word alone."""
        mixed = is_mixed(maps[0].device)
        with full_precision(maps[0].device):
            pixels = self.pixel_decoder([each.float() if mixed else each for each in maps])
        whole = self.transformer_module(
            multi_scale_features=pixels.multi_scale_features, mask_features=pixels.mask_features
        )
        start = -1 if last else 0
        hidden_QNC = whole.intermediate_hidden_states[start:]
        classes = [self.class_predictor(each.transpose(0, 1)) for each in hidden_QNC]
        return Answers(classes, list(whole.masks_queries_logits[start:]))

    def losses(self, maps: Sequence[Tensor], labels_NHW: Tensor) -> dict[str, Tensor]:
        """See `mask_losses`."""
        return mask_losses(self.settings, self.answers(maps), labels_NHW)


def _settings(config: SegmenterConfig) -> Any:
    import transformers

    library: Any = transformers
    return library.Mask2FormerConfig(
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        encoder_feedforward_dim=config.encoder_feedforward,
        dim_feedforward=config.decoder_feedforward,
        encoder_layers=config.encoder_layers,
        # transformers counts the answers, one of which comes before the first layer.
        decoder_layers=config.decoder_layers + 1,
        num_attention_heads=config.heads,
        num_queries=config.queries,
        num_labels=config.num_classes,
        # Above 0 it would also drop whole layers.
        dropout=0.0,
        class_weight=WEIGHTS["class"],
        mask_weight=WEIGHTS["mask"],
        dice_weight=WEIGHTS["dice"],
        no_object_weight=0.1,
        train_num_points=config.points,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
    )


@torch.no_grad()
def _start(pixel_decoder: Any, transformer: Any) -> None:
    """Weights to train from, as released; transformers' parts alone have PyTorch's.

    Source: ``init_weights`` of the released head and pixel decoder, and of mmcv's deformable attention.
    """
    for layer in (*pixel_decoder.encoder.layers, *transformer.decoder.layers):
        for name, module in layer.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_normal_(module.in_proj_weight)
            elif name.endswith(("q_proj", "k_proj", "v_proj")):
                # Three rows of blocks of one matrix in the released code.
                nn.init.xavier_normal_(module.weight, gain=math.sqrt(0.5))
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if name.startswith("self_attn"):
                    nn.init.zeros_(module.bias)
    for layer in pixel_decoder.encoder.layers:
        _start_sampling(layer.self_attn)
    for conv in (each[0] for each in pixel_decoder.input_projections):
        nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(conv.bias)
    for conv in (pixel_decoder.adapter_1[0], pixel_decoder.layer_1[0], pixel_decoder.mask_projection):
        nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(pixel_decoder.mask_projection.bias)
    # transformers leaves it as memory was, and on the CPU.
    shape = pixel_decoder.level_embed.shape
    pixel_decoder.level_embed = nn.Parameter(torch.randn(shape, device=pixel_decoder.mask_projection.bias.device))


def _start_sampling(attention: Any) -> None:
    """Every head looks in a direction of its own, one point after the other, all with the same weight."""
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions_xy = torch.stack((angles.cos(), angles.sin()), -1)
    directions_xy /= directions_xy.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1)
    grid = directions_xy[:, None, None] * steps[None, None, :, None]
    nn.init.zeros_(attention.sampling_offsets.weight)
    attention.sampling_offsets.bias.copy_(grid.expand(heads, levels, points, 2).flatten())
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
    for layer in (attention.value_proj, attention.output_proj):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
