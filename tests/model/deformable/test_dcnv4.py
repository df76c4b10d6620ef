"""The DCNv4 layer: against the released operator's results, PyTorch functions written out, and its own other forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from internimage import DCNv4, dcnv3
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
C, G = 6, 2
CASES = ["base", "scale2", "scale_half_rc", "rc", "stride2", "dil2", "nopad"]
WINDOWS: dict[str, dict[str, Any]] = {
    "3": {},
    "dw_3": {"dw_kernel_size": 3},
    "dw_4": {"dw_kernel_size": 4},
    "even": {"kernel_size": 2},
    "4x3_dw": {"kernel_size": (4, 3), "dw_kernel_size": (3, 1)},
    "even_dilation": {"kernel_size": 2, "dilation": 3},
    "remove_center": {"kernel_size": (3, 5), "remove_center": True, "offset_scale": 0.7},
}


def layer(settings: dict[str, Any], **more: Any) -> DCNv4:
    """float64 and random throughout: offsets of a pixel or so."""
    module = DCNv4(C, groups=G, **settings, **more).double()
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
@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_the_released_operator(case: str, golden: Path) -> None:
    """Its rows of offsets and modulations, as they are, and identities for the projections: noise fills the rows up."""
    with safe_open(golden / "flash" / "dcnv4_op.safetensors", framework="pt") as file:
        c = json.loads(file.metadata()["config"])[case]
        x, rows, expected = (file.get_tensor(f"{case}.{name}") for name in ("input_NHWC", "offset_mask", "output"))
    module = DCNv4(
        c["G"] * c["D"],
        groups=c["G"],
        kernel_size=c["k"],
        stride=c["s"],
        padding=c["p"],
        dilation=c["d"],
        offset_scale=c["scale"],
        remove_center=bool(c["rc"]),
    )
    for projection in (module.value_proj, module.output_proj):
        projection.weight.copy_(torch.eye(module.channels))
    assert module.offset_mask.out_features == rows.shape[-1]
    # A layer that is watched is called as a module; the rows that it would give are replaced.
    module.offset_mask.register_forward_hook(lambda *_: rows)
    assert relative_rms(module(x), expected) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(
    ("dw_kernel_size", "pads"),
    # Zeros left, right, above and below; an even window has its middle before the half, as the operator's.
    [(None, None), (3, (1, 1, 1, 1)), ((4, 2), (0, 1, 1, 2))],
)
def test_every_step_written_out(dw_kernel_size: Any, pads: tuple[int, ...] | None) -> None:
    """The whole layer from its weights by PyTorch functions, for an asymmetric kernel; 90 rows are filled up to 96."""
    m = layer({"kernel_size": (3, 5), "dw_kernel_size": dw_kernel_size})
    x = image()
    query = x
    if pads is not None:
        conv = m.offset_mask_dw
        query = F.conv2d(F.pad(x.permute(0, 3, 1, 2), pads), conv.weight, conv.bias, groups=C).permute(0, 2, 3, 1)
    rows = query @ m.offset_mask.weight.T + m.offset_mask.bias
    assert rows.shape[-1] == 96
    each = [rows[..., 45 * g : 45 * (g + 1)] for g in range(G)]
    offset = torch.stack([row[..., :30].unflatten(-1, (15, 2)) for row in each], 3)
    mask = torch.stack([row[..., 30:] for row in each], 3)
    value = (x @ m.value_proj.weight.T + m.value_proj.bias).unflatten(-1, (G, 3))
    out = dcnv3(value, offset, mask, kernel_size=(3, 5), padding=(1, 2), backend="reference").flatten(-2)
    assert_same(m(x), out @ m.output_proj.weight.T + m.output_proj.bias)
    positions, modulations = m.sampling(x)
    assert_same(modulations, mask)
    # The last point of the window of output (4, 6), as (x, y).
    assert_same(positions[1, 4, 6, 1, 14], offset[1, 4, 6, 1, 14] + torch.tensor([6.0 + 2, 4.0 + 1]))


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, (3, 2)])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_stride_takes_every_so_manieth_output(window: str, stride: int | tuple[int, int]) -> None:
    dense, strided = layer(WINDOWS[window]), layer(WINDOWS[window], stride=stride)
    step_y, step_x = (stride, stride) if isinstance(stride, int) else stride
    for size in ((13, 11), (12, 14)):
        assert_same(strided(image(*size)), dense(image(*size))[:, ::step_y, ::step_x])


@torch.no_grad()
@pytest.mark.parametrize("window", WINDOWS)
def test_padding_adds_outputs_and_changes_none(window: str) -> None:
    wide = layer(WINDOWS[window], padding=(4, 5))(image())
    for padding in (0, (2, 0)):
        pad_y, pad_x = (padding, padding) if isinstance(padding, int) else padding
        expected = wide[:, 4 - pad_y : wide.shape[1] - 4 + pad_y, 5 - pad_x : wide.shape[2] - 5 + pad_x]
        assert_same(layer(WINDOWS[window], padding=padding)(image()), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 1 / 9),
        ({"remove_center": True, "dw_kernel_size": 3}, 1 / 8),
        ({"kernel_size": (2, 5), "padding": (0, 2), "stride": 2}, 1 / 10),
        ({"normalize": "softmax", "zero_start": True}, 1 / 9),
    ],
)
def test_the_start_is_an_average_over_the_regular_grid(settings: dict[str, Any], factor: float) -> None:
    module = DCNv4(C, groups=G, **settings)
    g, x = module.geometry, image().float()
    weight = torch.full((C, 1, *g.kernel_size), factor)
    if g.remove_center:
        weight[:, :, 1, 1] = 0
    value = module.value_proj(x).permute(0, 3, 1, 2)
    pooled = F.conv2d(value, weight, None, g.stride, g.padding, g.dilation, groups=C)
    assert relative_rms(module(x), module.output_proj(pooled.permute(0, 2, 3, 1))) < 1e-6


@pytest.mark.parametrize("zero_start", [True, False])
def test_what_the_first_step_teaches(zero_start: bool) -> None:
    """With the released start a fresh layer gives its bias, and the projections have no gradient yet."""
    module, x = DCNv4(C, groups=G, zero_start=zero_start), image().float()
    with torch.no_grad():
        module.output_proj.bias.normal_()
    out = module(x)
    assert torch.equal(out, module.output_proj.bias.expand_as(out)) == zero_start
    out.square().sum().backward()
    learning = {name for name, parameter in module.named_parameters() if parameter.grad.any()}
    modulations = {"offset_mask.weight", "offset_mask.bias", "output_proj.bias"}
    assert learning == (modulations if zero_start else {name for name, _ in module.named_parameters()})
    offsets, _ = module._split(module.offset_mask.bias.grad)
    assert offsets.any() == (not zero_start)


def test_gradients() -> None:
    module = layer({"kernel_size": (3, 2), "dw_kernel_size": 2}, stride=(2, 1))
    assert torch.autograd.gradcheck(module, (image(5, 4)[:1].requires_grad_(),))


@torch.no_grad()
def test_batches_and_autocast() -> None:
    module, x = DCNv4(C, groups=G, dw_kernel_size=3, output_bias=False), image().float()
    assert module(x[:0]).shape == (0, 13, 11, C)
    assert module.output_proj.bias is None
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(x)
    assert low.dtype == torch.bfloat16
    assert relative_rms(low, expected) < 0.02


def test_the_layer_says_what_it_is() -> None:
    assert "8, groups=4, normalize='none'" in repr(DCNv4(8, stride=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 10}, "groups must divide channels, got 4 groups and 10 channels"),
        ({"dw_kernel_size": 0}, "dw_kernel_size must be at least 1"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"kernel_size": 4, "remove_center": True}, "remove_center needs odd kernel sizes"),
        ({"normalize": "softmx"}, "normalize must be one of softmax, sigmoid, none, got 'softmx'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCNv4(**{"channels": 8, **settings})


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 8, 5, 5), r"channels-last, \(N, H, W, 8\), got \(1, 8, 5, 5\)"), ((1, 4, 9, 8), "a map of 4 x 9 gives no")],
)
def test_wrong_inputs(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCNv4(8, kernel_size=5, padding=0)(torch.zeros(shape))
