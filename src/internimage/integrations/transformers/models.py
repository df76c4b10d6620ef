"""transformers' three kinds of model around our network: plain, image classifier, backbone.

They hold its backbone as ``backbone`` and its head as ``head``: their weights have our own names. Shape legend: N
batch, H W map, C channels.
"""

# transformers is typed in part only.
# pyright: reportIncompatibleVariableOverride=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.utils.generic import can_return_tuple

from internimage.integrations.transformers.config import InternImageConfig
from internimage.model import DCNv4, InternImage, InternImageClassifier
from internimage.model.backbone import Block, init_weights
from internimage.model.layers import to_nchw
from internimage.structures import LabelMap

# What a classifier's file holds beyond a backbone.
_HEAD = r"^head\."


class InternImagePreTrainedModel(PreTrainedModel):
    """What the three have in common: how weights start, and how a large model is laid out over devices."""

    config_class = InternImageConfig
    config: InternImageConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    # A residual branch, or layers that go one into another, stay on one device.
    _no_split_modules: ClassVar[list[str]] = ["Stem", "Block", "Downsample", "AttentionPool"]
    backbone: InternImage

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Our network's own start for what a file lacks; transformers guards what was loaded."""
        if isinstance(module, DCNv4) and getattr(module.offset_mask.bias, "_is_hf_initialized", False):
            # A part of it is written when it starts, past that guard.
            loaded = module.offset_mask.bias.clone()
            init_weights(module)
            module.offset_mask.bias.copy_(loaded)
        else:
            init_weights(module)
        if isinstance(module, nn.Conv2d | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm2d):
            super()._init_weights(module)
        elif isinstance(module, Block) and module.layer_scale1 is not None and module.layer_scale2 is not None:
            scale = float(self.config.layer_scale or 0)
            nn.init.constant_(module.layer_scale1, scale)
            nn.init.constant_(module.layer_scale2, scale)

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: for foreign code transformers skips modules without weights of their own, and DCNv3 is one.

        Its offsets and modulations start at zero, unlike other linear layers.
        """
        return False

    def _maps(self, pixel_values: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """The stages' maps channels-last, and the stem's and the stages' as NCHW."""
        if pixel_values.is_floating_point():
            pixel_values = pixel_values.to(next(self.backbone.parameters()).dtype)
        stem_NHWC = self.backbone.forward_stem(pixel_values)
        maps_NHWC = self.backbone.run_stages(stem_NHWC)
        return maps_NHWC, tuple(to_nchw(map_NHWC) for map_NHWC in (stem_NHWC, *maps_NHWC))

    def _wants_hidden_states(self, asked: bool | None) -> bool:
        return bool(self.config.output_hidden_states if asked is None else asked)


class InternImageModel(InternImagePreTrainedModel):
    """The network without a head. A classifier's file fits too; its head is left out.

    >>> model = InternImageModel(InternImageConfig(channels=16, depths=[1, 1, 1, 1], groups=[1, 2, 4, 8]))
    >>> model(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape
    torch.Size([1, 128, 2, 2])
    """

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_HEAD]

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__(config)
        self.backbone = InternImage(config.to_internimage())
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Stage 4's map, its mean over all positions, and on request the maps of stem and stages, all NCHW."""
        _, hidden_states = self._maps(pixel_values)
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=hidden_states[-1],
            pooler_output=hidden_states[-1].mean((2, 3)),
            hidden_states=hidden_states if self._wants_hidden_states(output_hidden_states) else None,
        )


class InternImageForImageClassification(InternImagePreTrainedModel):
    """The network with its classification head.

    The loss, where labels are given, is transformers': ``config.problem_type`` says which, and labels tell it if it is
    None.
    """

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__(config)
        network = InternImageClassifier(config.to_internimage())
        self.num_labels = network.num_classes
        self.backbone, self.head = network.backbone, network.head
        self.post_init()

    @classmethod
    def from_network(cls, network: nn.Module, labels: LabelMap | None = None, **settings: Any) -> Self:
        """Our classifier (from `internimage.create_model`) as transformers' model; both share their weights.

        Args:
            network: the classifier.
            labels: its class names, or None.
            settings: transformers' own, for example ``problem_type``.

        Raises:
            ValueError: another model, or another number of class names.
        """
        if not isinstance(network, InternImageClassifier):
            raise ValueError(f"network must be an InternImageClassifier, got {type(network).__name__}")
        config = InternImageConfig.from_internimage(network.config, labels, **settings)
        # Weights that are replaced at once need no memory.
        with torch.device("meta"):
            model = cls(config)
        model.backbone, model.head = network.backbone, network.head
        return model.train(network.training)

    # No **kwargs: Trainer would take them as a sign that the loss is summed over gradient accumulation here.
    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> ImageClassifierOutputWithNoAttention:
        """Class scores (logits), the loss if there are labels, and on request the maps of stem and stages, NCHW."""
        maps_NHWC, hidden_states = self._maps(pixel_values)
        logits = self.head(maps_NHWC)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(
            loss=loss,
            logits=logits,
            hidden_states=hidden_states if self._wants_hidden_states(output_hidden_states) else None,
        )


class InternImageBackbone(BackboneMixin, InternImagePreTrainedModel):
    """The network as a backbone for transformers' detectors and segmenters: the maps that ``out_features`` names.

    A classifier's file fits too; its head is left out.
    """

    has_attentions = False
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [_HEAD]

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__(config)
        self.backbone = InternImage(config.to_internimage())
        # One for each of stem and stages.
        self.num_features = [config.channels, *config.hidden_sizes]
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None) -> BackboneOutput:
        """The chosen maps as ``feature_maps``, and on request all of them, NCHW."""
        _, hidden_states = self._maps(pixel_values)
        # transformers' own annotation says one map.
        chosen: Any = tuple(hidden_states[self.stage_names.index(name)] for name in self.out_features)
        return BackboneOutput(
            feature_maps=chosen,
            hidden_states=hidden_states if self._wants_hidden_states(output_hidden_states) else None,
        )
