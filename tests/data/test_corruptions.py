"""Every change of a picture, by hand where a hand can do it, and what all of them promise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from internimage.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption

ALL = [pytest.param(each, id=name) for name, each in CORRUPTIONS.items()]


def picture(side: int = 32, channels: int = 3) -> Tensor:
    """Smooth, of all brightnesses, in 256 levels."""
    coarse = torch.rand(1, channels, 5, 5, generator=torch.Generator().manual_seed(3))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0]
    return smooth.mul(255).round() / 255


def point(side: int) -> Tensor:
    """White in the middle of black."""
    image_CHW = torch.zeros(1, side, side)
    image_CHW[0, side // 2, side // 2] = 1
    return image_CHW


def moments(image_CHW: Tensor) -> Tensor:
    """The matrix of second moments (y, x) about the middle, of what sums to one."""
    side = image_CHW.shape[-1]
    steps = torch.arange(side, dtype=torch.float32) - side // 2
    places = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
    return (places * image_CHW.flatten()) @ places.T


@pytest.mark.parametrize("corruption", ALL)
@pytest.mark.parametrize(("side", "channels"), [(32, 3), (33, 1), (96, 3)])
def test_what_all_promise(corruption: Corruption, side: int, channels: int) -> None:
    image = picture(side, channels)
    before, errors = image.clone(), []
    for severity in range(1, SEVERITIES + 1):
        changed = corruption(image, severity, 5)
        assert changed.shape == image.shape
        assert changed.dtype == torch.float32
        assert torch.equal(changed, (changed * 255).round() / 255), "256 levels"
        assert torch.equal(changed, corruption(image, severity, 5))
        errors.append(float((changed - image).square().mean()))
    assert torch.equal(image, before)
    if channels == 1 and corruption.name == "saturation":
        assert max(errors) == 0, "grey has no colour"
        return
    assert errors[-1] > errors[0]
    assert max(errors) > 1e-4
    for severity in (0, 6):
        with pytest.raises(ValueError, match=f"severity must be from 1 to 5, got {severity}"):
            corruption(image, severity, 0)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur"])
def test_random_ones_differ_between_pictures(name: str) -> None:
    assert not torch.equal(CORRUPTIONS[name](picture(), 3, 0), CORRUPTIONS[name](picture(), 3, 1))


def test_translation_is_by_whole_pixels_in_four_directions() -> None:
    """An eighth of 32 pixels, of 96: 4, 12; what comes in is mirrored."""
    for side, by in ((32, 4), (96, 12)):
        image = picture(side)
        right, left, down, up = (CORRUPTIONS["translation"](image, 2, number) for number in range(4))
        assert torch.equal(right[..., by:], image[..., :-by])
        assert torch.equal(right[..., :by], image[..., :by].flip(-1))
        assert torch.equal(left[..., :-by], image[..., by:])
        assert torch.equal(down[:, by:], image[:, :-by])
        assert torch.equal(up[:, :-by], image[:, by:])


def test_rotation_turns_both_ways() -> None:
    image, rotate = picture(), CORRUPTIONS["rotation"].change
    assert torch.allclose(rotate(image, 90, 0), torch.rot90(image, 1, (1, 2)), atol=1e-4)
    assert torch.allclose(rotate(image, 90, 1), torch.rot90(image, -1, (1, 2)), atol=1e-4)
    assert torch.allclose(rotate(image, 0, 0), image, atol=1e-5)


def test_zoom_keeps_the_middle() -> None:
    """A disc of radius 6 becomes one of radius 12, or 3."""
    steps = torch.arange(64) - 31.5
    disc = (torch.hypot(*torch.meshgrid(steps, steps, indexing="ij")) < 6).float()[None]
    area = math.pi * 36
    zoom = CORRUPTIONS["zoom_in"].change
    assert float(disc.sum()) == pytest.approx(area, rel=0.03)
    assert float(zoom(disc, 2.0, 0).sum()) == pytest.approx(4 * area, rel=0.03)
    middle = zoom(disc, 0.5, 0)[:, 24:40, 24:40]
    assert float(middle.sum()) == pytest.approx(area / 4, rel=0.03)
    assert torch.allclose(middle, middle.flip(1), atol=1e-5)


def test_noise_has_the_deviation_that_it_says() -> None:
    grey = torch.full((3, 128, 128), 0.5)
    gaussian, shot = (CORRUPTIONS[name].change for name in ("gaussian_noise", "shot_noise"))
    assert float((gaussian(grey, 0.04, 0) - grey).std()) == pytest.approx(0.04, rel=0.02)
    assert torch.allclose((gaussian(grey, 0.1, 0) - grey), 2.5 * (gaussian(grey, 0.04, 0) - grey), atol=1e-6)
    # Of a Poisson number the variance is the mean: 0.5 / 60.
    assert float((shot(grey, 60, 0) - grey).var()) == pytest.approx(0.5 / 60, rel=0.03)
    assert float(shot(grey, 60, 0).mean()) == pytest.approx(0.5, rel=0.01)


def test_impulses_are_black_or_white() -> None:
    grey = torch.full((3, 128, 128), 0.5)
    changed = CORRUPTIONS["impulse_noise"].change(grey, 0.12, 0)
    assert sorted(changed.unique().tolist()) == [0, 0.5, 1]
    for value in (0, 1):
        assert float((changed == value).float().mean()) == pytest.approx(0.06, rel=0.06)


def test_a_point_becomes_what_the_blur_says() -> None:
    gaussian, defocus, motion = (CORRUPTIONS[f"{name}_blur"].change for name in ("gaussian", "defocus", "motion"))
    spread = gaussian(point(101), 2 / 101, 0)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(moments(spread), 4 * torch.eye(2), atol=0.1)
    disc = defocus(point(101), 3.5 / 101, 0)[0]
    assert float(disc.sum()) == pytest.approx(1, abs=1e-5)
    # Pixels up to 3 from the middle are within, from 4 on outside.
    assert disc[50, 47] == disc[50, 50] == disc[52, 52] > 0
    assert disc[50, 54] == disc[46, 50] == disc[53, 53] == 0
    line = motion(point(101), 20 / 101, 4)
    assert float(line.sum()) == pytest.approx(1, abs=1e-5)
    across, along = torch.linalg.eigvalsh(moments(line)).tolist()
    # Of a line of length 20 the variance is 400 / 12; across it is a triangle of width 2: 1 / 6.
    assert along == pytest.approx(400 / 12, rel=0.1)
    assert across == pytest.approx(1 / 6, abs=0.1)


def test_light_and_colour_by_hand() -> None:
    image = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1).expand(3, 8, 8)
    brightness, contrast, saturation = (CORRUPTIONS[name] for name in ("brightness", "contrast", "saturation"))
    assert brightness(image, 1, 0)[:, 0, 0].tolist() == pytest.approx([0.24, 0.48, 0.72], abs=0.002)
    assert brightness(image, 1, 1)[:, 0, 0].tolist() == pytest.approx([0.2 / 1.2, 0.4 / 1.2, 0.5], abs=0.002)
    # Of this colour the grey value is 0.2989 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6 = 0.363.
    assert contrast(image, 2, 0)[:, 0, 0].tolist() == pytest.approx([0.265, 0.385, 0.505], abs=0.003)
    assert saturation(image, 5, 0)[:, 0, 0].tolist() == pytest.approx([0.363] * 3, abs=0.003)
    assert saturation(image, 1, 1)[:, 0, 0].tolist() == pytest.approx([0.135, 0.415, 0.695], abs=0.003)


def test_pixels_become_larger() -> None:
    changed = CORRUPTIONS["pixelate"].change(picture(32), 0.25, 0)
    blocks = changed.view(3, 8, 4, 8, 4)
    assert torch.equal(blocks, blocks[:, :, :1, :, :1].expand_as(blocks))


def test_jpeg_is_that_of_a_file(tmp_path: Path) -> None:
    for channels in (1, 3):
        image = picture(32, channels)
        levels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(levels).save(tmp_path / "a.jpg", quality=25)
        with Image.open(tmp_path / "a.jpg") as stored:
            values = torch.from_numpy(np.array(stored)).view(32, 32, channels).permute(2, 0, 1)
        assert torch.equal(CORRUPTIONS["jpeg"](image, 3, 0), values.float() / 255)
