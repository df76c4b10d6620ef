"""The preprocessing against torchvision's, bit for bit, and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from internimage.data import crop_image, denormalize, to_tensor
from internimage.structures import Preprocess

SIZES = {
    "landscape": (101, 67),
    "portrait": (67, 101),
    "square": (64, 64),
    "exact": (56, 56),
    "smaller than the target": (13, 9),
    "one pixel": (1, 1),
    "strip": (3, 90),
    "odd and even": (57, 200),
    "margin of 3 pixels": (59, 56),
}


def noise(size: tuple[int, int], in_chans: int) -> Image.Image:
    shape = (size[1], size[0], 3)[: 3 if in_chans == 3 else 2]
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def preprocess_for(in_chans: int, **settings) -> Preprocess:
    if in_chans == 1:
        return Preprocess(mean=(0.286,), std=(0.354,), **settings)
    return Preprocess(**settings)


def torchvisions(preprocess: Preprocess) -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.Resize(
                int(preprocess.size / preprocess.crop_ratio), InterpolationMode(preprocess.interpolation)
            ),
            transforms.CenterCrop(preprocess.size),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.875, 0.95])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_equal_to_torchvision(size, interpolation, crop_ratio, in_chans):
    preprocess = preprocess_for(in_chans, size=56, crop_ratio=crop_ratio, interpolation=interpolation)
    image = noise(size, in_chans)
    ours = to_tensor(image, preprocess)
    assert ours.shape == (in_chans, 56, 56)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    assert torch.equal(ours, torchvisions(preprocess)(image))


def test_known_values():
    image = Image.fromarray(np.array([[0, 255], [51, 102]], np.uint8))
    tensor = to_tensor(image, Preprocess(size=2, mean=(0.2,), std=(0.5,)))
    torch.testing.assert_close(tensor, torch.tensor([[[-0.4, 1.6], [0.0, 0.4]]]))


def test_crop_image_is_what_to_tensor_sees():
    preprocess = Preprocess(size=48, crop_ratio=0.8)
    image = noise((90, 70), 3)
    crop = crop_image(image, preprocess)
    assert crop.size == (48, 48)
    assert crop.mode == "RGB"
    assert torch.equal(to_tensor(crop, Preprocess(size=48)), to_tensor(image, preprocess))


def test_the_image_stays_as_it_was():
    image = noise((56, 56), 3)
    before = np.array(image)
    to_tensor(image, Preprocess(size=56)).zero_()
    crop_image(image, Preprocess(size=56)).paste("red", (0, 0, 56, 56))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
def test_extreme_strips_are_cropped_without_resizing_all_of_them(wide):
    ramp = np.linspace(0, 255, 20 * 1000).reshape(1000, 20).round().astype(np.uint8)
    image = Image.fromarray(ramp.T.copy() if wide else ramp)
    preprocess = Preprocess(size=28, mean=(0.0,), std=(1.0,))
    expected = torchvisions(preprocess)(image)
    assert (to_tensor(image, preprocess) - expected).abs().max() <= 1.01 / 255


def test_an_endless_strip_needs_little_memory():
    # Resized whole it would have 224 x 448,000,000 pixels.
    assert to_tensor(Image.new("RGB", (1, 2_000_000), "white"), Preprocess()).shape == (3, 224, 224)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match=rf"images of mode RGB, got mode {mode}; read it with read_image"):
        to_tensor(Image.new(mode, (8, 8)), Preprocess(size=8))


def test_rgb_is_refused_by_a_grey_network():
    with pytest.raises(ValueError, match=r"images of mode L, got mode RGB; read it with read_image\(..., in_chans=1\)"):
        crop_image(Image.new("RGB", (8, 8)), preprocess_for(1, size=8))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_denormalize_undoes_to_tensor(in_chans):
    preprocess = preprocess_for(in_chans, size=32)
    image = noise((50, 40), in_chans)
    picture = denormalize(to_tensor(image, preprocess), preprocess)
    assert picture.mode == image.mode
    assert np.array_equal(picture, crop_image(image, preprocess))


def test_denormalize_clips_and_takes_any_size_and_float_type():
    preprocess = Preprocess(size=8, mean=(0.5,), std=(0.5,))
    picture = denormalize(torch.tensor([[[-9.0, 9.0, 0.0]]], dtype=torch.float64, requires_grad=True), preprocess)
    assert np.asarray(picture).tolist() == [[0, 255, 128]]


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8), (8, 8, 3)], ids=str)
def test_denormalize_takes_one_image_with_channels_first(shape):
    with pytest.raises(ValueError, match=r"expected one image of shape \(3, H, W\)"):
        denormalize(torch.zeros(shape), Preprocess(size=8))
