"""The training transform: the official recipe for RGB and grey, and its presets."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from internimage.data import SAMPLE_PREPROCESS, to_tensor
from internimage.data.augment import Augmentation, train_transform
from internimage.structures import Preprocess

SMALL_RGB = Preprocess(size=32)
POLICIES = ["rand-m9-mstd0.5-inc1", "rand-m10-inc1", "original-mstd0.5", "v0", "augmix-m5-w3", "3a", None]


@pytest.fixture(autouse=True)
def all_generators_seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def picture(preprocess: Preprocess, width: int = 70, height: int = 50) -> Image.Image:
    shape = (height, width, 3)[: 2 if preprocess.in_chans == 1 else 3]
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def test_the_defaults_are_the_official_recipe():
    crop, flip, policy, to_pixels, normalize, erasing = train_transform(Augmentation(), Preprocess()).steps.transforms
    assert (type(to_pixels).__name__, type(normalize).__name__) == ("MaybeToTensor", "Normalize")
    assert (crop.size, crop.scale, crop.ratio) == ((224, 224), (0.08, 1.0), (3 / 4, 4 / 3))
    assert crop.interpolation == InterpolationMode.BICUBIC
    assert flip.p == 0.5
    assert {(operation.magnitude, operation.magnitude_std) for operation in policy.ops} == {(9, 0.5)}
    assert (policy.num_layers, len(policy.ops)) == (2, 15)
    assert (erasing.probability, erasing.per_pixel, erasing.max_count) == (0.25, True, 1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("preprocess", [SMALL_RGB, SAMPLE_PREPROCESS], ids=["rgb", "grey"])
def test_every_policy_runs(policy, preprocess):
    transform = train_transform(Augmentation(auto_augment=policy), preprocess)
    results = torch.stack([transform(picture(preprocess)) for _ in range(60)])
    assert results.shape == (60, preprocess.in_chans, preprocess.size, preprocess.size)
    assert results.dtype == torch.float32
    assert results.isfinite().all()
    assert len({tuple(result.flatten()[:50].tolist()) for result in results}) > 30


@pytest.mark.parametrize("preprocess", [SMALL_RGB, SAMPLE_PREPROCESS], ids=["rgb", "grey"])
def test_posterizing_to_0_bits_is_black(preprocess):
    transform = train_transform(Augmentation(), preprocess)
    policy = next(step for step in transform.steps.transforms if type(step).__name__ == "RandAugment")
    posterize = next(operation for operation in policy.ops if operation.name == "PosterizeIncreasing")
    posterize.prob, posterize.magnitude, posterize.magnitude_std = 1.0, 10, 0
    image = Image.new("RGB", (4, 4), (200, 100, 255))
    assert np.asarray(posterize(image)).max() == 0
    posterize.magnitude = 9
    assert np.asarray(posterize(image))[0, 0].tolist() == [128, 0, 128]


def test_grey_stays_grey_through_colour_operations():
    transform = train_transform(Augmentation(auto_augment="3a", random_erasing=0.0), SAMPLE_PREPROCESS)
    constant = Image.new("L", (28, 28), 100)
    low, high = (0 - 0.286) / 0.354, (1 - 0.286) / 0.354
    for _ in range(30):
        result = transform(constant)
        assert result.shape == (1, 28, 28)
        assert low - 1e-5 <= result.min() <= result.max() <= high + 1e-5


@pytest.mark.parametrize("preprocess", [SMALL_RGB, SAMPLE_PREPROCESS, Preprocess(size=24, crop_ratio=0.8)])
def test_none_is_the_evaluation_transform(preprocess):
    transform = train_transform(Augmentation.none(), preprocess)
    for width, height in [(70, 50), (20, 61), (32, 32)]:
        image = picture(preprocess, width, height)
        assert torch.equal(transform(image), to_tensor(image, preprocess))


def test_light_flips_and_shifts_by_up_to_4_pixels():
    preprocess = Preprocess(size=8, mean=(0.0,), std=(1.0,))
    image = picture(preprocess, 8, 8)
    padded = np.pad(np.asarray(image), 4)
    windows = [padded[top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
    expected = {window.tobytes() for window in [*windows, *(window[:, ::-1] for window in windows)]}
    transform = train_transform(Augmentation.light(), preprocess)
    seen = {(transform(image)[0] * 255).round().to(torch.uint8).numpy().tobytes() for _ in range(400)}
    assert seen <= expected
    assert len(seen) > 100


def test_padding_works_for_pictures_of_any_size():
    transform = train_transform(Augmentation(padding=4), SMALL_RGB)
    for width, height in [(90, 40), (10, 12), (32, 32)]:
        assert transform(picture(SMALL_RGB, width, height)).shape == (3, 32, 32)


def test_flips_alone():
    transform = train_transform(Augmentation(None, 0.0, hflip=1.0, random_erasing=0.0, scale=(1.0, 1.0)), SMALL_RGB)
    image = picture(SMALL_RGB, 32, 32)
    assert torch.equal(transform(image), to_tensor(image, SMALL_RGB).flip(-1))


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing_modes(mode):
    settings = Augmentation(None, 0.0, hflip=0.0, random_erasing=1.0, erasing_mode=mode, scale=(1.0, 1.0))
    image = picture(SMALL_RGB, 32, 32)
    changed = train_transform(settings, SMALL_RGB)(image) != to_tensor(image, SMALL_RGB)
    assert 0.01 < changed.any(0).float().mean() < 0.5


@pytest.mark.parametrize("preprocess", [SMALL_RGB, SAMPLE_PREPROCESS], ids=["rgb", "grey"])
@pytest.mark.parametrize("settings", [Augmentation(), Augmentation.light()], ids=["full", "light"])
def test_transforms_can_be_sent_to_worker_processes(settings, preprocess):
    assert pickle.dumps(train_transform(settings, preprocess))


def test_wrong_mode_is_refused():
    with pytest.raises(ValueError, match="images of mode L, got mode RGB"):
        train_transform(Augmentation(), SAMPLE_PREPROCESS)(picture(SMALL_RGB))


@pytest.mark.parametrize("policy", ["bogus", "rand-q9", "rand-m9-foo7"])
def test_unknown_policies_are_refused(policy):
    with pytest.raises(ValueError, match=f"timm does not know the auto_augment policy '{policy}'; use one"):
        train_transform(Augmentation(auto_augment=policy), SMALL_RGB)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hflip": 1.5}, r"hflip must be a probability in \[0, 1\], got 1.5"),
        ({"random_erasing": -0.1}, "random_erasing must be a probability"),
        ({"mix_probability": 2}, "mix_probability must be a probability"),
        ({"mixup": -1}, "mixup must be 0 or more, got -1"),
        ({"padding": -4}, "padding must be 0 or more, got -4"),
        ({"erasing_mode": "blue"}, "erasing_mode must be pixel, rand or const, got 'blue'"),
        ({"scale": (0.5, 0.1)}, r"scale must be two rising shares .* got \(0.5, 0.1\)"),
        ({"scale": (0.0, 1.0)}, "scale must be two rising shares"),
        ({"ratio": (0.5,)}, "ratio must be two rising positive aspect ratios"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Augmentation(**settings)


def test_lists_from_yaml_become_tuples():
    assert Augmentation(scale=[0.2, 1.0], ratio=[1.0, 1.0]) == Augmentation(scale=(0.2, 1.0), ratio=(1.0, 1.0))
