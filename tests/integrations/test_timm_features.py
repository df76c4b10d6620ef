"""Maps of the stages the way timm hands them out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from internimage import InternImageConfig, list_models

timm = pytest.importorskip("timm")

from internimage.integrations.timm import TimmInternImage  # noqa: E402

SHALLOW = {"depths": (1, 1, 1, 1), "level2_post_norm_blocks": ()}


@pytest.fixture(params=["conv", "clip"])
def model(request: pytest.FixtureRequest) -> TimmInternImage:
    config = InternImageConfig(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), head=request.param)
    return TimmInternImage(config, num_classes=5).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("out_indices", "chosen"),
    [(None, (0, 1, 2, 3)), ((0, 1, 2, 3), (0, 1, 2, 3)), ((1, -1), (1, 3)), (2, (2, 3)), ((3, 0), (3, 0)), ([2], (2,))],
    ids=str,
)
@pytest.mark.parametrize("name", list_models())
def test_maps_have_the_declared_channels_and_reductions(name: str, out_indices: Any, chosen: tuple[int, ...]) -> None:
    with torch.device("meta"):
        net = timm.create_model(name, features_only=True, out_indices=out_indices, **SHALLOW)
    config = InternImageConfig.from_variant(name)
    assert net.feature_info.channels() == [config.stage_channels[index] for index in chosen]
    assert net.feature_info.reduction() == [4 * 2**index for index in chosen]
    height, width = 72, 104
    for each, channels, stride in zip(
        net(torch.empty(1, 3, height, width, device="meta")),
        net.feature_info.channels(),
        net.feature_info.reduction(),
        strict=True,
    ):
        # Each halving rounds up.
        assert each.shape == (1, channels, -(-height // stride), -(-width // stride))
    for module in net.feature_info.module_name():
        net.model.get_submodule(module)


@torch.no_grad()
def test_features_only_holds_what_it_uses() -> None:
    whole = timm.create_model("internimage_femto").eval()
    net = timm.create_model("internimage_femto", features_only=True, out_indices=(0, 2)).eval()
    net.model.load_state_dict(whole.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    expected = whole.backbone(images)
    for each, index in zip(net(images), (0, 2), strict=True):
        assert torch.equal(each, expected[index])
    # No stage 4, no way down to it, no head: every parameter that is left takes part.
    net.train()
    with torch.enable_grad():
        sum((each * torch.randn_like(each)).sum() for each in net(images)).backward()
    assert not [key for key, parameter in net.named_parameters() if parameter.grad is None]
    assert not [key for key in net.state_dict() if "head." in key or "stages.3" in key]


@torch.no_grad()
def test_intermediates(model: TimmInternImage) -> None:
    images = torch.rand(2, 3, 65, 47)
    expected = model.backbone(images)
    final, maps = model.forward_intermediates(images)
    assert torch.equal(final, model.forward_features(images))
    assert [tuple(each.shape) for each in maps] == [tuple(each.shape) for each in expected]
    for indices, wanted in ((None, [0, 1, 2, 3]), (2, [2, 3]), ([0, -2], [0, 2]), ((3, 1), [3, 1])):
        for norm in (False, True):
            only = model.forward_intermediates(images, indices, norm=norm, intermediates_only=True)
            assert len(only) == len(wanted)
            assert all(torch.equal(each, expected[index]) for each, index in zip(only, wanted, strict=True))
    channels_last = model.forward_intermediates(images, output_fmt="NHWC", intermediates_only=True)
    for each, wanted in zip(channels_last, expected, strict=True):
        assert torch.equal(each, wanted.permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match="output_fmt must be NCHW or NHWC, got 'NLC'"):
        model.forward_intermediates(images, output_fmt="NLC")  # pyright: ignore
    with pytest.raises(AssertionError, match="out of range"):
        model.forward_intermediates(images, [4])


@torch.no_grad()
def test_stopping_early_skips_stages(model: TimmInternImage) -> None:
    images, ran = torch.rand(1, 3, 64, 64), []
    for index, stage in enumerate(model.backbone.stages):
        stage.register_forward_hook(lambda *_, index=index: ran.append(index))
    model.backbone.stages[1].downsample.register_forward_hook(lambda *_: ran.append("down"))
    final, maps = model.forward_intermediates(images, [0, 1], stop_early=True)
    assert ran == [0, 1]
    assert torch.equal(final, maps[-1])
    ran.clear()
    final, _ = model.forward_intermediates(images, [0, 1])
    assert ran == [0, 1, "down", 2, 3]
    assert torch.equal(final, model.forward_features(images))


@torch.no_grad()
def test_pruning(model: TimmInternImage) -> None:
    images = torch.rand(1, 3, 64, 64)
    expected = model.backbone(images)
    head = model.forward_features(images)
    assert model.prune_intermediate_layers([-1], prune_head=False) == [3]
    assert torch.equal(model.forward_features(images), head)
    assert model.prune_intermediate_layers([-4, 1]) == [0, 1]
    assert (model.num_features, model.head_hidden_size, model.num_classes) == (32, 32, 0)
    for each in (model(images), model.forward_features(images)):
        assert torch.equal(each, expected[1])
    assert not [key for key in model.state_dict() if key.startswith(("head", "backbone.stages.2"))]
    assert model.backbone.stages[1].downsample is None
    with pytest.raises(ValueError, match="was pruned"):
        model.reset_classifier(3)
    assert model.prune_intermediate_layers(1) == [1]


def test_all_stages_and_no_head(model: TimmInternImage) -> None:
    assert model.prune_intermediate_layers(4) == [0, 1, 2, 3]
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 128, 1, 1)
