"""Small networks of every published form, with sampling points between pixels and off the map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from internimage import InternImageConfig, create_model
from support.networks import off_the_grid

# What the published networks are made of, one after the other.
CONFIGS = {
    "t": InternImageConfig.stacked(24, 24, 1, 1),
    "l": InternImageConfig.stacked(16, 16, 1, 1, post_norm=True, layer_scale=1e-5, offset_scale=2.0),
    "h": InternImageConfig.stacked(
        32, 32, 1, 1, res_post_norm=True, center_feature_scale=True, dw_kernel_size=5, head="clip"
    ),
    "no_center": InternImageConfig.stacked(16, 16, 1, 1, remove_center=True),
    "flash": InternImageConfig.stacked(16, 16, 1, 1, core="dcnv4", normalize="none", dw_kernel_size=3, post_norm=True),
}
# A file takes ten seconds. The one with the most parts is in the default run; the plainest is there as guides and the
# command line export it, and what the others have of their own, test_operator.py exports alone.
NETWORKS = [name if name == "h" else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]


@torch.no_grad()
def network(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = off_the_grid(create_model(CONFIGS[name], **{"num_classes": 10, **options})).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model
