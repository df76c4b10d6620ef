"""The network on a GPU that is there: run with ``pytest -m gpu``."""

from __future__ import annotations

import pytest
import torch

from internimage import InternImageConfig, create_model
from support.compare import relative_rms

pytestmark = pytest.mark.gpu
CONFIGS = {
    "t": InternImageConfig.stacked(32, 16, 1, 2),
    "h": InternImageConfig.stacked(64, 32, 1, 2, res_post_norm=True, center_feature_scale=True, dw_kernel_size=5),
}


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return create_model(CONFIGS[request.param], num_classes=10).eval()


def test_the_same_as_on_a_cpu(model: torch.nn.Module) -> None:
    image = torch.randn(2, 3, 96, 64)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode():
            expected = model(image)
            assert relative_rms(model.cuda()(image.cuda()).cpu(), expected) < 1e-5
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_compiled_and_autocast(model: torch.nn.Module) -> None:
    model, image = model.cuda(), torch.randn(2, 3, 96, 64, device="cuda")
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        exact = model(image)
        with torch.autocast("cuda", torch.bfloat16):
            eager, fast = model(image), compiled(image)
    assert relative_rms(eager.float(), exact) < 0.05
    assert relative_rms(fast.float(), exact) < 0.05


def test_cuda_graph_replays(model: torch.nn.Module) -> None:
    model, image = model.cuda(), torch.randn(2, 3, 96, 64, device="cuda")
    with torch.inference_mode():
        stream = torch.cuda.Stream()
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
def test_gradients_in_bf16(model: torch.nn.Module, compiled: bool) -> None:
    image = torch.randn(2, 3, 96, 64)
    model(image).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    model.cuda()
    torch._dynamo.reset()
    step = torch.compile(model, fullgraph=True) if compiled else model
    with torch.autocast("cuda", torch.bfloat16):
        out = step(image.cuda())
    out.float().square().mean().backward()
    found = [parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None]
    whole = (torch.cat([each.flatten() for each in grads]) for grads in (found, expected))
    assert relative_rms(*whole) < 0.1
