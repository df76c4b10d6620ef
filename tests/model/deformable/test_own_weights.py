"""Every sampling point with a matrix of its own (DCNv2's w_k): against the operator one point at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage import DCNv3, InternImageConfig, create_model, dcnv3
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
C, G = 6, 2
WINDOWS: dict[str, dict[str, Any]] = {
    "3": {},
    "3x5": {"kernel_size": (3, 5), "offset_scale": 0.8},
    "remove_center": {"remove_center": True, "offset_scale": 2.0},
    "stride_dilation": {"stride": (2, 1), "dilation": (1, 2)},
    "more_padding": {"padding": (3, 2)},
    "gated": {"center_feature_scale": True, "stride": 2},
}


def layer(shared: bool, settings: dict[str, Any], **more: Any) -> DCNv3:
    """float64 and random throughout."""
    module = DCNv3(C, groups=G, shared_weights=shared, **settings, **more).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name != "output_proj.weight":
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        weight = module.output_proj.weight
        weight.copy_(0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return module


def image(height: int = 9, width: int = 8) -> Tensor:
    return torch.randn(2, height, width, C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("normalize", ["softmax", "sigmoid", "none"])
def test_equation_1_point_by_point(normalize: str) -> None:
    """The sum over k of w_k m_k x(p0 + p_k + dp_k): of the operator's weights all but one are 0."""
    module, x = layer(False, {"offset_scale": 0.8}, normalize=normalize), image()
    query = F.conv2d(x.permute(0, 3, 1, 2), module.dw_conv.weight, module.dw_conv.bias, padding=1, groups=C)
    query = F.gelu(F.layer_norm(query.permute(0, 2, 3, 1), (C,), module.dw_norm.weight, module.dw_norm.bias, 1e-6))
    offset = module.offset(query).view(2, 9, 8, G, 9, 2)
    logits = module.mask(query).view(2, 9, 8, G, 9)
    weights = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}[normalize]
    value = module.input_proj(x).unflatten(-1, (G, C // G))
    expected = module.output_proj.bias.expand(2, 9, 8, C)
    for k in range(9):
        alone = torch.zeros_like(weights)
        alone[..., k] = weights[..., k]
        sampled = dcnv3(value, offset, alone, offset_scale=0.8, backend="reference")
        expected = expected + sampled.flatten(-2) @ module.output_proj.weight[:, k * C : (k + 1) * C].T
    assert relative_rms(module(x), expected) < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("window", WINDOWS)
def test_equal_matrices_are_the_shared_one(window: str) -> None:
    """Sharing is the case w_1 = ... = w_K, for every window, and for the gate of H and G."""
    shared, own = layer(True, WINDOWS[window]), layer(False, WINDOWS[window])
    own.output_proj.weight.copy_(shared.output_proj.weight.repeat(1, own.geometry.num_points))
    own.output_proj.bias.copy_(shared.output_proj.bias)
    assert relative_rms(own(image()), shared(image())) < 1e-12
    own.output_proj.weight[:, :C] *= 1.5
    assert relative_rms(own(image()), shared(image())) > 1e-3, "the points' matrices are read one by one"


def test_gradients() -> None:
    module = layer(False, {"stride": (2, 1), "center_feature_scale": True})
    assert torch.autograd.gradcheck(module, (image(5, 4)[:1].requires_grad_(),))


def test_every_matrix_starts_as_the_shared_one_would() -> None:
    module = DCNv3(64, groups=4, shared_weights=False)
    bound = (6 / (2 * 64)) ** 0.5
    assert module.output_proj.weight.shape == (64, 9 * 64)
    for matrix in module.output_proj.weight.split(64, 1):
        assert 0.95 * bound < matrix.abs().max() <= bound


@pytest.mark.parametrize("settings", [{"padding": 0}, {"kernel_size": 2}], ids=str)
def test_windows_that_leave_no_middle_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="shared_weights=False needs windows with a middle"):
        DCNv3(C, groups=G, shared_weights=False, **settings)


@pytest.mark.parametrize(
    "change", [{"shared_weights": False}, {"normalize": "sigmoid"}, {"normalize": "none"}], ids=str
)
def test_a_network_of_this_form_learns(change: dict[str, Any]) -> None:
    """The switches of the configuration reach every block, forward and backward."""
    config = InternImageConfig.from_variant("femto", num_classes=3, **change)
    torch.manual_seed(0)
    network = create_model(config)
    loss = F.cross_entropy(network(torch.randn(2, 3, 64, 64)), torch.tensor([0, 2]))
    loss.backward()
    blocks = [block.dcn for stage in network.backbone.stages for block in stage.blocks]
    assert all(block.normalize == config.normalize for block in blocks)
    assert all(block.shared_weights == config.shared_weights for block in blocks)
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert config == InternImageConfig.from_dict(config.to_dict())


def test_biases_can_be_left_out() -> None:
    network = create_model(InternImageConfig.from_variant("femto", core_output_bias=False, mlp_output_bias=False))
    names = {name.removeprefix("backbone.stages.0.blocks.0.") for name, _ in network.named_parameters()}
    assert "dcn.output_proj.weight" in names
    assert "mlp.fc2.weight" in names
    assert not names & {"dcn.output_proj.bias", "mlp.fc2.bias"}
