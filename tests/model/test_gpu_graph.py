"""The network as compilers see it for a GPU: one graph, its kernels in it, no map copied to another layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses import FakeTensor, FakeTensorMode

from internimage import InternImageConfig, create_model
from internimage.model import fused

pytestmark = pytest.mark.usefixtures("hopper")


def on_fake_gpu(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """In place; only under a `FakeTensorMode`."""
    for module in model.modules():
        for name, each in module._parameters.items():
            if each is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(each, device="cuda", dtype=dtype))
        for name, each in module._buffers.items():
            if each is not None:
                module._buffers[name] = torch.empty_like(each, device="cuda")
    return model


def graph_of(
    model: nn.Module, image: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype = torch.bfloat16
) -> list[torch.fx.Node]:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    torch._dynamo.reset()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        compiled = torch.compile(
            on_fake_gpu(model.eval(), dtype),
            backend=aot_autograd(fw_compiler=keep, inference_compiler=keep),
            fullgraph=True,
        )
        compiled(torch.empty(image, device="cuda", dtype=dtype))
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
        # Its norms come last, as one of the next test's.
        pytest.param({"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0}, marks=pytest.mark.slow),
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


@pytest.fixture
def autocast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In bfloat16 on a GPU that is not there: torch.autocast would find none."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", before)
    torch.clear_autocast_cache()


@pytest.mark.usefixtures("autocast")
@pytest.mark.parametrize("changes", [{}, {"post_norm": True}], ids=["norm_first", "norm_last"])
def test_autocast_rounds_a_map_once(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer normalisation gives float32: its map is rounded for branch and projection together."""
    config = InternImageConfig.stacked(32, 16, 1, 1, **changes)
    nodes = graph_of(create_model(config, num_classes=10), (2, 3, 64, 96), monkeypatch, torch.float32)
    launches = [node for node in nodes if "triton_kernel_wrapper" in str(node.target)]
    maps = [node.kwargs["kwargs"]["x_ptr"] for node in launches if "x_ptr" in node.kwargs["kwargs"]]
    assert [each.meta["val"].dtype for each in maps] == [torch.bfloat16] * sum(config.depths)
    rounded = [node.args[0] for node in nodes if node.target is torch.ops.aten._to_copy.default]
    assert len(rounded) == len(set(rounded))


def test_views_in_place_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP hands out views of its one parameter during forward: no reason for the long way."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    # The plain tensors of this GPU are fake ones.
    monkeypatch.setattr(fused, "Tensor", FakeTensor)
    taken: list[Any] = []
    monkeypatch.setattr(fused, "depthwise_branch", lambda x, *_: taken.append(x))
    with FakeTensorMode():
        x = torch.empty(2, 6, 5, 8, device="cuda", dtype=torch.bfloat16)
        conv, norm = (on_fake_gpu(each) for each in (nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.LayerNorm(8)))
        parameters = [dict(each.named_parameters()) for each in (conv, norm)]
    for views in (False, True):
        for layer, own in zip((conv, norm), parameters, strict=True):
            for name, each in own.items():
                layer._parameters[name] = each.view(each.shape) if views else each
        fused.depthwise(x, conv, norm, nn.GELU())
    # Without use_orig_params they are plain attributes.
    for layer in (conv, norm):
        for name in list(layer._parameters):
            object.__setattr__(layer, name, layer._parameters.pop(name))
    fused.depthwise(x, conv, norm, nn.GELU())
    assert len(taken) == 3


def test_kernels_of_many_taps_stay_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InternImageConfig.stacked(32, 16, 1, 1, dw_kernel_size=9)
    nodes = graph_of(create_model(config, num_classes=10), (2, 3, 64, 96), monkeypatch)
    launches = [node for node in nodes if "triton_kernel_wrapper" in str(node.target)]
    assert len(launches) == sum(config.depths)


def test_watched_layers_stay_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InternImageConfig.stacked(32, 16, 1, 1)
    model = create_model(config, num_classes=10)
    depthwise = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    depthwise[0].register_forward_hook(lambda *_: None)
    nodes = graph_of(model, (2, 3, 64, 96), monkeypatch)
    launches = [node for node in nodes if "triton_kernel_wrapper" in str(node.target)]
    assert len(launches) == 2 * sum(config.depths) - 1
