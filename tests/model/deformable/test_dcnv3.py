"""The DCNv3 layer against the operator and PyTorch's convolutions: alignment of its branch, start values, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internimage import DCNv3, dcnv3
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
C, G = 6, 2
# Kernels and what else moves a window's middle; every entry meets strides and paddings below.
WINDOWS: dict[str, dict[str, Any]] = {
    "3": {},
    "3x5": {"kernel_size": (3, 5)},
    "dw_5": {"dw_kernel_size": 5},
    "dw_1": {"dw_kernel_size": 1},
    "dw_4": {"dw_kernel_size": 4},
    "dw_3x1": {"kernel_size": 5, "dw_kernel_size": (3, 1)},
    "even": {"kernel_size": 2},
    "4x3": {"kernel_size": (4, 3)},
    "dilation": {"dilation": (2, 1)},
    "even_dilation": {"kernel_size": 2, "dilation": 3},
    "remove_center": {"remove_center": True, "offset_scale": 0.7},
    "gated": {"center_feature_scale": True},
    "gated_even": {"kernel_size": (2, 3), "center_feature_scale": True},
    "gated_dw_5": {"center_feature_scale": True, "dw_kernel_size": 5, "remove_center": True},
}


def layer(settings: dict[str, Any], **more: Any) -> DCNv3:
    """float64 and random throughout: offsets of a pixel or so, gates away from 1/2."""
    module = DCNv3(C, groups=G, **settings, **more).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def image(height: int = 13, width: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(2, height, width, C, generator=generator, dtype=torch.float64)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert relative_rms(actual, expected) < 1e-12


@torch.no_grad()
def test_hand_set_weights_give_the_operator() -> None:
    """Identity projections, offsets and modulations from biases alone: what remains is Eq. (2)."""
    module = layer({"kernel_size": (3, 2), "padding": (1, 0), "dilation": (1, 2), "offset_scale": 0.8})
    for projection in (module.input_proj, module.output_proj):
        projection.weight.copy_(torch.eye(C))
        projection.bias.zero_()
    module.offset.weight.zero_()
    module.mask.weight.zero_()
    x = image()
    expected = dcnv3(
        x.unflatten(-1, (G, C // G)),
        module.offset.bias.view(G, 6, 2).expand(2, 13, 9, G, 6, 2),
        module.mask.bias.view(G, 6).expand(2, 13, 9, G, 6),
        kernel_size=(3, 2),
        padding=(1, 0),
        dilation=(1, 2),
        offset_scale=0.8,
        normalize="softmax",
    )
    assert_same(module(x), expected.flatten(-2))


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("activation", "dw_kernel_size", "pads"),
    # Zeros left, right, above and below; an even window has its middle before the half, as the operator's.
    [("gelu", None, (2, 2, 1, 1)), ("relu", 5, (2, 2, 2, 2)), ("silu", (4, 2), (0, 1, 1, 2))],
)
def test_every_step_written_out(activation: str, dw_kernel_size: Any, pads: tuple[int, ...], gated: bool) -> None:
    """The whole layer from its weights by PyTorch functions, for an asymmetric kernel."""
    settings = {"kernel_size": (3, 5), "dw_kernel_size": dw_kernel_size, "activation": activation}
    m = layer(settings, center_feature_scale=gated)
    x = image()
    query = F.conv2d(F.pad(x.permute(0, 3, 1, 2), pads), m.dw_conv.weight, m.dw_conv.bias, groups=C)
    query = F.layer_norm(query.permute(0, 2, 3, 1), (C,), m.dw_norm.weight, m.dw_norm.bias, 1e-6)
    query = getattr(F, activation)(query)
    projected = x @ m.input_proj.weight.T + m.input_proj.bias
    offset = (query @ m.offset.weight.T + m.offset.bias).view(2, 13, 11, G, 15, 2)
    mask = (query @ m.mask.weight.T + m.mask.bias).view(2, 13, 11, G, 15).softmax(-1)
    out = dcnv3(projected.unflatten(-1, (G, 3)), offset, mask, kernel_size=(3, 5), padding=(1, 2), backend="reference")
    out = out.flatten(-2)
    if gated:
        gate = (query @ m.center_scale.weight.T + m.center_scale.bias).sigmoid().repeat_interleave(C // G, -1)
        out = out * (1 - gate) + projected * gate
    assert_same(m(x), out @ m.output_proj.weight.T + m.output_proj.bias)


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, 3, (1, 2), (3, 2)])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_stride_takes_every_so_manieth_output(window: str, stride: int | tuple[int, int]) -> None:
    dense, strided = layer(WINDOWS[window]), layer(WINDOWS[window], stride=stride)
    step_y, step_x = (stride, stride) if isinstance(stride, int) else stride
    for size in ((13, 11), (12, 14)):
        assert_same(strided(image(*size)), dense(image(*size))[:, ::step_y, ::step_x])


@torch.no_grad()
@pytest.mark.parametrize("window", WINDOWS)
def test_padding_adds_outputs_and_changes_none(window: str) -> None:
    """One more pixel of padding is one more output on each side; the others look at the same places."""
    wide = layer(WINDOWS[window], padding=(4, 5))(image())
    for padding in (0, 1, (2, 0), (0, 3)):
        pad_y, pad_x = (padding, padding) if isinstance(padding, int) else padding
        crop_y, crop_x = 4 - pad_y, 5 - pad_x
        expected = wide[:, crop_y : wide.shape[1] - crop_y, crop_x : wide.shape[2] - crop_x]
        assert_same(layer(WINDOWS[window], padding=padding)(image()), expected)


@torch.no_grad()
@pytest.mark.parametrize("window", WINDOWS)
def test_a_shifted_image_gives_a_shifted_map(window: str) -> None:
    """Away from the border, where the zeros outside play no part."""
    module, x = layer(WINDOWS[window]), image(40, 44)
    with torch.no_grad():
        # Bounded offsets, so that an inner output depends on nothing beyond the frame below.
        module.offset.weight.mul_(0.05)
    shifted = torch.roll(x, (3, 2), dims=(1, 2))
    frame = 14
    actual = module(shifted)[:, frame + 3 : -frame, frame + 2 : -frame]
    assert_same(actual, module(x)[:, frame : -frame - 3, frame : -frame - 2])


@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 1 / 9),
        ({"normalize": "none"}, 1 / 9),
        ({"normalize": "sigmoid"}, 1 / 2),
        ({"kernel_size": (2, 5), "padding": (0, 2)}, 1 / 10),
        ({"stride": 2, "dilation": 2, "padding": 2}, 1 / 9),
        ({"stride": (2, 3), "padding": (0, 1)}, 1 / 9),
        ({"remove_center": True}, 1 / 8),
        ({"center_feature_scale": True}, 1 / 18),
    ],
)
def test_the_start_is_an_average_over_the_regular_grid(settings: dict[str, Any], factor: float) -> None:
    module = DCNv3(C, groups=G, **settings)
    g, x = module.geometry, image().float()
    weight = torch.full((C, 1, *g.kernel_size), factor)
    if g.remove_center:
        weight[:, :, 1, 1] = 0
    if module.center_scale is not None:
        weight[:, :, 1, 1] += 0.5
    value = module.input_proj(x).permute(0, 3, 1, 2)
    pooled = F.conv2d(value, weight, None, g.stride, g.padding, g.dilation, groups=C)
    expected = module.output_proj(pooled.permute(0, 2, 3, 1))
    assert relative_rms(module(x), expected) < 1e-6


def test_reset_parameters_brings_the_start_back() -> None:
    module = layer({"center_feature_scale": True})
    module.reset_parameters()
    for linear in (module.offset, module.mask, module.center_scale):
        assert not linear.weight.any()
        assert not linear.bias.any()
    assert module.input_proj.weight.abs().max() <= (6 / (2 * C)) ** 0.5
    assert not module.input_proj.bias.any()


@pytest.mark.parametrize(
    ("window", "normalize"), [("3x5", "softmax"), ("gated_even", "sigmoid"), ("gated_dw_5", "none")]
)
def test_gradients(window: str, normalize: str) -> None:
    module = layer(WINDOWS[window], stride=(2, 1), normalize=normalize)
    x = image(5, 4)[:1].requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@torch.no_grad()
def test_batches_and_layouts() -> None:
    module, x = layer(WINDOWS["gated"]), image()
    expected = module(x)
    nchw = x.permute(0, 3, 1, 2).contiguous()
    assert_same(module(nchw.permute(0, 2, 3, 1)), expected)
    assert_same(module(x[1:]), expected[1:])
    assert module(x[:0]).shape == (0, 13, 11, C)


def test_the_layer_says_what_it_is() -> None:
    text = repr(DCNv3(8, stride=2, remove_center=True))
    assert "8, groups=4, normalize='softmax'" in text
    assert "stride=(2, 2)" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 10}, "groups must divide channels, got 4 groups and 10 channels"),
        ({"channels": 0}, "groups must divide channels"),
        ({"groups": 0}, "groups must divide channels"),
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be an integer or a"),
        ({"dw_kernel_size": 0}, "dw_kernel_size must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"padding": "same"}, "padding must be an integer or a"),
        ({"dilation": 0}, "dilation must be at least 1"),
        ({"kernel_size": 4, "remove_center": True}, "remove_center needs odd kernel sizes"),
        ({"kernel_size": 1, "remove_center": True}, "leaves no sampling point"),
        ({"offset_scale": float("nan")}, "offset_scale must be finite"),
        ({"normalize": "softmx"}, "normalize must be one of softmax, sigmoid, none, got 'softmx'"),
        ({"activation": "tanh"}, "activation must be one of gelu, relu, silu, got 'tanh'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCNv3(**{"channels": 8, **settings})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 5, 5), r"channels-last, \(N, H, W, 8\), got \(1, 8, 5, 5\).*permute\(0, 2, 3, 1\)"),
        ((5, 5, 8), "channels-last"),
        ((1, 4, 9, 8), "a map of 4 x 9 gives no output"),
        ((1, 0, 9, 8), "a map of 0 x 9 gives no output"),
    ],
)
def test_wrong_inputs(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCNv3(8, kernel_size=5, padding=0)(torch.zeros(shape))


def test_weights_fit_nn_module_conventions() -> None:
    module = layer({})
    copy = DCNv3(C, groups=G).double()
    copy.load_state_dict(module.state_dict())
    assert isinstance(copy, nn.Module)
    assert torch.equal(copy(image()), module(image()))
    assert sum(parameter.numel() for parameter in module.parameters()) == (
        C * 10 + 2 * C + (C + 1) * (G * 18 + G * 9 + 2 * C)
    )
