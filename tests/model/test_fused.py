"""Layers in one call: the same numbers, and out of everyone's way who changes or watches a layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from internimage.model import fused, lean
from internimage.model.fused import depthwise, linear
from internimage.ops.dcnv3 import cpu
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The activations of the oneDNN calls that are made."""
    made: list[str] = []

    product = lean.product

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
        made.append(activation)
        return product(x, weight, bias, activation)

    monkeypatch.setattr(lean, "product", watched)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, nn.GELU(), nn.ReLU(), nn.SiLU()], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_numbers(activation: nn.Module | None, bias: bool, dtype: torch.dtype, calls: list[str]) -> None:
    layer = nn.Linear(20, 33, bias=bias).to(dtype)
    x = torch.randn(2, 5, 7, 20).to(dtype)
    for each in (x, x.transpose(1, 2), x[0, 0, 0], x[:, :1, :1]):
        with torch.inference_mode():
            found = linear(each, layer, activation)
        exact = layer.double()(each.double())
        expected = exact if activation is None else activation(exact)
        layer.to(dtype)
        assert found.shape == expected.shape
        assert found.dtype == dtype
        assert relative_rms(found, expected) <= (1e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)
    assert len(calls) == (4 if dtype in fused._LINEAR_DTYPES else 0)


@pytest.mark.parametrize("activation", [None, nn.GELU()], ids=str)
def test_autocast_chooses_the_dtype(activation: nn.Module | None, calls: list[str]) -> None:
    layer, x = nn.Linear(20, 33), torch.randn(3, 20)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for each in (x, x.bfloat16()):
            found, expected = linear(each, layer, activation), layer(each)
            expected = expected if activation is None else activation(expected)
            assert found.dtype == expected.dtype == torch.bfloat16
            assert relative_rms(found, expected) <= 2 * torch.finfo(torch.bfloat16).eps
        assert linear(x.double(), layer.double()).dtype == torch.float64
    assert len(calls) == (2 if torch.bfloat16 in fused._LINEAR_DTYPES else 0)


def test_an_empty_batch(calls: list[str]) -> None:
    with torch.no_grad():
        assert linear(torch.zeros(0, 4), nn.Linear(4, 3), nn.GELU()).shape == (0, 3)
    assert calls == []


