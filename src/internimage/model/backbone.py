"""The backbone: stem, four stages of basic blocks, three downsampling layers.

Shape legend: N batch, H W map, C channels.
"""

# torch.utils.checkpoint is typed in part only.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from internimage.model.config import NUM_STAGES, InternImageConfig
from internimage.model.deform import DCNv3
from internimage.model.deform_v4 import DCNv4
from internimage.model.fused import is_idle
from internimage.model.layers import Downsample, DropPath, FeedForward, Stem, layer_norm, to_nchw


class Block(nn.Module):
    """Basic block: DCNv3 or DCNv4 and a feed-forward layer, both residual branches, in a form of the released code.

    ==============  ===========================================
    pre-norm        ``x + f(norm(x))``
    post-norm       ``x + norm(f(x))``
    res-post-norm   ``x + res_norm(f(norm(x)))``
    ==============  ===========================================

    With layer scale, the branch is multiplied by a learned factor per channel before it is added.

    Source: Fig. 3, arXiv:2211.05778.
    """

    def __init__(self, config: InternImageConfig, stage: int, drop_path_rate: float) -> None:
        super().__init__()
        channels = config.stage_channels[stage]
        self.post_norm = config.post_norm
        self.norm1 = layer_norm(channels)
        self.dcn = build_core(config, stage)
        self.norm2 = layer_norm(channels)
        hidden = int(channels * config.mlp_ratio)
        self.mlp = FeedForward(channels, hidden, config.activation, config.drop_rate, config.mlp_output_bias)
        self.drop_path = DropPath(drop_path_rate)
        self.res_norm1 = layer_norm(channels) if config.res_post_norm else None
        self.res_norm2 = layer_norm(channels) if config.res_post_norm else None
        scale = config.layer_scale
        self.layer_scale1 = None if scale is None else nn.Parameter(torch.full((channels,), scale))
        self.layer_scale2 = None if scale is None else nn.Parameter(torch.full((channels,), scale))

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """(N, H, W, C) to (N, H, W, C)."""
        x_NHWC = x_NHWC + self._branch(x_NHWC, self.dcn, self.norm1, self.res_norm1, self.layer_scale1)
        return x_NHWC + self._branch(x_NHWC, self.mlp, self.norm2, self.res_norm2, self.layer_scale2)

    def _branch(
        self, x: Tensor, layer: nn.Module, norm: nn.Module, res_norm: nn.Module | None, scale: Tensor | None
    ) -> Tensor:
        x = norm(layer(x)) if self.post_norm else layer(norm(x))
        if res_norm is not None:
            x = res_norm(x)
        return self.drop_path(x if scale is None else scale * x)


def build_core(config: InternImageConfig, stage: int) -> DCNv3 | DCNv4:
    """The deformable layer of a block."""
    channels, groups = config.stage_channels[stage], config.groups[stage]
    if config.core == "dcnv4":
        return DCNv4(
            channels,
            groups=groups,
            dw_kernel_size=config.dw_kernel_size,
            offset_scale=config.offset_scale,
            remove_center=config.remove_center,
            normalize=config.normalize,
            output_bias=config.core_output_bias,
        )
    return DCNv3(
        channels,
        groups=groups,
        dw_kernel_size=config.dw_kernel_size,
        offset_scale=config.offset_scale,
        center_feature_scale=config.center_feature_scale,
        remove_center=config.remove_center,
        normalize=config.normalize,
        shared_weights=config.shared_weights,
        output_bias=config.core_output_bias,
        activation=config.activation,
    )


