"""The network on a GPU that is there: run with ``pytest -m gpu``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from internimage import InternImageConfig, create_model
from internimage.model.layers import FeedForward
from support.compare import relative_rms
from support.networks import off_the_grid

pytestmark = pytest.mark.gpu
CONFIGS = {
    "t": InternImageConfig.stacked(32, 16, 1, 2),
    "h": InternImageConfig.stacked(64, 32, 1, 2, res_post_norm=True, center_feature_scale=True, dw_kernel_size=5),
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys must not decide what this machine launches from now on: nothing is timed."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return off_the_grid(create_model(CONFIGS[request.param], num_classes=10)).eval()


def gradients(model: nn.Module, image: Tensor, step: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    """Of all parameters that have one, on the CPU."""
    model.zero_grad()
    (model if step is None else step)(image).float().square().mean().backward()
    return {name: each.grad.cpu().clone() for name, each in model.named_parameters() if each.grad is not None}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Of those found, all in one."""
    whole = (torch.cat([each[name].flatten() for name in found]) for each in (found, expected))
    return relative_rms(*whole)


def test_the_same_as_on_a_cpu(model: nn.Module) -> None:
    image = torch.randn(2, 3, 96, 64)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode():
            expected = model(image)
            assert relative_rms(model.cuda()(image.cuda()).cpu(), expected) < 1e-5
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_compiled_and_autocast(model: nn.Module) -> None:
    model, image = model.cuda(), torch.randn(2, 3, 96, 64, device="cuda")
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        exact = model(image)
        with torch.autocast("cuda", torch.bfloat16):
            eager, fast = model(image), compiled(image)
    assert relative_rms(eager.float(), exact) < 0.05
    assert relative_rms(fast.float(), exact) < 0.05


def test_cuda_graph_replays(model: nn.Module) -> None:
    model, image = model.cuda(), torch.randn(2, 3, 96, 64, device="cuda")
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            model(image)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = model(image)
        image.copy_(torch.randn_like(image))
        graph.replay()
        assert relative_rms(out, model(image)) < 1e-6


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_in_bf16(model: nn.Module, compiled: bool) -> None:
    image = torch.randn(2, 3, 96, 64)
    expected = gradients(model, image)
    model.cuda()
    torch._dynamo.reset()
    step = torch.compile(model, fullgraph=True) if compiled else model
    with torch.autocast("cuda", torch.bfloat16):
        found = gradients(model, image.cuda(), step)
    assert found.keys() == expected.keys()
    assert difference(found, expected) < 0.1


def test_training_in_bf16_with_checkpoints(model: nn.Module) -> None:
    """What is computed again for the backward pass is what it was, autocast and all."""
    # Not the head, whose statistics would be others in training.
    model.backbone.train()
    image = torch.randn(2, 3, 96, 64)
    expected = gradients(model, image)
    model, image = model.cuda(), image.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        plain = gradients(model, image)
        model.set_grad_checkpointing()
        found = gradients(model, image)
    assert found.keys() == expected.keys()
    assert difference(found, expected) < 0.1
    # Sums by atomic additions are not the same twice.
    assert difference(found, plain) < 0.01


@pytest.mark.parametrize("frozen", ["dw_conv", "dw_norm", "dw_", ""], ids=["weight", "norm", "branch", "all"])
def test_frozen_weights(model: nn.Module, frozen: str) -> None:
    """The gradients that are left are what they were, with those of the image."""
    image = torch.randn(2, 3, 96, 64).requires_grad_()
    expected = gradients(model, image)
    assert image.grad is not None
    model = model.cuda()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(frozen not in name)
    on_gpu = image.detach().cuda().requires_grad_()
    found = gradients(model, on_gpu)
    assert found.keys() == {name for name in expected if frozen not in name}
    assert on_gpu.grad is not None
    assert difference(found | {"image": on_gpu.grad.cpu()}, expected | {"image": image.grad}) < 1e-3


def test_a_feed_forward_layer_keeps_its_hidden_map_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = FeedForward(64, 256, "gelu", 0.0).cuda(), torch.randn(4, 56, 56, 64, device="cuda", requires_grad=True)
    kept, slopes = [], []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr("internimage.model.fused._keeps_less_on_gpu", lambda *arguments: False)
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", torch.bfloat16):
            out = layer(x)
        kept.append(torch.cuda.memory_allocated() - before)
        slopes.append(torch.autograd.grad(out.square().mean(), [x, *layer.parameters()]))
        del out
    hidden = 4 * 56 * 56 * 256 * 2
    assert kept[1] - kept[0] >= 0.95 * hidden
    for found, expected in zip(*slopes, strict=True):
        assert relative_rms(found.cpu(), expected.cpu()) <= 2 * torch.finfo(torch.bfloat16).eps
