"""Small networks of every form the code knows, with random weights so that no branch is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from internimage import InternImageClassifier, InternImageConfig, create_model

BASE = InternImageConfig(channels=16, depths=(1, 1, 3, 1), groups=(1, 2, 4, 8), num_classes=10)
FORMS = {
    "prenorm": {},
    "postnorm_layer_scale": {"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0, "dw_kernel_size": 5},
    "res_postnorm": {"res_post_norm": True, "level2_post_norm_blocks": (0, 2), "center_feature_scale": True},
    "remove_center": {"post_norm": True, "center_feature_scale": True, "remove_center": True, "activation": "silu"},
    "dcnv4": {"core": "dcnv4", "normalize": "none", "core_output_bias": False, "mlp_output_bias": False}
    | {"dw_kernel_size": 3, "post_norm": True, "layer_scale": 1e-5, "offset_scale": 0.5},
    "clip_head": {"res_post_norm": True, "center_feature_scale": True, "dw_kernel_size": 5, "head": "clip"},
}
Randomise = Callable[[nn.Module], nn.Module]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small spend their time waiting for a second thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> InternImageConfig:
    """The configuration of one block form or head after the other."""
    return InternImageConfig.from_dict(BASE.to_dict() | FORMS[request.param])


@pytest.fixture
def base() -> InternImageConfig:
    return BASE


@pytest.fixture
def randomise() -> Randomise:
    return _randomise


@pytest.fixture
def network() -> InternImageClassifier:
    """The smallest network that has everything usual, with random weights, for files and loading."""
    model = create_model(BASE)
    assert isinstance(model, InternImageClassifier)
    _randomise(model)
    return model.eval()


@torch.no_grad()
def _randomise(model: nn.Module) -> nn.Module:
    """Weights of the size that training leaves: offsets of about a pixel, norms around 1, statistics that matter."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.dim() > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        else:
            scale_like = name.endswith("norm.weight") or "norm" in name.split(".")[-2] or "layer_scale" in name
            tensor.copy_(0.3 * noise + (1.0 if scale_like and not name.endswith("bias") else 0.0))
    return model
