"""The operator's implementations on a GPU, each behind the same three tensors: value, offset, mask.

Shape legend: N batch, H W map, G groups, D channels per group, K sampling points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import dcnv3 as plain
from benchmarks.dcnv3 import TORCHVISION_NAME, Implementation
from benchmarks.on_gpu.extensions import Missing, Peers
from internimage.ops.dcnv3 import DCNv3Geometry, dcnv3, dcnv3_reference

OURS = "internimage"
OURS_COMPILED = "internimage, compiled"
OFFICIAL = "official extension"
OFFICIAL_ALONE = "official extension, its kernel alone"
DCNV4 = "DCNv4 extension"
DEFORMOPS = "deformops, single-scale sampling"

# Softmax over the points and the aggregation, or the aggregation alone with the weights as given.
Work = Literal["softmax", "none"]
Maker = Callable[[], Implementation]


def makers(work: Work, peers: Peers, *, compiled: bool = False) -> dict[str, Maker]:
    """Everybody who does this work, ours first; a maker raises `Missing` where its code is not there."""
    ours: dict[str, Maker] = {OURS: partial(_ours, work)}
    if compiled:
        ours[OURS_COMPILED] = partial(_ours_compiled, work)
    if work == "softmax":
        return ours | {
            OFFICIAL: partial(_official, peers, softmax=True),
            DEFORMOPS: partial(_deformops, peers, "softmax"),
            TORCHVISION_NAME: _torchvision,
        }
    return ours | {
        DCNV4: partial(_dcnv4, peers),
        OFFICIAL_ALONE: partial(_official, peers, softmax=False),
        DEFORMOPS: partial(_deformops, peers, "linear"),
    }


def reference(work: Work) -> Implementation:
    """Eq. (2) in plain PyTorch: what the others must equal."""

    def run(value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return dcnv3_reference(value, offset, mask, DCNv3Geometry.make(), work)

    return Implementation(run)


def _ours(work: Work) -> Implementation:
    return Implementation(partial(dcnv3, normalize=work))


def _ours_compiled(work: Work) -> Implementation:
    return Implementation(torch.compile(partial(dcnv3, normalize=work), fullgraph=True, dynamic=False))


def _torchvision() -> Implementation:
    if find_spec("torchvision") is None:
        raise Missing("torchvision is not installed")
    return plain._torchvision()


def _official(peers: Peers, *, softmax: bool) -> Implementation:
    """Channels last, groups and points in one dimension; its layer takes the softmax in PyTorch, just before."""
    function = peers.official

    def from_ours(value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return value.flatten(3), offset.flatten(3), mask

    def run(value_NHWC: Tensor, offset: Tensor, mask_NHWGK: Tensor) -> Tensor:
        groups = mask_NHWGK.shape[3]
        weights = mask_NHWGK.softmax(-1) if softmax else mask_NHWGK
        # Kernel, stride, padding, dilation, groups, offset_scale, images per launch, no point left out.
        numbers = (3, 3, 1, 1, 1, 1, 1, 1, groups, value_NHWC.shape[3] // groups, 1.0, 256, 0)
        return function.apply(value_NHWC, offset, weights.flatten(3), *numbers)

    return Implementation(run, from_ours)


def pack_group_by_group(offset_NHWGK2: Tensor, mask_NHWGK: Tensor) -> Tensor:
    """DCNv4's one tensor: per group 2K offsets, then K weights; all groups in a row, filled up to a multiple of 8.

    >>> pack_group_by_group(torch.zeros(1, 5, 5, 4, 9, 2), torch.zeros(1, 5, 5, 4, 9)).shape
    torch.Size([1, 5, 5, 112])
    """
    packed = torch.cat((offset_NHWGK2.flatten(4), mask_NHWGK), -1).flatten(3)
    return F.pad(packed, (0, math.ceil(packed.shape[3] / 8) * 8 - packed.shape[3]))


def pack_point_by_point(offset_NHWGK2: Tensor, mask_NHWGK: Tensor) -> Tensor:
    """deformops' one tensor: per group and point x, y and the weight.

    >>> pack_point_by_point(torch.zeros(1, 5, 5, 4, 9, 2), torch.zeros(1, 5, 5, 4, 9)).shape
    torch.Size([1, 5, 5, 108])
    """
    return torch.cat((offset_NHWGK2, mask_NHWGK.unsqueeze(-1)), -1).flatten(3)


def _dcnv4(peers: Peers) -> Implementation:
    function = peers.dcnv4
    groups = 0

    def from_ours(value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal groups
        groups = value.shape[3]
        return value.flatten(3), pack_group_by_group(offset, mask)

    def run(value_NHWC: Tensor, packed: Tensor) -> Tensor:
        numbers = (3, 3, 1, 1, 1, 1, 1, 1, groups, value_NHWC.shape[3] // groups, 1.0, 256, 0)
        return function.apply(value_NHWC, packed, *numbers)

    # Two tensors where an implementation has three: nothing but its signature says so.
    return Implementation(cast(Any, run), cast(Any, from_ours))


def _deformops(peers: Peers, method: str) -> Implementation:
    sampling = peers.deformops
    groups = 0

    def from_ours(value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal groups
        groups = value.shape[3]
        return value.flatten(3), pack_point_by_point(offset, mask)

    def run(value_NHWC: Tensor, packed: Tensor) -> Tensor:
        depth = value_NHWC.shape[3] // groups
        return sampling(value_NHWC, packed, 3, 1, 1, 1, groups, depth, 1.0, method)

    return Implementation(cast(Any, run), cast(Any, from_ours))
