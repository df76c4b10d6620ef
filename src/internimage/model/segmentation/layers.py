"""Layers that the heads share."""

# Convolutions are typed in part only.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional


class Norm(nn.BatchNorm2d):
    """Batch normalisation that takes a batch of one position as well.

    One value per channel has no spread to learn from: it is normalised by what was seen before, where PyTorch's own
    layer raises an error. UPerNet meets such maps with one image in a batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W), of the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


def pointwise(x_NCHW: Tensor, kernel_OI11: Tensor) -> Tensor:
    """A 1x1 convolution, (N, I, H, W) to (N, O, H, W), on maps with the channels last in memory, as ours have them.

    It keeps that layout. PyTorch's convolution gives it up on one thread of a CPU, and resizing what it returns then
    takes six times as long, forward and backward.
    """
    return functional.linear(x_NCHW.permute(0, 2, 3, 1), kernel_OI11.flatten(1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, ReLU; (N, in_channels, H, W) to (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.batch_norm = Norm(out_channels)
        start_convolution(self.conv)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """See the class."""
        return self.finish(pointwise(x_NCHW, self.conv.weight))

    def finish(self, x_NCHW: Tensor) -> Tensor:
        """What comes after the convolution."""
        return functional.relu(self.batch_norm(x_NCHW))


class Classifier(nn.Conv2d):
    """Scores of every position; in training some maps are dropped first. (N, in_channels, H, W) to (N, C, H, W)."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(in_channels, num_classes, 1)
        self.dropout = dropout
        nn.init.normal_(self.weight, std=0.01)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """See the class."""
        if self.training and self.dropout:
            input = functional.dropout2d(input, self.dropout)
        return super().forward(input)


@torch.no_grad()
def start_convolution(conv: nn.Conv2d) -> None:
    """Weights to train from, as the released heads have them (``ConvModule`` of mmcv 1.5)."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast within, on devices that have it."""
    return torch.autocast(device.type, enabled=False) if _has_autocast(device) else nullcontext()


def is_mixed(device: torch.device) -> bool:
    """Whether autocast is on."""
    return _has_autocast(device) and torch.is_autocast_enabled(device.type)


def _has_autocast(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type)
