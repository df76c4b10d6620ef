"""Scores in bands against scores computed all at once: whole, in windows, at several sizes, mirrored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from internimage.inference import scanning
from internimage.inference.scanning import Look, label_map, normalized, probabilities, scaled
from internimage.structures import Viewing

CLASSES = 5


def network(image_NCHW: Tensor) -> Tensor:
    """Scores of a quarter of the size that depend on what lies around, as a network's do."""
    weight = torch.linspace(-1, 1, CLASSES * 3 * 49).sin().view(CLASSES, 3, 7, 7)
    return functional.conv2d(image_NCHW, weight, stride=4, padding=3)


def pixels(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def bilinear(scores_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(scores_NCHW, size=size, mode="bilinear", align_corners=False)


def expected(image_CHW: Tensor, viewing: Viewing, size: tuple[int, int], mirrored: bool = False) -> Tensor:
    """As mmseg computes it, with all scores of a picture in memory."""
    image = normalized(image_CHW[None], viewing)
    image = image.flip(-1) if mirrored else image
    height, width = image.shape[-2:]
    if viewing.window is None:
        scores = bilinear(network(image), (height, width))
    else:
        (high, wide), (down, across) = viewing.window, viewing.steps
        scores, count = torch.zeros(1, CLASSES, height, width), torch.zeros(1, 1, height, width)
        for row in range(max(height - high + down - 1, 0) // down + 1):
            for column in range(max(width - wide + across - 1, 0) // across + 1):
                bottom, right = min(row * down + high, height), min(column * across + wide, width)
                top, left = max(bottom - high, 0), max(right - wide, 0)
                part = image[:, :, top:bottom, left:right]
                scores[:, :, top:bottom, left:right] += bilinear(network(part), (bottom - top, right - left))
                count[:, :, top:bottom, left:right] += 1
        assert count.min() > 0
        scores /= count
    found = bilinear(scores, size).softmax(1)[0]
    return found.flip(-1) if mirrored else found


VIEWINGS = {
    "whole": Viewing(),
    "windows": Viewing(window=(48, 40), stride=(32, 28)),
    "windows_that_only_touch": Viewing(window=(32, 32), stride=(32, 32)),
    "windows_that_overlap_thrice": Viewing(window=(48, 48), stride=(13, 16)),
    "window_larger_than_the_picture": Viewing(window=(200, 200)),
    "window_as_wide_as_the_picture": Viewing(window=(40, 101)),
}
SIZES = {"same": (90, 101), "larger": (131, 150), "smaller": (37, 66), "much_smaller": (9, 11)}


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", VIEWINGS)
def test_bands_are_the_whole(name: str, size: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = SIZES[size]
    monkeypatch.setattr(scanning, "_BAND", rows * CLASSES * width)
    image, viewing = pixels(90, 101), VIEWINGS[name]
    bands = list(probabilities(network, [Look(image, viewing)], (height, width), batch_size=2))
    assert [band.shape[1] for band in bands[:-1]] == [min(rows, height)] * (len(bands) - 1)
    torch.testing.assert_close(torch.cat(bands, 1), expected(image, viewing, (height, width)), rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", ["whole", "windows"])
def test_looks_are_averaged(name: str) -> None:
    small, large, size = pixels(60, 70), pixels(90, 105), (60, 70)
    viewing = VIEWINGS[name]
    looks = [Look(small, viewing), Look(small, viewing, mirrored=True), Look(large, viewing, mirrored=True)]
    found = torch.cat(list(probabilities(network, looks, size)), 1)
    parts = [expected(look.pixels, viewing, size, look.mirrored) for look in looks]
    torch.testing.assert_close(found, torch.stack(parts).mean(0), rtol=0, atol=1e-5)
    assert label_map(network, looks, size).equal(found.argmax(0).to(torch.uint8))
    assert not found.argmax(0).equal(parts[0].argmax(0)), "the looks must differ for this to show anything"


def test_a_window_sees_no_more_than_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tall picture, sums of a window's rows and one band are kept, whatever its height."""
    monkeypatch.setattr(scanning, "_BAND", 8 * CLASSES * 64)
    viewing, size = Viewing(window=(32, 32), stride=(16, 16)), (1600, 64)
    rows = scanning._Windows(network, Look(pixels(*size), viewing), 1)
    most = 0
    for top in range(0, 1600, 8):
        rows.read(top, top + 8)
        most = max(most, rows.sums_CRW.shape[1])
    assert most <= 32 + 8


def test_normalized_is_the_classifiers_arithmetic() -> None:
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = normalized(image, Viewing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0)))
    torch.testing.assert_close(found.flatten(), torch.tensor([-1.0, (128 / 255 - 0.25) / 0.5, 0.5]))


def test_scaled_frames_are_whole_pixels() -> None:
    assert scaled(Viewing(frame=(512, 2048)), (9, 9), 0.75).frame == (384, 1536)
    assert scaled(Viewing(frame=(511, 2047)), (9, 9), 0.5).frame == (255, 1023)
    assert scaled(Viewing(frame=None), (100, 60), 1.5).frame == (90, 150)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="scores that are not finite"):
        list(probabilities(lambda image: network(image) * float("nan"), [Look(pixels(8, 8), Viewing())], (8, 8)))


def test_scores_of_16_bits_are_resized_in_32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As autocast gives them: a label does not depend on how many bands there are."""
    image, size = pixels(90, 101), (131, 150)

    def half(image_NCHW: Tensor) -> Tensor:
        return network(image_NCHW).bfloat16()

    with_care = bilinear(bilinear(half(normalized(image[None], Viewing())).float(), (90, 101)), size)[0].argmax(0)
    for rows in (7, 1000):
        monkeypatch.setattr(scanning, "_BAND", rows * CLASSES * size[1])
        found = label_map(half, [Look(image, Viewing())], size)
        assert (found == with_care).float().mean() > 0.9999