def test_whoever_needs_the_module_gets_it(calls: list[str]) -> None:
    """Each of these would be passed over in silence by the short way."""
    layer, x = nn.Linear(4, 3), torch.randn(2, 4)
    layer.requires_grad_(False)

    class Adapter(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    with torch.no_grad():
        assert torch.equal(linear(x, Adapter(4, 3).requires_grad_(False)) * 0, torch.zeros(2, 3))
        seen: list[object] = []
        with layer.register_forward_hook(lambda *arguments: seen.append(arguments)):
            linear(x, layer)
        with layer.register_forward_pre_hook(lambda *arguments: seen.append(arguments)):
            linear(x, layer)
        act = nn.GELU()
        with act.register_forward_hook(lambda *arguments: seen.append(arguments)):
            linear(x, layer, act)
        with nn.modules.module.register_module_forward_hook(lambda *arguments: seen.append(arguments)):
            linear(x, layer)
        assert len(seen) == 4
        assert torch.equal(linear(x, layer, nn.GELU(approximate="tanh")), nn.GELU(approximate="tanh")(layer(x)))
        assert torch.equal(linear(x, layer, nn.Tanh()), layer(x).tanh())
        with torch.autocast("cpu", torch.float16):
            assert linear(x, layer).dtype == torch.float16
        assert linear(x.double(), layer.double()).dtype == torch.float64
        layer.float()
        assert linear(x.to("meta"), layer.to("meta")).is_meta
        assert calls == []
        assert not linear(x, nn.Linear(4, 3)).requires_grad
        assert calls == ["none"]


def test_transforms_and_the_compiler_see_the_module(calls: list[str]) -> None:
    layer, x = nn.Linear(4, 3).requires_grad_(False), torch.randn(5, 2, 4)
    assert torch.func.vmap(lambda each: linear(each, layer))(x).shape == (5, 2, 3)
    compiled = torch.compile(lambda each: linear(each, layer, nn.GELU()), backend="eager", fullgraph=True)
    assert compiled(x).shape == (5, 2, 3)
    assert calls == []


class Both(nn.Module):
    """A linear layer after the separable branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = convolution(8, 3, padding=1)
        self.act, self.fc = nn.GELU(), nn.Linear(8, 5)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        return linear(depthwise(x_NHWC, self.conv, self.norm, self.act), self.fc, self.act)


def test_one_compiled_graph_has_the_same_calls_but_none_for_export(calls: list[str]) -> None:
    module, x = Both().eval(), torch.randn(2, 4, 5, 8)
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(str(graph.graph))
        return graph

    compiled = torch.compile(module, backend=keep, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))
        exported = torch.export.export(module, (x,))
    (graph,) = graphs
    assert "internimage.linear" in graph
    assert "internimage_cpu.branch" in graph
    assert calls == ["gelu"]
    assert "internimage" not in str(exported.graph)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert compiled(x).dtype == torch.bfloat16
    assert "internimage" not in graphs[1]
    compiled(x).sum().backward()
    assert module.fc.weight.grad is not None
    assert "internimage" not in graphs[2]


def test_its_flops_are_counted() -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear(torch.randn(2, 5, 4), nn.Linear(4, 3))
    assert counter.get_total_flops() == 2 * 10 * 4 * 3


def convolution(channels: int, kernel: int | tuple[int, int] = 3, **settings: object) -> tuple[nn.Conv2d, nn.LayerNorm]:
    """A depth-wise convolution and a normalisation, with parameters of order one."""
    conv, norm = nn.Conv2d(channels, channels, kernel, groups=channels, **settings), nn.LayerNorm(channels, eps=1e-6)
    for parameter in (*conv.parameters(), *norm.parameters()):
        nn.init.normal_(parameter)
    return conv.requires_grad_(False), norm.requires_grad_(False)


def in_modules(x_NHWC: Tensor, conv: nn.Module, norm: nn.Module, activation: nn.Module) -> Tensor:
    return activation(norm(conv(x_NHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))


# (N, H, W, C), kernel, stride, padding: whole and part vectors of channels, whole and part tiles of 7 columns.
MAPS = [
    ((2, 5, 14, 64), 3, 1, 1),
    ((1, 9, 8, 33), 3, 1, 1),
    ((1, 6, 6, 3), 3, 1, 0),
    ((2, 7, 9, 17), 3, 2, 1),
    ((1, 10, 23, 48), 5, 1, 2),
    ((1, 1, 1, 16), 3, 1, 1),
    ((1, 6, 4, 12), (2, 3), (2, 1), (0, 2)),
    ((3, 8, 16, 130), 5, (1, 2), 0),
]


@pytest.mark.parametrize("activation", [nn.GELU(), nn.ReLU(), nn.SiLU()], ids=str)
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), MAPS, ids=str)
def test_depthwise_in_modules(
    shape: tuple[int, ...], kernel: int, stride: int, padding: int, activation: nn.Module
) -> None:
    conv, norm = convolution(shape[3], kernel, stride=stride, padding=padding)
    x = torch.randn(shape)
    exact = in_modules(x.double(), conv.double(), norm.double(), activation)
    assert relative_rms(depthwise(x.double(), conv, norm, activation), exact) <= 1e-14
    conv, norm = conv.float(), norm.float()
    for level in range(len(cpu.INSTRUCTION_SETS)):
        assert relative_rms(fused_on(level, x, conv, norm, activation), exact) <= 1e-6
    for dtype in (torch.bfloat16, torch.float16):
        short = x.to(dtype)
        exact = in_modules(short.double(), conv.double(), norm.double(), activation)
        found = depthwise(short, conv.float(), norm.float(), activation)
        assert found.dtype == dtype
        assert relative_rms(found, exact) <= 2 * torch.finfo(dtype).eps


def fused_on(level: int, x: Tensor, conv: nn.Conv2d, norm: nn.LayerNorm, activation: nn.Module) -> Tensor:
    """On no more than an instruction set: an index into `cpu.INSTRUCTION_SETS`."""
    name = type(activation).__name__.lower()
    parameters = conv.weight, conv.bias, norm.weight, norm.bias, norm.eps
    return torch.ops.internimage_cpu.branch(x, *parameters, conv.stride, conv.padding, name, level)


def test_activations_of_extreme_numbers() -> None:
    """With a weight of 0, the normalisation's bias alone is what they are given."""
    wide = torch.tensor([-1e38, -200.0, -88.0, -9.0, -5.5, -1.0, -1e-30, 0.0, 1e-30, 3.0, 9.0, 1e38, torch.nan])
    conv, norm = convolution(len(wide), 1)
    nn.init.zeros_(norm.weight)
    norm.bias.copy_(wide)
    for activation, limit in ((nn.GELU(), 3e-7), (nn.SiLU(), 3e-7), (nn.ReLU(), 0.0)):
        found = depthwise(torch.randn(1, 1, 1, len(wide)), conv, norm, activation).flatten()
        torch.testing.assert_close(found.double(), activation(wide.double()), rtol=3e-7, atol=limit, equal_nan=True)


def test_depthwise_is_the_same_for_any_number_of_threads() -> None:
    conv, norm = convolution(24, 3, padding=1)
    x, before = torch.randn(3, 11, 9, 24), torch.get_num_threads()
    outputs: list[Tensor] = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(depthwise(x, conv, norm, nn.GELU()))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_whoever_needs_the_modules_of_the_branch_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, norm = convolution(8, 3, padding=1)
    x, act = torch.randn(1, 4, 5, 8), nn.GELU()
    taken: list[Tensor] = []
    monkeypatch.setattr(cpu, "why_not", lambda value: taken.append(value))
    depthwise(x, conv, norm, act)
    assert len(taken) == 1
    seen: list[object] = []
    for module in (conv, norm, act):
        with module.register_forward_hook(lambda *arguments: seen.append(arguments)):
            depthwise(x, conv, norm, act)
    assert len(seen) == 3
    compiled = torch.compile(lambda each: depthwise(each, conv, norm, act), backend="eager", fullgraph=True)
    assert compiled(x).shape == x.shape
    assert torch.func.vmap(lambda each: depthwise(each, conv, norm, act))(x[None]).shape == (1, *x.shape)
    with FlopCounterMode(display=False) as counter:
        depthwise(x, conv, norm, act)
    assert counter.get_total_flops() == 2 * 20 * 9 * 8
    others = (
        (nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False), norm),
        (convolution(8, 3, padding=2, dilation=2)[0], norm),
        (convolution(8, 3, padding=1, padding_mode="reflect")[0], norm),
        (convolution(8, 3, padding="same")[0], norm),
        (conv, nn.LayerNorm(8, elementwise_affine=False)),
        (conv, nn.LayerNorm((5, 8)).requires_grad_(False)),
        (conv, nn.Identity()),
    )
    for other, another in others:
        expected = in_modules(x, other, another, act)
        assert torch.equal(depthwise(x, other, another, act), expected)
    assert torch.equal(depthwise(x, conv, norm, nn.GELU("tanh")), in_modules(x, conv, norm, nn.GELU("tanh")))
    with pytest.raises(RuntimeError):
        depthwise(x[:, :1, :1], convolution(8, 3)[0], norm, act)
    assert len(taken) == 1
