"""Training a network: gradients reach every parameter, drop path, gradient checkpointing, compilation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from internimage import InternImageConfig, create_model
from internimage.model.backbone import drop_path_rates
from internimage.model.layers import DropPath, FeedForward
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
Randomise = Callable[..., nn.Module]


def backward(model: nn.Module, size: tuple[int, int] = (65, 71)) -> dict[str, Tensor | None]:
    """Gradients by name, of a loss that weighs every output differently."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(2, 3, *size, generator=generator)
    logits = model(image)
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def zeros(*tensors: Tensor) -> list[float]:
    """The share of zeros in each."""
    return [float((tensor == 0).double().mean()) for tensor in tensors]


def without_gradient(gradients: dict[str, Tensor | None]) -> set[str]:
    return {name for name, grad in gradients.items() if grad is None or not grad.count_nonzero()}


def test_the_loss_reaches_every_parameter(form: InternImageConfig, randomise: Randomise) -> None:
    gradients = backward(randomise(create_model(form)))
    assert without_gradient(gradients) == set()
    assert all(grad.isfinite().all() for grad in gradients.values())


def test_at_the_start_only_what_zeros_hide_gets_no_gradient(form: InternImageConfig) -> None:
    """Offsets and modulations start at zero, so the branch that computes them can't learn in the first step."""
    silent = without_gradient(backward(create_model(form)))
    branch = {"dcnv3": ("dw_conv", "dw_norm"), "dcnv4": ("offset_mask_dw",)}[form.core]
    assert {name.split(".dcn.")[-1] for name in silent} == {
        f"{layer}.{kind}" for layer in branch for kind in ("weight", "bias")
    }


def test_features_only_learns_too(form: InternImageConfig, randomise: Randomise) -> None:
    model = randomise(create_model(form, features_only=True))
    sum(map_NCHW.square().sum() for map_NCHW in model(torch.rand(1, 3, 65, 71))).backward()
    assert without_gradient({name: parameter.grad for name, parameter in model.named_parameters()}) == set()


def test_gradients_are_those_of_finite_differences(base: InternImageConfig, randomise: Randomise) -> None:
    """One directional derivative of the whole network in float64, through all parameters at once."""
    model = randomise(create_model(base)).double().eval()
    image, weights = torch.rand(1, 3, 33, 31, dtype=torch.float64), torch.rand(10, dtype=torch.float64)
    (model(image) * weights).sum().backward()
    directions = [torch.randn_like(parameter) for parameter in model.parameters()]
    expected = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), directions, strict=True))
    step, values = 1e-8, []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter += sign * step * direction
            values.append(float((model(image) * weights).sum()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)


def test_drop_path_acts_in_training_only(base: InternImageConfig, randomise: Randomise) -> None:
    model = randomise(create_model(replace(base, drop_path_rate=0.5)))
    plain = create_model(base)
    plain.load_state_dict(model.state_dict())
    image = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model.backbone(image)[3], model.backbone(image)[3])
        assert torch.equal(model.eval()(image), plain.eval()(image))
        assert torch.equal(plain.train().backbone(image)[3], plain.backbone(image)[3])


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    dropped = DropPath(0.25)(torch.ones(4000, 2, 3))
    kept = dropped[:, 0, 0] > 0
    assert torch.equal(dropped, (kept / 0.75)[:, None, None].expand(-1, 2, 3))
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(DropPath(0.25).eval()(torch.ones(3)), torch.ones(3))


def test_drop_path_schedules(base: InternImageConfig) -> None:
    linear = drop_path_rates(replace(base, drop_path_rate=0.5))
    assert linear == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert drop_path_rates(replace(base, drop_path_rate=0.5, drop_path_schedule="uniform")) == [0.5] * 6
    model = create_model(replace(base, drop_path_rate=0.5))
    assert [layer.rate for layer in model.modules() if isinstance(layer, DropPath)] == linear


def test_dropout_acts_in_training_only(base: InternImageConfig) -> None:
    model = create_model(replace(base, drop_rate=0.5), features_only=True)
    image = torch.rand(1, 3, 32, 32)
    assert not torch.equal(model(image)[0], model(image)[0])
    shares: list[float] = []
    model.stages[0].register_forward_pre_hook(lambda _, inputs: shares.extend(zeros(*inputs)))
    model(image)
    assert torch.equal(model.eval()(image)[0], model(image)[0])
    # After the stem: half of the values in training, none of them in prediction.
    assert shares == pytest.approx([0.5, 0, 0], abs=0.1)


def test_dropout_in_the_feed_forward_layer() -> None:
    layer, shares = FeedForward(16, 32, "gelu", 0.5), list[float]()
    layer.fc2.register_forward_pre_hook(lambda _, inputs: shares.extend(zeros(*inputs)))
    layer.register_forward_hook(lambda _, inputs, output: shares.extend(zeros(output)))
    layer(torch.rand(200, 16))
    layer.eval()(torch.rand(200, 16))
    assert shares == pytest.approx([0.5, 0.5, 0, 0], abs=0.1)


