"""timm's own expectations of a model, over every variant: the small ones really run, the large ones on meta tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import internimage
from internimage import InternImageConfig, Preprocess, create_model, list_models
from internimage.model import WEIGHTS

timm = pytest.importorskip("timm")
from timm.data import resolve_model_data_config  # noqa: E402

from internimage.integrations.timm import TimmInternImage  # noqa: E402

REAL = [f"internimage_{letter}" for letter in ("femto", "pico", "nano", "t", "s", "b")]
# Variants that differ from a smaller one in numbers alone.
ALIKE = [*(f"internimage_{name}" for name in ("pico", "nano", "b", "xl")), "flash_internimage_b", "flash_internimage_l"]
MODELS = [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in list_models()]
SHALLOW = {"depths": (1, 1, 1, 1), "level2_post_norm_blocks": ()}
# The CLIP head has fixed sizes of its own, so this is as small as it gets.
CLIP = InternImageConfig(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), head="clip")


def device_for(name: str) -> str:
    return "cpu" if name.split(".")[0] in REAL else "meta"


def build(name: str, **settings: Any) -> Any:
    with torch.device(device_for(name)):
        return timm.create_model(name, **settings).eval()


def image(name: str, height: int = 64, width: int = 96, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, height, width, device=device_for(name))


@pytest.fixture(params=["femto", "clip"])
def small(request: pytest.FixtureRequest) -> Any:
    """Both heads with real numbers; the statistics and scales are not what they are initialised with."""
    if request.param == "clip":
        model = TimmInternImage(CLIP, num_classes=10)
    else:
        model = timm.create_model("internimage_femto", num_classes=10)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.1, 1.0)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward_reach_every_parameter(name: str) -> None:
    model = build(name, num_classes=42, drop_path_rate=0.0).train()
    logits = model(image(name, 32, 48))
    assert logits.shape == (2, 42)
    (logits * torch.randn(logits.shape, device=logits.device)).sum().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]
    if name in REAL:
        assert logits.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", [*WEIGHTS, *list_models()[:3]])
def test_the_default_configuration_tells_the_truth(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **SHALLOW).eval()
    cfg = model.default_cfg
    row = WEIGHTS.get(name)
    size = 224 if row is None else row.image_size
    assert cfg["input_size"] == (3, size, size)
    images = torch.empty(1, *cfg["input_size"], device="meta")
    assert model.num_classes == cfg["num_classes"] == (1000 if row is None else row.num_classes)
    assert model(images).shape == (1, cfg["num_classes"])
    features = model.forward_features(images)
    assert features.shape == (1, model.num_features, *cfg["pool_size"])
    for key in ("first_conv", "classifier"):
        assert f"{cfg[key]}.weight" in model.state_dict()
    assert model.get_submodule(cfg["first_conv"]).in_channels == 3
    assert model.get_classifier() is model.get_submodule(cfg["classifier"])
    model.reset_classifier(0)
    assert model(images).shape == (1, model.head_hidden_size)
    assert not [key for key in model.state_dict() if key.startswith(cfg["classifier"])]
    model.reset_classifier(0, "")
    assert model(images).shape == features.shape
    bare = timm.create_model(name, num_classes=0, global_pool="", device="meta", **SHALLOW)
    assert bare(images).shape == features.shape
    data, ours = resolve_model_data_config(model), Preprocess(size)
    assert (data["mean"], data["std"], data["input_size"]) == (ours.mean, ours.std, (3, size, size))
    assert (data["interpolation"], data["crop_pct"], cfg["license"]) == (ours.interpolation, ours.crop_ratio, "mit")


@pytest.mark.parametrize("name", list_models())
def test_weights_have_the_names_of_our_classifier(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = timm.create_model(name, num_classes=5).state_dict(), create_model(name, num_classes=5)
    assert {key: tensor.shape for key, tensor in theirs.items()} == {
        key: tensor.shape for key, tensor in ours.state_dict().items()
    }


@torch.no_grad()
def test_it_is_our_network(small: Any) -> None:
    ours = internimage.InternImageClassifier(small.config).eval()
    ours.load_state_dict(small.state_dict())
    images = torch.rand(2, 3, 65, 47)
    assert torch.equal(small(images), ours(images))
    for theirs, mine in zip(small.forward_intermediates(images)[1], ours.backbone(images), strict=True):
        assert torch.equal(theirs, mine)


@torch.no_grad()
def test_forward_is_its_two_halves(small: Any) -> None:
    images = torch.rand(2, 3, 65, 47)
    features = small.forward_features(images)
    logits = small(images)
    pooled = small.forward_head(features, pre_logits=True)
    assert features.shape[:2] == (2, small.num_features)
    assert pooled.shape == (2, small.head_hidden_size)
    assert torch.equal(small.forward_head(features), logits)
    assert torch.equal(small.get_classifier()(pooled), logits)
    final, _ = small.forward_intermediates(images)
    assert torch.equal(final, features)
    # Every stage counts, also the third, which only the CLIP head reads itself.
    features[:, :, -1, -1] += 1.0
    assert not torch.equal(small.forward_head(features), logits)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_the_two_halves_fit_in_every_variant(name: str) -> None:
    model = build(name, num_classes=6, **SHALLOW)
    images = image(name, 65, 47)
    features = model.forward_features(images)
    logits = model.forward_head(features)
    assert logits.shape == model(images).shape == (2, 6)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    if name in REAL:
        assert torch.equal(model(images), logits)


@torch.no_grad()
@pytest.mark.parametrize("in_chans", [1, 5])
def test_other_images(in_chans: int) -> None:
    model = timm.create_model("internimage_femto", in_chans=in_chans, num_classes=3).eval()
    assert model.in_chans == in_chans
    assert model(torch.rand(1, in_chans, 32, 32)).shape == (1, 3)


@torch.no_grad()
def test_another_classifier(small: Any) -> None:
    images = torch.rand(2, 3, 33, 47)
    pooled = small.forward_head(small.forward_features(images), pre_logits=True)
    before = small.get_classifier().weight.clone()
    small.double().reset_classifier(10)
    assert small.get_classifier().weight.dtype == torch.float64
    assert not torch.equal(small.get_classifier().weight.float(), before)
    small.float().reset_classifier(4)
    assert small.num_classes == 4
    assert small(images).shape == (2, 4)
    small.reset_classifier(0)
    assert small.num_classes == 0
    assert torch.equal(small(images), pooled)


@torch.no_grad()
def test_pooling() -> None:
    images = torch.rand(2, 3, 64, 96)
    model = timm.create_model("internimage_femto", num_classes=3, global_pool="max").eval()
    features = model.forward_features(images)
    assert features.shape[2:] == (2, 3)
    pooled = {"max": features.amax((2, 3)), "avg": features.mean((2, 3))}
    pooled["avgmax"] = (pooled["max"] + pooled["avg"]) / 2
    for pool, expected in pooled.items():
        model.reset_classifier(3, pool)
        torch.testing.assert_close(model.forward_head(features, pre_logits=True), expected)
        torch.testing.assert_close(model(images), model.get_classifier()(expected))
    model.reset_classifier(0, "")
    assert torch.equal(model(images), features)
    with pytest.raises(ValueError, match="pass global_pool='avg'"):
        model.reset_classifier(3)
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3)


def test_poolings_that_a_head_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"must be one of 'map', '' for the clip head, got 'avg'"):
        timm.create_model("internimage_h", global_pool="avg", device="meta", **SHALLOW)
    with pytest.raises(ValueError, match=r"'avg', 'max', 'avgmax', '' for the conv head, got 'map'"):
        timm.create_model("internimage_femto", global_pool="map")
    with pytest.raises(ValueError, match="needs num_classes=0, got 1000"):
        timm.create_model("internimage_femto", global_pool="")


def test_dropout_and_drop_path_mean_what_they_mean_in_timm() -> None:
    def rates(**settings: Any) -> tuple[float, set[float], float]:
        model = timm.create_model("internimage_pico", **settings)
        inner = {block.mlp.drop.p for stage in model.backbone.stages for block in stage.blocks}
        return model.head_drop.p, inner | {model.backbone.drop.p}, model.backbone.stages[3].blocks[0].drop_path.rate

    assert rates() == (0.0, {0.0}, 0.0)
    assert rates(drop_rate=0.3) == (0.3, {0.0}, 0.0)
    assert rates(proj_drop_rate=0.2) == (0.0, {0.2}, 0.0)
    assert rates(drop_path_rate=0.4) == (0.0, {0.0}, 0.4)
    model = timm.create_model("internimage_pico", drop_rate=0.5, num_classes=0)
    features = torch.ones(1, model.num_features, 1, 1)
    assert set(model.forward_head(features).flatten().tolist()) == {0.0, 2.0}
    assert set(model.eval().forward_head(features).flatten().tolist()) == {1.0}


def test_place_type_and_unknown_settings() -> None:
    model = timm.create_model("internimage_femto", dtype=torch.bfloat16, stem_strides=(1, 1))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert [info["reduction"] for info in model.feature_info] == [1, 2, 4, 8]
    assert next(timm.create_model("internimage_femto", device="meta").parameters()).is_meta
    with pytest.raises(ValueError, match=r"unknown settings \['output_stride'\]"):
        timm.create_model("internimage_femto", output_stride=8)
    with pytest.raises(ValueError, match="feature_cls must be 'getter'"):
        timm.create_model("internimage_femto", features_only=True, feature_cls="hook")
