"""Mixup and CutMix of batches: targets that sum to 1 and say what was mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internimage.data.augment import Augmentation, batch_mixer

SETTINGS = {
    "both": Augmentation(),
    "mixup": Augmentation(cutmix=0.0),
    "cutmix": Augmentation(mixup=0.0),
    "neither": Augmentation.none(),
    "never": Augmentation(mix_probability=0.0),
}


@pytest.fixture(autouse=True)
def numpy_seeded() -> None:
    np.random.seed(0)


def one_image_per_class(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image n is filled with n + 1, so a mixed image tells its targets."""
    return torch.arange(1.0, count + 1).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone(), torch.arange(count)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("count", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_shapes_and_sums(settings, count, label_smoothing):
    mix = batch_mixer(settings, 10, label_smoothing)
    for _ in range(10):
        images, targets = mix(*one_image_per_class(count))
        assert images.shape == (count, 3, 8, 8)
        assert targets.shape == (count, 10)
        assert targets.dtype == torch.float32
        assert targets.min() >= 0 if count else True
        torch.testing.assert_close(targets.sum(1), torch.ones(count))


@pytest.mark.parametrize("name", ["both", "mixup", "cutmix"])
def test_targets_say_what_was_mixed(name):
    mix = batch_mixer(SETTINGS[name], 6, 0.0)
    before, _ = one_image_per_class(6)
    mixed = 0
    for _ in range(20):
        images, targets = mix(*one_image_per_class(6))
        # The mean of an image is the mean of the images in it, each weighted by its share.
        torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(1.0, 7.0))
        mixed += not torch.equal(images, before)
    assert mixed > 10


@pytest.mark.parametrize("switch_probability", [0.0, 1.0])
def test_switch_probability_is_that_of_cutmix(switch_probability):
    mix = batch_mixer(Augmentation(switch_probability=switch_probability), 6, 0.0)
    for _ in range(10):
        images, _ = mix(*one_image_per_class(6))
        uniform = images.flatten(1).std(1).max() < 1e-6
        whole_numbers = torch.equal(images, images.round())
        assert whole_numbers if switch_probability == 1 else uniform
    assert (whole_numbers, bool(uniform)) == ((True, False) if switch_probability == 1 else (False, True))


@pytest.mark.parametrize("count", [1, 3, 7])
def test_last_of_an_odd_batch_is_not_mixed(count):
    mix = batch_mixer(Augmentation(), 8, 0.2)
    before, labels = one_image_per_class(count)
    expected = torch.full((8,), 0.2 / 8)
    expected[count - 1] += 0.8
    for _ in range(10):
        images, targets = mix(before, labels)
        assert torch.equal(images[-1], before[-1])
        torch.testing.assert_close(targets[-1], expected)


@pytest.mark.parametrize("name", ["neither", "never"])
def test_unmixed_targets_are_smoothed_one_hot(name):
    before, labels = one_image_per_class(4)
    images, targets = batch_mixer(SETTINGS[name], 4, 0.1)(before, labels)
    assert torch.equal(images, before)
    torch.testing.assert_close(targets, 0.9 * torch.eye(4) + 0.025)


@pytest.mark.parametrize("count", [4, 5])
def test_the_input_stays_as_it_was(count):
    before, labels = one_image_per_class(count)
    mix = batch_mixer(Augmentation(), 5, 0.0)
    for _ in range(10):
        mix(before, labels)
    assert torch.equal(before, one_image_per_class(count)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_image_type_is_kept(dtype):
    before, labels = one_image_per_class(5)
    images, targets = batch_mixer(Augmentation(), 5, 0.0)(before.to(dtype), labels)
    assert images.dtype == dtype
    assert targets.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("count", [4, 5])
def test_results_are_on_the_inputs_device(settings, count):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    before, labels = (tensor.cuda() for tensor in one_image_per_class(count))
    images, targets = batch_mixer(settings, 5, 0.1)(before, labels)
    assert images.device == targets.device == before.device


@pytest.mark.parametrize(
    ("images", "targets"), [((3, 8, 8), (3,)), ((4, 3, 8, 8), (3,)), ((4, 3, 8, 8), (4, 10))], ids=str
)
def test_wrong_shapes(images, targets):
    with pytest.raises(ValueError, match=r"expected images of shape \(N, C, H, W\) and N class indices, got"):
        batch_mixer(Augmentation(), 10, 0.0)(torch.zeros(images), torch.zeros(targets, dtype=torch.long))


@pytest.mark.parametrize(("num_classes", "label_smoothing"), [(0, 0.1), (10, 1.0), (10, -0.1)])
def test_impossible_settings(num_classes, label_smoothing):
    with pytest.raises(ValueError, match=r"num_classes must be 1 or more|label_smoothing must be in \[0, 1\)"):
        batch_mixer(Augmentation(), num_classes, label_smoothing)
