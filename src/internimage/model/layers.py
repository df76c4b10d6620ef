"""Stem, downsampling and feed-forward layers, drop path. Maps are channels-last inside the network.

Shape legend: N batch, H W map, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from internimage.model.config import Activation
from internimage.model.fused import feed_forward, is_idle, linear

NORM_EPS = 1e-6
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def build_activation(name: Activation) -> nn.Module:
    """GELU, ReLU or SiLU; ``ValueError`` for any other name."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


def layer_norm(channels: int) -> nn.LayerNorm:
    """Layer normalisation over the last dimension with the network's epsilon."""
    return nn.LayerNorm(channels, eps=NORM_EPS)


def to_nhwc(x_NCHW: Tensor) -> Tensor:
    """A view when the memory is channels-last, as convolutions here leave it."""
    return x_NCHW.permute(0, 2, 3, 1)


def to_nchw(x_NHWC: Tensor) -> Tensor:
    """The channels-last map as the NCHW tensor with channels-last strides that convolutions take without a copy."""
    return x_NHWC.permute(0, 3, 1, 2)


class Stem(nn.Module):
    """Two 3x3 convolutions, each with layer normalisation, from the image to stage 1: (N, C, H, W) to (N, H', W', C1).

    Source: Fig. 3, arXiv:2211.05778.
    """

    def __init__(self, in_chans: int, channels: int, strides: tuple[int, int], activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, channels // 2, 3, stride=strides[0], padding=1)
        self.norm1 = layer_norm(channels // 2)
        self.act = build_activation(activation)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=strides[1], padding=1)
        self.norm2 = layer_norm(channels)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Image to stage-1 map, channels-last."""
        x_NCHW = self.conv1(image_NCHW.contiguous(memory_format=torch.channels_last))
        x_NHWC = self.act(self.norm1(to_nhwc(x_NCHW)))
        return self.norm2(to_nhwc(self.conv2(to_nchw(x_NHWC))))


class Downsample(nn.Module):
    """Half the resolution, twice the channels: 3x3 convolution of stride 2 without bias, layer normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = layer_norm(2 * channels)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """(N, H, W, C) to (N, ceil(H/2), ceil(W/2), 2C)."""
        return self.norm(to_nhwc(self.conv(to_nchw(x_NHWC))))


class FeedForward(nn.Module):
    """Linear, activation, linear, with dropout after each."""

    def __init__(
        self, channels: int, hidden: int, activation: Activation, drop_rate: float, output_bias: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = build_activation(activation)
        self.fc2 = nn.Linear(hidden, channels, bias=output_bias)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        if is_idle(self.drop):
            return feed_forward(x_NHWC, self.fc1, self.act, self.fc2)
        return self.drop(linear(self.drop(linear(x_NHWC, self.fc1, self.act)), self.fc2))


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a sample's whole branch with probability ``rate`` and scale up the others.

    Source: arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape with the batch first."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"rate={self.rate:.3f}"
