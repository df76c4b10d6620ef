"""The network as compilers see it for a GPU: one graph, its kernels in it, no map copied to another layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses import FakeTensorMode

from internimage import InternImageConfig, create_model

pytestmark = pytest.mark.usefixtures("hopper")


def on_fake_gpu(model: nn.Module) -> nn.Module:
    """In place; only under a `FakeTensorMode`."""
    for module in model.modules():
        for name, each in module._parameters.items():
            if each is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(each, device="cuda", dtype=torch.bfloat16))
        for name, each in module._buffers.items():
            if each is not None:
                module._buffers[name] = torch.empty_like(each, device="cuda")
    return model


def graph_of(model: nn.Module, image: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.Node]:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    torch._dynamo.reset()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        compiled = torch.compile(
            on_fake_gpu(model.eval()), backend=aot_autograd(fw_compiler=keep, inference_compiler=keep), fullgraph=True
        )
        compiled(torch.empty(image, device="cuda", dtype=torch.bfloat16))
    (graph,) = graphs
    return [node for node in graph.graph.nodes if node.op == "call_function"]


def copies(nodes: list[torch.fx.Node]) -> list[tuple[int, ...]]:
    """Shapes of what is copied, the depth-wise weights apart, which are a few kilobytes."""
    names = ("aten.clone", "aten._to_copy", "aten.copy")
    shapes = [tuple(node.meta["val"].shape) for node in nodes if str(node.target).startswith(names)]
    return [shape for shape in shapes if len(shape) != 2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0},
        {"res_post_norm": True, "center_feature_scale": True, "dw_kernel_size": 5, "remove_center": True},
    ],
    ids=["t", "xl", "h"],
)
def test_two_kernels_a_block_and_one_copy(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is copied is the image, on its way to channels-last."""
    config = InternImageConfig.stacked(32, 16, 1, 2, **changes)
    nodes = graph_of(create_model(config, num_classes=10), (2, 3, 64, 96), monkeypatch)
    launches = [node for node in nodes if "triton_kernel_wrapper" in str(node.target)]
    assert len(launches) == 2 * sum(config.depths)
    assert {tuple(node.kwargs["tensors_to_clone"]) for node in launches} == {("out_ptr",)}
    assert copies(nodes) == [(2, 3, 64, 96)]
    # The stem's, the downsampling layers' and the head's convolutions; none is depth-wise.
    groups = [node.args[8] for node in nodes if node.target is torch.ops.aten.convolution.default]
    assert groups == [1] * (2 + 3 + 1)


def test_watched_layers_stay_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InternImageConfig.stacked(32, 16, 1, 2)
    model = create_model(config, num_classes=10)
    depthwise = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    depthwise[0].register_forward_hook(lambda *_: None)
    nodes = graph_of(model, (2, 3, 64, 96), monkeypatch)
    launches = [node for node in nodes if "triton_kernel_wrapper" in str(node.target)]
    assert len(launches) == 2 * sum(config.depths) - 1
