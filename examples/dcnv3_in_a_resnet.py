"""DCNv3 in place of the 3x3 convolutions of a ResNet: any number of channels in and out, any stride, NCHW outside.

Blocks of YOLO and other networks take it the same way: whatever calls a convolution can call `DeformableConv`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import internimage


class DeformableConv(nn.Module):
    """A drop-in for `nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, group_width: int = 16) -> None:
        super().__init__()
        # DCNv3 keeps the number of channels; a 1x1 convolution changes it before.
        self.proj = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.dcn = internimage.DCNv3(out_channels, stride=stride, groups=out_channels // group_width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.dcn(self.proj(x_NCHW).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def deform(module: nn.Module) -> int:
    """Replace every 3x3 convolution below ``module``; returns how many there were."""
    count = 0
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
            setattr(module, name, DeformableConv(child.in_channels, child.out_channels, child.stride[0]))
            count += 1
        else:
            count += deform(child)
    return count


if __name__ == "__main__":
    torch.manual_seed(0)
    plain, deformable = resnet18(num_classes=10), resnet18(num_classes=10)
    # The early stages stay as they are: what is worth looking for is large.
    count = deform(deformable.layer3) + deform(deformable.layer4)
    images, targets = torch.randn(8, 3, 64, 64), torch.arange(8)
    for name, model in (("plain", plain), (f"{count} x DCNv3", deformable)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        losses = []
        for _ in range(8):
            loss = nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        print(f"ResNet-18, {name:<9} {size:4.1f}M parameters, loss {losses[0]:.2f} -> {losses[-1]:.2f}")
        assert losses[-1] < 0.5 * losses[0]
