"""The effective receptive field: what of the input changes the middle of a map, by gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from internimage.structures import ReceptiveField


def effective_receptive_field(
    features: Callable[[Tensor], Tensor], images_NCHW: Iterable[Tensor], *, seed: int = 0
) -> ReceptiveField:
    """Averaged over images: the absolute gradient of the map's middle cell with respect to every pixel.

    The cell's channels are summed with random weights, anew for every image: their plain sum is constant after layer
    normalisation. Gradients are summed over the input's channels.

    Source: Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural Networks,
    arXiv:1701.04128.

    Args:
        features: from a batch (N, C, H, W) to a map (N, C', h, w), differentiable; any network.
        images_NCHW: batches (N, C, H, W) of one size, normalised, on the network's device.
        seed: of the random weights.

    Raises:
        ValueError: no image, images of several sizes, a result that is no map, or a gradient that is zero everywhere.

    >>> convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
    >>> field = effective_receptive_field(convolution, [torch.zeros(2, 3, 9, 9)])
    >>> field.side(1.0), field.num_images
    (3, 2)
    """
    generator = torch.Generator().manual_seed(seed)
    total, count = None, 0
    for image_NCHW in images_NCHW:
        leaf_NCHW = image_NCHW.detach().clone().requires_grad_()
        with torch.enable_grad():
            map_NCHW = features(leaf_NCHW)
            if map_NCHW.dim() != 4:
                raise ValueError(f"a receptive field needs a map (N, C, H, W), got {tuple(map_NCHW.shape)}")
            middle_NC = map_NCHW[:, :, map_NCHW.shape[2] // 2, map_NCHW.shape[3] // 2]
            weights_NC = torch.randn(middle_NC.shape, generator=generator).to(middle_NC)
            (grad_NCHW,) = torch.autograd.grad((middle_NC * weights_NC).sum(), leaf_NCHW)
        seen_HW = grad_NCHW.double().abs().sum((0, 1)).cpu()
        if total is not None and total.shape != seen_HW.shape:
            raise ValueError(f"images must be of one size, got {tuple(total.shape)} and {tuple(seen_HW.shape)}")
        total = seen_HW if total is None else total + seen_HW
        count += len(image_NCHW)
    if total is None:
        raise ValueError("a receptive field needs at least one image")
    return ReceptiveField(total.numpy(), count)