def test_gradient_checkpointing_changes_nothing_but_memory(form: InternImageConfig, randomise: Randomise) -> None:
    """Also under drop path and dropout: the recomputation draws the same random numbers."""
    model = randomise(create_model(replace(form, drop_path_rate=0.3, drop_rate=0.1)))
    frugal = copy.deepcopy(model)
    frugal.set_grad_checkpointing()
    kept: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.numel()
        return tensor

    gradients = []
    for each in (model, frugal):
        kept.append(0)
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            gradients.append(backward(each))
    assert kept[1] < 0.85 * kept[0]
    assert gradients[0].keys() == gradients[1].keys()
    worst = {name: relative_rms(gradients[1][name], grad) for name, grad in gradients[0].items()}
    assert max(worst.values()) <= 1e-6, worst


def test_gradient_checkpointing_is_a_setting_and_a_switch(base: InternImageConfig) -> None:
    model = create_model(base, gradient_checkpointing=True)
    assert [stage.gradient_checkpointing for stage in model.backbone.stages] == [True] * 4
    model.set_grad_checkpointing(False)
    assert [stage.gradient_checkpointing for stage in model.backbone.stages] == [False] * 4


def test_bf16_autocast_trains(form: InternImageConfig, randomise: Randomise) -> None:
    model = randomise(create_model(form))
    with torch.autocast("cpu", torch.bfloat16):
        gradients = backward(model)
    assert without_gradient(gradients) == set()
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in gradients.values())


def test_a_few_steps_lower_the_loss(base: InternImageConfig) -> None:
    model = create_model(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    losses: list[float] = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses


@torch.no_grad()
def check_compiles(model: nn.Module, example: Any, others: list[Any], dynamic: bool | None = True) -> None:
    """One graph, compiled once for ``example``, serves ``others`` as well."""
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="eager")
    compiled(example)
    with torch.compiler.set_stance("fail_on_recompile"):
        for each in others:
            assert relative_rms(compiled(each), model(each)) < 1e-6


def test_compiles_as_one_graph_for_all_batches(base: InternImageConfig, randomise: Randomise) -> None:
    example = torch.rand(2, 3, 64, 96)
    torch._dynamo.mark_dynamic(example, 0)
    model = randomise(create_model(base, depths=(1, 1, 1, 1))).eval()
    check_compiles(model, example, [torch.rand(5, 3, 64, 96)], None)


def test_stages_compile_as_one_graph_for_all_sizes(base: InternImageConfig, randomise: Randomise) -> None:
    backbone = randomise(create_model(base, features_only=True)).eval()
    part = nn.Sequential(backbone.stem, backbone.stages[0])
    check_compiles(part, torch.rand(2, 3, 64, 96), [torch.rand(5, 3, 40, 33), torch.rand(3, 3, 65, 47)])


@pytest.mark.parametrize("head", ["conv", "clip"])
def test_heads_compile_as_one_graph_for_odd_and_even_maps(
    head: str, base: InternImageConfig, randomise: Randomise
) -> None:
    def maps(batch: int, height: int, width: int) -> list[Tensor]:
        third = torch.rand(batch, height, width, 64)
        return [third, third, third, torch.rand(batch, (height + 1) // 2, (width + 1) // 2, 128)]

    model = randomise(create_model(base, head=head)).eval()
    # All sizes differ: torch.compile takes equal ones for the same.
    check_compiles(model.head, maps(5, 12, 16), [maps(3, 9, 14), maps(2, 13, 17), maps(4, 10, 7)])


@pytest.mark.slow
def test_networks_compile_as_one_graph_for_all_sizes(form: InternImageConfig, randomise: Randomise) -> None:
    model = randomise(create_model(form)).eval()
    check_compiles(model, torch.rand(2, 3, 64, 96), [torch.rand(5, 3, 40, 33), torch.rand(3, 3, 65, 47)])


@torch.no_grad()
@pytest.mark.slow
def test_networks_export_with_all_sizes(form: InternImageConfig, randomise: Randomise) -> None:
    """From 33 pixels on: torch.export takes a map of one pixel for a constant."""
    model = randomise(create_model(form)).eval()
    dim = torch.export.Dim
    sizes = {0: dim("batch"), 2: dim("height", min=33), 3: dim("width", min=33)}
    program = torch.export.export(model, (torch.rand(2, 3, 64, 96),), dynamic_shapes={"image_NCHW": sizes})
    for size in ((5, 3, 40, 33), (3, 3, 65, 47), (1, 3, 97, 64)):
        image = torch.rand(size)
        assert relative_rms(program.module()(image), model(image)) < 1e-6
