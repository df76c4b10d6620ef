"""Behaviour of every model in `list_models()`: the small ones really run, the large ones on the meta device."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from internimage import InternImage, InternImageClassifier, InternImageConfig, create_model, list_models
from support.compare import relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
SMALL = ("internimage_femto", "internimage_pico", "internimage_nano", "internimage_t")
SIZES = [(65, 47), (32, 32), (1, 1)]


def device_for(name: str) -> str:
    return "cpu" if name in SMALL else "meta"


def build(name: str, **settings: Any) -> nn.Module:
    with torch.device(device_for(name)):
        return create_model(name, **settings).eval()


def build_shallow(name: str, **settings: Any) -> nn.Module:
    """The full width and head with one block a stage, for what the number of blocks has no part in."""
    return build(name, depths=(1, 1, 1, 1), level2_post_norm_blocks=(), **settings)


def halved(size: int, times: int) -> int:
    """Each convolution of stride 2 rounds up."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


def assert_finite(tensor: Tensor) -> None:
    assert tensor.is_meta or tensor.isfinite().all()


def test_the_list_is_the_paper_and_our_small_ones() -> None:
    letters = [name.removeprefix("internimage_") for name in list_models()]
    flash = [f"flash_internimage_{letter}" for letter in "tsbl"]
    assert letters == ["femto", "pico", "nano", "t", "s", "b", "l", "xl", "h", "g", *flash]


@torch.no_grad()
@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", SIZES)
def test_maps_and_logits(name: str, size: tuple[int, int]) -> None:
    # Whole depth on the meta device is what test_multiply_adds.py runs.
    model = (build if name in SMALL else build_shallow)(name, num_classes=7)
    image = torch.rand(2, 3, *size, device=device_for(name))
    maps_NHWC = model.forward_features(image)
    logits = model.forward_head(maps_NHWC)
    config = InternImageConfig.from_variant(name)
    expected = [
        (2, halved(size[0], 2 + stage), halved(size[1], 2 + stage), channels)
        for stage, channels in enumerate(config.stage_channels)
    ]
    assert [tuple(map_NHWC.shape) for map_NHWC in maps_NHWC] == expected
    assert logits.shape == (2, 7)
    for tensor in (*maps_NHWC, logits):
        assert_finite(tensor)


@torch.no_grad()
@pytest.mark.parametrize("name", list_models())
def test_features_only_and_bare_features(name: str) -> None:
    backbone, bare = build_shallow(name, features_only=True), build_shallow(name, num_classes=0)
    assert isinstance(backbone, InternImage)
    image = torch.rand(1, 3, 40, 72, device=device_for(name))
    assert [map_NCHW.shape[1] for map_NCHW in backbone(image)] == list(backbone.num_features)
    pooled = bare(image)
    assert pooled.shape == (1, bare.num_features)
    assert_finite(pooled)


@torch.no_grad()
@pytest.mark.parametrize("in_chans", [1, 5])
@pytest.mark.parametrize("name", list_models())
def test_other_images(name: str, in_chans: int) -> None:
    model = build_shallow(name, in_chans=in_chans)
    assert model(torch.rand(1, in_chans, 32, 32, device=device_for(name))).shape == (1, 1000)


@torch.no_grad()
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
@pytest.mark.parametrize("name", list_models())
def test_stem_strides(name: str, strides: tuple[int, int]) -> None:
    model = build_shallow(name, stem_strides=strides, features_only=True)
    stem = strides[0] * strides[1]
    assert model.config.stage_strides == (stem, 2 * stem, 4 * stem, 8 * stem)
    maps = model(torch.rand(1, 3, 16, 32, device=device_for(name)))
    assert [tuple(map_NCHW.shape[2:]) for map_NCHW in maps] == [(16 // s, 32 // s) for s in model.config.stage_strides]


@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(form: InternImageConfig, randomise: Callable[..., nn.Module]) -> None:
    model = randomise(create_model(form)).eval()
    images = torch.rand(3, 3, 33, 47)
    alone = torch.cat([model(image[None]) for image in images])
    assert relative_rms(model(images), alone) < 1e-5
    assert model(images[:0]).shape == (0, 10)
    assert [tuple(each.shape[:1]) for each in model.backbone(images[:0])] == [(0,)] * 4


@torch.no_grad()
def test_memory_layout_of_the_image_makes_no_difference(network: InternImageClassifier) -> None:
    image = torch.rand(2, 3, 33, 47)
    expected = network(image)
    assert torch.equal(network(image.contiguous(memory_format=torch.channels_last)), expected)
    wide = torch.rand(2, 3, 66, 47)
    wide[:, :, ::2] = image
    assert torch.equal(network(wide[:, :, ::2]), expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 32), (33, 47), (65, 31), (1, 1)])
