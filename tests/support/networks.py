"""Networks whose sampling points lie between pixels."""

from __future__ import annotations

import torch
from torch import nn

from internimage.model import DCNv3, DCNv4


@torch.no_grad()
def off_the_grid(model: nn.Module) -> nn.Module:
    """Sampling points between pixels, at the start they are on them; and none so close that rounding takes it across.

    On the grid every bilinear weight is 0 or 1, and a wrong offset would go unseen.
    """
    for module in model.modules():
        if isinstance(module, DCNv3 | DCNv4):
            for layer in (module.offset, module.mask) if isinstance(module, DCNv3) else (module.offset_mask,):
                layer.weight.normal_(std=0.04 / layer.weight.shape[1] ** 0.5)
                layer.bias.copy_(
                    torch.randint_like(layer.bias, -2, 2) + torch.empty_like(layer.bias).uniform_(0.3, 0.7)
                )
    return model
