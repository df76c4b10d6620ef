"""The composite backbone: the links' arithmetic by hand, gradients, sizes, precision, and the released code's maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from internimage import InternImageConfig
from internimage.model.backbone import InternImage
from internimage.model.checkpoints.official.composite import composite_to_ours
from internimage.model.composite import CompositeInternImage
from internimage.model.composite.network import half_rounded
from internimage.training.freezing import first_stages, freeze
from support.compare import TOLERANCE, relative_rms

Randomise = Callable[[nn.Module], nn.Module]


@pytest.fixture
def composite(base: InternImageConfig, randomise: Randomise) -> CompositeInternImage:
    model = CompositeInternImage(base)
    randomise(model)
    return model.eval()


def helped(model: CompositeInternImage, stage: int, x_NHWC: Tensor, maps: list[Tensor]) -> Tensor:
    """What enters a stage, position by position."""
    weights, found = model.state_dict(), x_NHWC.clone()
    gamma = weights[f"gammas.{stage}"].half().to(x_NHWC.dtype)
    for y in range(x_NHWC.shape[1]):
        for x in range(x_NHWC.shape[2]):
            for source in range(stage, 4):
                there_NC = maps[source][:, y // 2 ** (source - stage), x // 2 ** (source - stage)]
                if source != stage:
                    matrix = weights[f"links.{stage}.{source}.weight"][:, :, 0, 0]
                    there_NC = there_NC @ matrix.T + weights[f"links.{stage}.{source}.bias"]
                found[:, y, x] += gamma * there_NC
    return found


# Sides that are multiples of 32; that halve with a rest at every stage, some of them; a single position.
@pytest.mark.parametrize("size", [(64, 32), (69, 37), (133, 50), (1, 1)])
def test_every_stage_sees_all_later_assisting_maps(composite: CompositeInternImage, size: tuple[int, int]) -> None:
    composite.double()
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        assisting, lead = composite.forward_both(image)
        stem = composite.assisting.forward_stem(image)
        expected = composite.assisting.run_stages(stem)
        x_NHWC = stem
        for stage, network in enumerate(composite.lead.stages):
            out_NHWC = network(helped(composite, stage, x_NHWC, expected))
            assert relative_rms(lead[stage], out_NHWC.permute(0, 3, 1, 2)) < TOLERANCE["fp64"][0] * 10
            assert torch.equal(assisting[stage], expected[stage].permute(0, 3, 1, 2))
            x_NHWC = network.downsample(out_NHWC) if network.downsample is not None else out_NHWC
        assert all(map(torch.equal, composite(image), lead))
        first = composite.forward_stages(image, 2)
    assert len(first) == 2
    assert torch.equal(first[1].permute(0, 3, 1, 2), lead[1])


def test_it_starts_as_the_lead_network_alone(base: InternImageConfig) -> None:
    composite, single = CompositeInternImage(base), InternImage(base)
    stem = {key: each for key, each in composite.assisting.state_dict().items() if key.startswith("stem.")}
    single.load_state_dict(stem | composite.lead.state_dict())
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert all(map(torch.equal, composite(image), single(image)))


def test_a_gamma_is_rounded_and_its_gradient_is_not() -> None:
    gamma = torch.randn(2000) * 10 ** torch.linspace(-12, 4, 2000)
    gamma.requires_grad_()
    rounded = half_rounded(gamma)
    assert torch.equal(rounded, gamma.detach().half().float())
    weights = 10 ** torch.linspace(-12, 8, 2000)
    (rounded * weights).sum().backward()
    assert torch.equal(gamma.grad, weights)


def test_the_loss_reaches_both_networks_links_and_gammas(base: InternImageConfig, randomise: Randomise) -> None:
    model = randomise(CompositeInternImage(base))
    loss = sum(each.square().sum() for each in model(torch.rand(1, 3, 65, 71)))
    loss.backward()
    silent = [name for name, each in model.named_parameters() if each.grad is None or not each.grad.count_nonzero()]
    assert not silent


@pytest.mark.parametrize("how", ["config", "method"])
def test_checkpointing_changes_nothing(base: InternImageConfig, randomise: Randomise, how: str) -> None:
    found: list[list[Tensor]] = []
    for checkpointing in (False, True):
        model = randomise(CompositeInternImage(replace(base, gradient_checkpointing=checkpointing and how == "config")))
        if checkpointing and how == "method":
            model.set_grad_checkpointing()
        assert all(
            each.gradient_checkpointing == checkpointing for each in (*model.assisting.stages, *model.lead.stages)
        )
        maps = model(torch.rand(1, 3, 45, 33, generator=torch.Generator().manual_seed(2)))
        sum(each.square().sum() for each in maps).backward()
        found.append([*maps, *(each.grad for each in model.parameters())])
    assert all(map(torch.equal, *found))


def test_maps_are_a_backbones(composite: CompositeInternImage) -> None:
    assert composite.num_features == (16, 32, 64, 128)
    maps = composite(torch.rand(0, 3, 64, 40))
    assert [tuple(each.shape) for each in maps] == [(0, 16, 16, 10), (0, 32, 8, 5), (0, 64, 4, 3), (0, 128, 2, 2)]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in composite(torch.rand(1, 3, 64, 40)))
    with torch.autocast("cpu", torch.bfloat16):
        assert all(each.isfinite().all() for each in composite(torch.rand(1, 3, 40, 40)))
    with pytest.raises(ValueError, match="must be a batch"):
        composite(torch.rand(3, 64, 40))
    with pytest.raises(ValueError, match="floating point"):
        composite(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no stem"):
        composite.lead(torch.rand(1, 3, 64, 40))


def test_freezing_takes_both_networks(composite: CompositeInternImage) -> None:
    freeze(first_stages(composite, 1))
    frozen = {name for name, each in composite.named_parameters() if not each.requires_grad}
    assert frozen == {
        name
        for name, _ in composite.named_parameters()
        if name.startswith(("assisting.stem.", "assisting.stages.0.", "lead.stages.0."))
    }


@pytest.mark.shared
def test_maps_of_the_released_code(golden: Path) -> None:
    with safe_open(golden / "detection/cbdino.safetensors", framework="pt") as file:
        names = list(file.keys())
        state = {
            key.removeprefix("state_dict."): file.get_tensor(key).float()
            for key in names
            if key.startswith("state_dict.backbone.")
        }
        image = file.get_tensor("input")
        expected = {key: file.get_tensor(key) for key in names if key.startswith("backbone.")}
        theirs = json.loads(file.metadata()["config"])["backbone"]
    arguments = {key: value for key, value in theirs.items() if key not in ("type", "init_cfg", "out_indices")}
    model = CompositeInternImage(InternImageConfig.from_official(arguments | {"num_classes": 0})).eval()
    converted = composite_to_ours(state)
    assert not converted.foreign
    model.load_state_dict({key.removeprefix("backbone."): each for key, each in converted.state.items()})
    with torch.no_grad():
        assisting, lead = model.forward_both(image)
        helps = [model._help(stage, model.assisting.forward_stages(image)) for stage in range(4)]
    assert len(expected) == 11
    for number, maps in enumerate((assisting, lead)):
        for stage, each in enumerate(maps):
            # The released lead network hands out its last three maps alone.
            if (number, stage) != (1, 0):
                assert relative_rms(each, expected[f"backbone.{number}.stage{stage}"]) < TOLERANCE["golden"][0]
    for stage, each in enumerate(helps):
        assert relative_rms(each, expected[f"backbone.cb_feats.{stage}_NHWC"]) < TOLERANCE["golden"][0]
