"""Watching a network look: where every block samples its input, for one image.

Shape legend: N batch, H W map, G groups, K sampling points.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from internimage.model.backbone import Block, InternImage, Stage
from internimage.structures import BlockSampling, SamplingTrace


def find_backbone(network: nn.Module) -> InternImage:
    """The backbone inside a classifier, detector, segmenter, or whatever holds one; ``ValueError`` if none is there."""
    for module in network.modules():
        if isinstance(module, InternImage):
            return module
    raise ValueError(f"{type(network).__name__} holds no InternImage: only where DCNv3 looks can be shown")


def trace_sampling(network: nn.Module, image_NCHW: Tensor) -> SamplingTrace:
    """Where every block of ``network`` looks at one image; the network's results are not computed further than needed.

    H and G also read every place itself, through a gate on each group; that is left out. Modulations without a softmax,
    as DCNv4's, can be of any sign and sum: they become shares, by their magnitude.

    Args:
        network: holds an `InternImage`; in evaluation mode, for drop path would leave out blocks.
        image_NCHW: (1, C, H, W), normalised, on the network's device.

    Raises:
        ValueError: more than one image, no InternImage, or a network that gives positions that are no numbers.

    >>> from internimage.model import InternImageConfig
    >>> network = InternImage(InternImageConfig.from_variant("femto")).eval()
    >>> trace = trace_sampling(network, torch.zeros(1, 3, 64, 96))
    >>> [(each.stage, each.block, each.stride, each.shape) for each in trace.blocks][:2]
    [(1, 1, 4, (16, 24)), (2, 1, 8, (8, 12))]
    """
    if image_NCHW.dim() != 4 or image_NCHW.shape[0] != 1:
        raise ValueError(f"one image is watched at a time, (1, C, H, W); got {tuple(image_NCHW.shape)}")
    backbone = find_backbone(network)
    size = int(image_NCHW.shape[2]), int(image_NCHW.shape[3])
    stride = backbone.config.stem_strides[0] * backbone.config.stem_strides[1]
    seen: list[BlockSampling] = []
    with ExitStack() as hooks, torch.no_grad():
        for stage, module in enumerate(cast("list[Stage]", list(backbone.stages))):
            for index, block in enumerate(cast("list[Block]", list(module.blocks))):
                watcher = _Watcher(seen, stage + 1, index + 1, stride * 2**stage)
                hooks.callback(block.dcn.register_forward_pre_hook(watcher).remove)
        backbone.forward_stages(image_NCHW)
    return SamplingTrace(size, tuple(seen))


def _shares(modulations_NHWGK: Tensor) -> Tensor:
    """What each point counts in magnitude, as a share of all of them; zero where none counts."""
    sizes = modulations_NHWGK.abs()
    return sizes / sizes.sum(-1, keepdim=True).clamp_min(torch.finfo(sizes.dtype).tiny)


class _Watcher:
    """A hook that writes down where one layer is about to look."""

    def __init__(self, seen: list[BlockSampling], stage: int, block: int, stride: int) -> None:
        self._seen, self._stage, self._block, self._stride = seen, stage, block, stride

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        watched = cast(Any, layer)
        positions_NHWGK2, modulations_NHWGK = watched.sampling(inputs[0])
        if watched.normalize != "softmax":
            modulations_NHWGK = _shares(modulations_NHWGK)
        if not (positions_NHWGK2.isfinite().all() and modulations_NHWGK.isfinite().all()):
            raise ValueError(
                f"block {self._block} of stage {self._stage} looks at places that are no numbers; "
                "its training diverged or the file is damaged: use other weights"
            )
        positions, modulations = (each[0].float().cpu().numpy() for each in (positions_NHWGK2, modulations_NHWGK))
        self._seen.append(BlockSampling(self._stage, self._block, self._stride, positions * self._stride, modulations))