class Stage(nn.Module):
    """Blocks at one resolution, the normalisations between and after them, and the way down to the next stage."""

    def __init__(self, config: InternImageConfig, stage: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        channels = config.stage_channels[stage]
        self.blocks = nn.ModuleList(Block(config, stage, rate) for rate in drop_path_rates)
        self.post_norm_blocks = config.level2_post_norm_blocks if stage == 2 else ()
        self.post_norms = nn.ModuleList(layer_norm(channels) for _ in self.post_norm_blocks)
        self.norm = layer_norm(channels) if not config.post_norm or config.center_feature_scale else None
        self.downsample = Downsample(channels) if stage < NUM_STAGES - 1 else None
        self.gradient_checkpointing = config.gradient_checkpointing

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """The stage's output before downsampling, (N, H, W, C)."""
        for index, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x_NHWC = cast(Tensor, checkpoint(block, x_NHWC, use_reentrant=False))
            else:
                x_NHWC = block(x_NHWC)
            if index in self.post_norm_blocks:
                x_NHWC = self.post_norms[self.post_norm_blocks.index(index)](x_NHWC)
        return x_NHWC if self.norm is None else self.norm(x_NHWC)


class InternImage(nn.Module):
    """The backbone: an image (N, in_chans, H, W) to four NCHW maps at strides 4, 8, 16 and 32 (with the usual stem).

    Any height and width of at least 1 pixel; each halving rounds up.

    Args:
        config: the architecture.
        has_stem: False leaves the stem out; such a network starts from another's, by `run_stages`.

    >>> import torch
    >>> model = InternImage(InternImageConfig.from_variant("femto"))
    >>> [tuple(map.shape) for map in model(torch.zeros(1, 3, 64, 40))]
    [(1, 24, 16, 10), (1, 48, 8, 5), (1, 96, 4, 3), (1, 192, 2, 2)]
    """

    def __init__(self, config: InternImageConfig, *, has_stem: bool = True) -> None:
        super().__init__()
        self.config = config
        stem = (config.in_chans, config.channels, config.stem_strides, config.activation)
        self.stem = Stem(*stem) if has_stem else None
        self.drop = nn.Dropout(config.drop_rate)
        rates = drop_path_rates(config)
        starts = [sum(config.depths[:stage]) for stage in range(NUM_STAGES)]
        self.stages = nn.ModuleList(
            Stage(config, stage, rates[starts[stage] : starts[stage] + config.depths[stage]])
            for stage in range(NUM_STAGES)
        )
        self.apply(init_weights)

    @property
    def num_features(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return self.config.stage_channels

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass (less memory, about a third more time), or stop doing so."""
        for stage in cast("list[Stage]", list(self.stages)):
            stage.gradient_checkpointing = enable

    def forward_stages(self, image_NCHW: Tensor, count: int = NUM_STAGES) -> list[Tensor]:
        """The four maps channels-last, (N, H, W, C) each, as the network holds them; or the first ``count`` of them.

        Raises:
            ValueError: not a floating-point batch of images with ``in_chans`` channels.
        """
        return self.run_stages(self.forward_stem(image_NCHW), count)

    def forward_stem(self, image_NCHW: Tensor) -> Tensor:
        """What stage 1 starts from, channels-last; raises as `forward_stages`."""
        self._check(image_NCHW)
        if self.stem is None:
            raise ValueError("this network has no stem: give the map of another's stem to run_stages")
        x_NHWC = self.stem(image_NCHW)
        # PyTorch's idle dropout leaves a copy of the map in a compiled graph, up to 2.11.
        return x_NHWC if is_idle(self.drop) else self.drop(x_NHWC)

    def run_stages(
        self, x_NHWC: Tensor, count: int = NUM_STAGES, *, enter: Callable[[int, Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """The four maps from the stem's, or the first ``count`` of them; all channels-last.

        Args:
            x_NHWC: what stage 1 starts from.
            count: stages to run.
            enter: given a stage's number (from 0) and the map that would enter it, what enters instead.
        """
        maps: list[Tensor] = []
        for number, stage in enumerate(cast("list[Stage]", list(self.stages)[:count])):
            x_NHWC = stage(x_NHWC if enter is None else enter(number, x_NHWC))
            maps.append(x_NHWC)
            if stage.downsample is not None and len(maps) < count:
                x_NHWC = stage.downsample(x_NHWC)
        return maps

    def _check(self, image_NCHW: Tensor) -> None:
        shape, wanted = tuple(image_NCHW.shape), self.config.in_chans
        if len(shape) != 4 or shape[1] != wanted or min(shape[2:]) < 1:
            raise ValueError(f"images must be a batch (N, {wanted}, H, W) of at least 1 x 1 pixels, got {shape}")
        if not image_NCHW.is_floating_point():
            raise ValueError(f"images must be floating point and normalised, got {image_NCHW.dtype}")

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        """The four maps as NCHW tensors (channels-last in memory)."""
        return [to_nchw(map_NHWC) for map_NHWC in self.forward_stages(image_NCHW)]


def drop_path_rates(config: InternImageConfig) -> list[float]:
    """One rate per block, first to last."""
    count = sum(config.depths)
    if config.drop_path_schedule == "uniform" or count == 1:
        return [config.drop_path_rate] * count
    return [config.drop_path_rate * index / (count - 1) for index in range(count)]


def init_weights(module: nn.Module) -> None:
    """The released code's rule for linear layers; DCNv3 and DCNv4 then keep their own."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # Linear(bias=False)
            nn.init.zeros_(module.bias)
    elif isinstance(module, DCNv3 | DCNv4):
        # apply() visits children first, so this comes after their linear layers.
        module.reset_parameters()
