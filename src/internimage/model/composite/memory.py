"""What training a composite backbone takes in memory, as a sum whose terms can be read.

A map of stage i counts N x H_i x W_i x C_i numbers. Shape legend: N batch, H W map, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from internimage.model.backbone import Block
from internimage.model.composite.network import CompositeInternImage
from internimage.model.config import NUM_STAGES, InternImageConfig
from internimage.model.design.cost import kept_bytes

Precision = Literal["32-true", "bf16-mixed", "bf16-true"]
_NETWORKS = 2


@dataclass(frozen=True)
class Widths:
    """Bytes per number in a precision.

    Args:
        weights: of a parameter, its gradient, and each of AdamW's two moments.
        stream: of the map that blocks add to.
        cast: of what convolutions and matrices compute with.
    """

    weights: int
    stream: int
    cast: int


# As Lightning's precisions of these names: in bf16-mixed, weights, gradients and moments stay in float32.
WIDTHS: dict[Precision, Widths] = {
    "32-true": Widths(4, 4, 4),
    "bf16-mixed": Widths(4, 4, 2),
    "bf16-true": Widths(2, 2, 2),
}


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes, unless it says otherwise, of one training step with gradient checkpointing on one device.

    Everything is counted as if it stood at the same time. In truth gradients come while kept maps go, and our own
    operators keep less of a block than PyTorch's plain ones. What kernels need for themselves is not in it, nor are the
    masks of dropout, nor what the maps become above the backbone.

    Args:
        parameters: how many.
        weights: all parameters.
        gradients: of all parameters.
        moments: AdamW's two, of a step that makes no copies (``fused=True``).
        inputs: maps that blocks start from, kept to compute the blocks again: one a block.
        between: kept outside of blocks: stem, norms, downsampling, links.
        block: kept inside the one block that is computed again, the most expensive one.
        passing: gradients on their way through it: the widest hidden map's twice, the stream's twice.
    """

    parameters: int
    weights: int
    gradients: int
    moments: int
    inputs: int
    between: int
    block: int
    passing: int

    @property
    def states(self) -> int:
        """What does not depend on the images."""
        return self.weights + self.gradients + self.moments

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.inputs + self.between + self.block + self.passing