def test_clip_head_takes_odd_sizes(size: tuple[int, int], randomise: Callable[..., nn.Module]) -> None:
    """The released code wants multiples of 32; there and elsewhere, every pixel of stage 3 and 4 counts."""
    config = InternImageConfig(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), head="clip", num_classes=5)
    model = randomise(create_model(config)).eval()
    image = torch.rand(2, 3, *size)
    maps = model.forward_features(image)
    logits = model.forward_head(maps)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    for stage, corner in ((2, maps[2]), (3, maps[3])):
        changed = [each.clone() for each in maps]
        changed[stage][:, -1, -1] += 1.0
        assert not torch.equal(model.forward_head(changed), logits), f"stage {stage + 1} of {tuple(corner.shape)}"
    pooled = model.forward_head(maps, pre_logits=True)
    assert torch.equal(model.head.fc(pooled), logits)


@torch.no_grad()
def test_bf16_follows_fp32(form: InternImageConfig, randomise: Callable[..., nn.Module]) -> None:
    model = randomise(create_model(form)).eval()
    image = torch.rand(2, 3, 40, 56)
    expected = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_rms(model(image), expected) < 0.1
    low = model.bfloat16()(image.bfloat16())
    assert low.dtype == torch.bfloat16
    assert relative_rms(low, expected) < 0.1


@torch.no_grad()
def test_fp64_follows_fp32(form: InternImageConfig, randomise: Callable[..., nn.Module]) -> None:
    model = randomise(create_model(form)).eval()
    image = torch.rand(2, 3, 40, 56)
    expected = model(image)
    assert relative_rms(expected, model.double()(image.double())) < 1e-5


@torch.no_grad()
def test_reset_classifier(form: InternImageConfig, randomise: Callable[..., nn.Module]) -> None:
    model = randomise(create_model(form)).eval()
    image = torch.rand(2, 3, 32, 40)
    pooled = model.forward_head(model.forward_features(image), pre_logits=True)
    model.reset_classifier(3)
    assert (model.num_classes, model.config.num_classes, model.backbone.config.num_classes) == (3, 3, 3)
    assert model(image).shape == (2, 3)
    assert model.head.fc.bias.count_nonzero() == 0
    assert 0.01 < float(model.head.fc.weight.std()) < 0.03
    model.reset_classifier(0)
    assert torch.equal(model(image), pooled)
    model.bfloat16().reset_classifier(4)
    assert model.head.fc.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="num_classes >= 0"):
        model.reset_classifier(-1)


@torch.no_grad()
def test_copies_and_state_dicts(form: InternImageConfig, randomise: Callable[..., nn.Module]) -> None:
    model = randomise(create_model(form)).eval()
    image = torch.rand(1, 3, 33, 40)
    expected = model(image)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.zero_()
    assert torch.equal(model(image), expected)
    restored = pickle.loads(pickle.dumps(model))  # noqa: S301  # our own bytes
    assert torch.equal(restored(image), expected)
    assert restored.config == model.config
    assert twin.load_state_dict(model.state_dict()).missing_keys == []
    assert torch.equal(twin(image), expected)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = create_model(form).eval()
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh(image), expected)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str], network: InternImageClassifier) -> None:
    for name in SMALL[:2]:
        create_model(name, features_only=True)(torch.rand(1, 3, 32, 32))
    network(torch.rand(1, 3, 32, 32)).sum().backward()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 32, 32), r"batch \(N, 3, H, W\).*got \(3, 32, 32\)"),
        (torch.rand(1, 1, 32, 32), r"batch \(N, 3, H, W\).*got \(1, 1, 32, 32\)"),
        (torch.rand(1, 32, 32, 3), r"batch \(N, 3, H, W\).*got \(1, 32, 32, 3\)"),
        (torch.rand(1, 3, 0, 32), "at least 1 x 1 pixels"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating point and normalised, got torch.uint8"),
    ],
)
def test_wrong_images(image: Tensor, message: str, network: InternImageClassifier) -> None:
    with pytest.raises(ValueError, match=message):
        network(image)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("internimage_z", {}, "unknown model 'internimage_z'; choose from internimage_femto"),
        ("resnet50", {}, "unknown model 'resnet50'"),
        (
            "internimage_l.in21k",
            {},
            r"unknown weights .*choose from internimage_l\.in22k_in1k_384, internimage_l\.in22k",
        ),
        ("internimage_femto", {"img_size": 224}, r"unknown settings \['img_size'\]"),
        ("internimage_femto", {"num_classes": -1}, "num_classes >= 0"),
        ("internimage_femto", {"in_chans": 0}, "in_chans >= 1"),
        ("internimage_femto", {"pretrained": True}, "no released weights for 'internimage_femto'"),
        (InternImageConfig(), {"pretrained": True}, "needs a model's name"),
    ],
)
def test_models_that_cannot_be_built(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **settings)
