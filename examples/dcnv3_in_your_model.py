"""Put DCNv3 where a 3x3 convolution was, and see that it learns to look elsewhere.

A network of one layer must move its input three pixels to the right: a plain 3x3 convolution can't, DCNv3 can.
"""

from __future__ import annotations

import torch
from torch import nn

import internimage


class Shift(nn.Module):
    """Any layer of yours, NCHW outside: DCNv3 works channels-last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dcn = internimage.DCNv3(channels, groups=1)

    def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
        return self.dcn(image_NCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def error(model: nn.Module, steps: int) -> float:
    """Mean squared error after training on smooth random pictures."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        coarse = torch.randn(8, 4, 4, 4)
        picture = nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic")
        moved = torch.roll(picture, 3, dims=3)
        # The first columns have no source in the picture.
        loss = (model(picture) - moved)[..., 4:].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


if __name__ == "__main__":
    torch.manual_seed(0)
    convolution = error(nn.Conv2d(4, 4, 3, padding=1), steps=300)
    deformable = error(Shift(4), steps=300)
    print(f"3x3 convolution: {convolution:.3f}   DCNv3: {deformable:.3f}")
    assert deformable < 0.5 * convolution