def training_memory(
    config: InternImageConfig,
    size: tuple[int, int],
    *,
    images: int = 1,
    precision: Precision = "bf16-mixed",
    more_parameters: int = 0,
) -> TrainingMemory:
    """What a step of AdamW on a composite backbone takes, computed without a GPU.

    Args:
        config: of both networks.
        size: height and width of the padded images in pixels.
        images: of a batch.
        precision: Lightning's name of it; ``"bf16-mixed"`` is autocast over weights in float32.
        more_parameters: of what stands on the backbone, a detector's; its maps are not counted.

    Raises:
        ValueError: a size or a number of images below 1, or another precision.

    >>> memory = training_memory(InternImageConfig.from_variant("femto"), (64, 96))
    >>> memory.states == 16 * memory.parameters
    True
    """
    if min(*size, images) < 1:
        raise ValueError(f"images have at least one pixel and there is at least one, got {size} and {images}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    with torch.device("meta"):
        network = CompositeInternImage(config)
    count = sum(each.numel() for each in network.parameters()) + more_parameters
    widths, maps = WIDTHS[precision], map_sizes(config, size, images)
    blocks = [_block_bytes(config, stage, maps[stage], precision) for stage in range(NUM_STAGES)]
    inputs = block_inputs(config, maps, widths)
    return TrainingMemory(
        parameters=count,
        weights=count * widths.weights,
        gradients=count * widths.weights,
        moments=2 * count * widths.weights,
        inputs=inputs,
        between=kept_between_blocks(config, size, images, widths),
        block=max(blocks),
        passing=max(math.prod(each) for each in maps) * int(2 * config.mlp_ratio * widths.cast + 2 * widths.stream),
    )


def map_sizes(config: InternImageConfig, size: tuple[int, int], images: int) -> list[tuple[int, int, int, int]]:
    """(N, H, W, C) of each stage's map."""
    return [
        (images, -(-size[0] // stride), -(-size[1] // stride), channels)
        for stride, channels in zip(config.stage_strides, config.stage_channels, strict=True)
    ]


def block_inputs(config: InternImageConfig, maps: list[tuple[int, int, int, int]], widths: Widths) -> int:
    """What checkpointing keeps: the map before every block of both networks."""
    return _NETWORKS * sum(
        depth * math.prod(each) * widths.stream for depth, each in zip(config.depths, maps, strict=True)
    )


def kept_between_blocks(config: InternImageConfig, size: tuple[int, int], images: int, widths: Widths) -> int:
    """What the backward pass keeps outside of blocks, in both networks and between them."""
    maps = map_sizes(config, size, images)
    total = _stem(config, size, images, widths)
    for stage, each in enumerate(maps):
        numbers, last = math.prod(each), stage == NUM_STAGES - 1
        # Extra norms keep what they are given; so does a stage's own, whose result the way down keeps, below.
        norms = len(config.level2_post_norm_blocks) if stage == 2 else 0
        norms += not config.post_norm or config.center_feature_scale
        total += _NETWORKS * norms * (numbers * widths.stream + _statistics(each))
        if not last:
            # The convolution's input in its dtype, and its result before the norm.
            total += _NETWORKS * (numbers * widths.cast + _before_norm(maps[stage + 1], widths))
            total += _NETWORKS * _copies(9 * config.stage_channels[stage] * config.stage_channels[stage + 1], widths)
        total += _links(config, stage, numbers, widths)
    # The rounded gammas.
    return total + sum(config.stage_channels) * widths.weights


def _stem(config: InternImageConfig, size: tuple[int, int], images: int, widths: Widths) -> int:
    """Image, the first convolution's result, what the activation is given and gives, the second's result."""
    half = config.channels // 2
    middle = (images, -(-size[0] // config.stem_strides[0]), -(-size[1] // config.stem_strides[0]), half)
    weights = 9 * half * (config.in_chans + config.channels)
    return (
        images * config.in_chans * size[0] * size[1] * widths.cast
        + _before_norm(middle, widths)
        + math.prod(middle) * (widths.stream + widths.cast)
        + _before_norm(map_sizes(config, size, images)[0], widths)
        + _copies(weights, widths)
    )


def _links(config: InternImageConfig, stage: int, numbers: int, widths: Widths) -> int:
    """What a stage's links keep: their sum at every stage but the last, where it is the assisting map itself."""
    into = sum(config.stage_channels[source] * config.stage_channels[stage] for source in range(stage + 1, NUM_STAGES))
    kept = numbers * widths.stream + _copies(into, widths)
    if widths.cast == widths.stream:
        # The last assisting map is its own last link's input; all others are kept for the way down already.
        return kept
    # Each of the links that start here rounds a copy of the assisting map.
    return kept + stage * numbers * widths.cast


def _before_norm(each: tuple[int, int, int, int], widths: Widths) -> int:
    """A map that a norm keeps, in the dtype that the norm computes with, with its statistics."""
    return math.prod(each) * widths.stream + _statistics(each)


def _statistics(each: tuple[int, int, int, int]) -> int:
    """A mean and a deviation per position, in float32."""
    return 2 * 4 * math.prod(each[:3])


def _copies(weights: int, widths: Widths) -> int:
    """Autocast rounds a copy of a convolution's weights, which its backward pass keeps."""
    return weights * widths.cast if widths.cast != widths.weights else 0


def _block_bytes(config: InternImageConfig, stage: int, shape: tuple[int, ...], precision: Precision) -> int:
    """Kept inside one block of a stage."""
    with torch.device("meta"):
        block = Block(config, stage, 0.0)
    return kept_on_gpu(block, shape, precision)


def kept_on_gpu(network: nn.Module, shape: tuple[int, ...], precision: Precision) -> int:
    """Bytes that a network keeps of a GPU's memory for its backward pass, by PyTorch's plain operators.

    Nothing is computed, and no GPU need be there.

    Args:
        network: on the meta device, in float32; it is changed.
        shape: of its input.
        precision: as for `training_memory`.
    """
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    network = network.to(dtype).train()
    if precision != "bf16-mixed":
        return kept_bytes(network, torch.empty(shape, device="meta", dtype=dtype, requires_grad=True))
    with FakeTensorMode(allow_non_fake_inputs=True), _autocast():
        network.to_empty(device="cuda")
        return kept_bytes(network, torch.empty(shape, device="cuda", dtype=dtype, requires_grad=True))


@contextmanager
def _autocast() -> Generator[None]:
    """bfloat16 autocast for CUDA; PyTorch's own context manager asks for a real GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), torch.is_autocast_cache_enabled()
    _set_autocast(True, torch.bfloat16, False)
    try:
        yield
    finally:
        _set_autocast(*before)


def _set_autocast(enabled: bool, dtype: torch.dtype, cache: bool) -> None:
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_cache_enabled(cache)
