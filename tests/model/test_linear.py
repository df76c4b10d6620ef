"""The short way through linear layers: the same numbers, and out of everyone's way who changes or watches a layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from internimage.model import linear as module
from internimage.model.linear import linear
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The activations of the oneDNN calls that are made."""
    made: list[str] = []

    class Watched:
        @staticmethod
        def _linear_pointwise(x: Tensor, weight: Tensor, bias: Tensor, name: str, *rest: object) -> Tensor:
            made.append(name)
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, *rest)

    monkeypatch.setattr(module, "_MKLDNN", Watched)
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
    assert len(calls) == 4


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
    assert len(calls) == 2


def test_an_empty_batch(calls: list[str]) -> None:
    with torch.no_grad():
        assert linear(torch.zeros(0, 4), nn.Linear(4, 3), nn.GELU()).shape == (0, 3)
    assert calls == []


def test_whoever_needs_the_module_gets_it(calls: list[str]) -> None:
    """Each of these would be passed over in silence by the short way."""
    layer, x = nn.Linear(4, 3), torch.randn(2, 4)
    assert linear(x, layer).requires_grad
    assert linear(x.requires_grad_(), layer.requires_grad_(False)).requires_grad
    x = x.detach()

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


def test_its_flops_are_counted() -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear(torch.randn(2, 5, 4), nn.Linear(4, 3))
    assert counter.get_total_flops() == 2 * 10 * 4 * 3
