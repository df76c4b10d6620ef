"""Training with less: the modules' gradients from what little was kept, and derivatives of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from internimage import InternImageConfig
from internimage.model import lean
from internimage.model.backbone import Block
from internimage.model.fused import depthwise, feed_forward, linear
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
ACTIVATIONS = [nn.GELU(), nn.ReLU(), nn.SiLU()]
Function = Callable[[Tensor], Tensor]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that came this way."""
    made: list[str] = []
    for name in ("linear", "feed_forward", "depthwise"):
        function = getattr(lean, name)
        monkeypatch.setattr(lean, name, lambda *a, name=name, function=function: made.append(name) or function(*a))
    return made


def pairs(activation: nn.Module, bias: bool = True) -> dict[str, tuple[nn.ModuleList, Function, Function, Tensor]]:
    """Name: layers, ours, the modules themselves, input."""
    one, two = nn.Linear(12, 20, bias=bias), nn.Linear(20, 7, bias=bias)
    conv, norm = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=bias), nn.LayerNorm(12)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 6, 12)
    return {
        "linear": (nn.ModuleList([one]), lambda x: linear(x, one), one, x),
        "feed_forward": (
            nn.ModuleList([one, two]),
            lambda x: feed_forward(x, one, activation, two),
            lambda x: two(activation(one(x))),
            x,
        ),
        "depthwise": (
            nn.ModuleList([conv, norm]),
            lambda x: depthwise(x, conv, norm, activation),
            lambda x: activation(norm(conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))),
            x,
        ),
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("name", ["linear", "feed_forward", "depthwise"])
def test_gradients_are_the_modules(name: str, activation: nn.Module, bias: bool, calls: list[str]) -> None:
    layers, ours, modules, x = pairs(activation, bias)[name]
    x.requires_grad_()
    output = ours(x)
    grad = torch.randn(output.shape)
    inputs = [x, *layers.parameters()]
    found = torch.autograd.grad(output, inputs, grad)
    assert calls == [name]
    layers.double()
    exact_x = x.detach().double().requires_grad_()
    exact_output = modules(exact_x)
    exact = torch.autograd.grad(exact_output, [exact_x, *layers.parameters()], grad.double())
    assert relative_rms(output, exact_output) <= 1e-6
    assert all(relative_rms(f, e) <= 2e-6 for f, e in zip(found, exact, strict=True))


@pytest.mark.parametrize("name", ["linear", "feed_forward", "depthwise"])
def test_only_what_is_asked_for(name: str, calls: list[str]) -> None:
    """Every choice of one tensor to differentiate, and a gradient that is one number seen many times."""
    layers, ours, modules, x = pairs(nn.GELU())[name]
    for chosen in (x, *layers.parameters()):
        for each in (x, *layers.parameters()):
            each.requires_grad_(each is chosen)
        (found,) = torch.autograd.grad(ours(x).square().mean(), [chosen])
        (expected,) = torch.autograd.grad(modules(x).square().mean(), [chosen])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        (found,), (expected,) = (torch.autograd.grad(f(x).sum(), [chosen]) for f in (ours, modules))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert set(calls) == {name}


@pytest.mark.parametrize("name", ["linear", "feed_forward", "depthwise"])
def test_derivatives_of_derivatives(name: str, calls: list[str]) -> None:
    layers, ours, modules, x = pairs(nn.GELU())[name]
    x.requires_grad_()
    found, expected = [], []
    for function, into in ((ours, found), (modules, expected)):
        (slope,) = torch.autograd.grad(function(x).square().sum(), [x], create_graph=True)
        into += torch.autograd.grad(slope.square().sum(), [x, *layers.parameters()], allow_unused=True)
    assert calls == [name]
    for f, e in zip(found, expected, strict=True):
        assert (f is None or not f.any()) if e is None else relative_rms(f, e) <= 1e-5


def test_whoever_needs_the_modules_gets_them(calls: list[str]) -> None:
    seen: list[object] = []
    for layers, ours, _, x in pairs(nn.GELU()).values():
        for layer in layers:
            hook = layer.register_full_backward_hook(lambda *arguments: seen.append(arguments))
            ours(x.requires_grad_()).sum().backward()
            hook.remove()
        with torch.autocast("cpu", torch.bfloat16):
            ours(x)
        layers.double()
        ours(x.double())
        layers.float()
    assert len(seen) == 5
    # The layer that nobody watches may still go this way.
    assert set(calls) <= {"linear"}


def kept_maps(block: Block, x: Tensor) -> float:
    """Numbers kept for the backward pass besides the parameters, in maps of the block's width."""
    own = {parameter.data_ptr() for parameter in block.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = block(x)
    assert output.requires_grad
    return sum(size for pointer, size in kept.items() if pointer not in own) / x.numel()


def test_a_block_keeps_what_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InternImageConfig.from_variant("t")
    block, x = Block(config, 0, 0.0), torch.randn(1, 16, 16, config.channels, requires_grad=True)
    assert kept_maps(block, x) == pytest.approx(12.7, abs=0.15)
    monkeypatch.setattr("internimage.model.fused._are_plain", lambda *arguments: False)
    assert kept_maps(block, x) == pytest.approx(18.7, abs=0.15)


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed-forward layer goes the way of a GPU; what it computes there is the same on a CPU."""
    monkeypatch.setattr("internimage.model.fused._keeps_less_on_gpu", lambda *arguments: True)


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_a_feed_forward_layer_on_a_gpu(activation: nn.Module, bias: bool, calls: list[str]) -> None:
    layers, ours, _, x = pairs(activation, bias)["feed_forward"]
    layers.double()
    inputs = [x.double().requires_grad_(), *layers.parameters()]
    assert torch.autograd.gradcheck(lambda *_: ours(inputs[0]), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *_: ours(inputs[0]), inputs, fast_mode=True)
    assert set(calls) == {"feed_forward"}


@pytest.mark.usefixtures("as_on_gpu")
def test_a_feed_forward_layer_under_autocast(calls: list[str]) -> None:
    """Parameters stay in float32, and so do their gradients; a 16-bit map and the hidden one are kept, nothing else."""
    layers, ours, modules, x = pairs(nn.GELU())["feed_forward"]
    inputs, kept = [x.requires_grad_(), *layers.parameters()], []
    with torch.autocast("cpu", torch.bfloat16):
        expected = modules(x)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            output = ours(x)
    assert calls == ["feed_forward"]
    assert torch.equal(output, expected)
    pointers = {parameter.data_ptr() for parameter in layers.parameters()}
    shapes = sorted((each.shape[-1], each.dtype) for each in kept if each.data_ptr() not in pointers)
    assert shapes == [(12, torch.bfloat16), (20, torch.bfloat16)]
    grad = torch.randn(output.shape).bfloat16()
    found, wanted = (torch.autograd.grad(each, inputs, grad) for each in (output, expected))
    assert {each.dtype for each in found} == {torch.float32}
    for f, w in zip(found, wanted, strict=True):
        assert relative_rms(f, w) <= 2 * torch.finfo(torch.bfloat16).eps
