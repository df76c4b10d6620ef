"""Varied pictures: labels follow, by hand and for all settings; windows, padding, flips, colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from internimage.data.detection.images import fitted_size
from internimage.data.segmentation import Raw
from internimage.data.segmentation.augment import SegmentationAugmentation, distort, nearest
from internimage.structures import IGNORED, Viewing

OWN = Viewing(frame=None)
STILL = {"scale": (1.0, 1.0), "hflip": 0.0, "photometric": False}


def still(**settings: Any) -> SegmentationAugmentation:
    return SegmentationAugmentation(**{**STILL, **settings})


def drawn(labels: np.ndarray) -> Raw:
    """Each label is its pixel's colour."""
    labels = labels.astype(np.uint8)
    return Raw(Image.fromarray(np.repeat(labels[..., None], 3, 2)), labels)


def squares(height: int, width: int, side: int = 12) -> Raw:
    """A grid of squares of different classes."""
    rows, columns = np.arange(height) // side, np.arange(width) // side
    return drawn((rows[:, None] * 5 + columns * 3) % 19 * 10)


def pixels(raw: Raw) -> np.ndarray:
    return np.asarray(raw.image)


def test_nothing_changes_where_nothing_is_asked() -> None:
    raw = squares(40, 60)
    varied = still(crop=(40, 60))(raw, OWN)
    np.testing.assert_array_equal(pixels(varied), pixels(raw))
    np.testing.assert_array_equal(varied.labels, raw.labels)


@pytest.mark.parametrize(
    ("settings", "turned"),
    [
        ({"hflip": 1.0}, np.s_[:, ::-1]),
        ({"vflip": 1.0}, np.s_[::-1]),
        ({"hflip": 1.0, "vflip": 1.0}, np.s_[::-1, ::-1]),
    ],
)
def test_flips(settings: dict[str, float], turned: Any) -> None:
    raw = squares(40, 60)
    varied = still(crop=(40, 60), **settings)(raw, OWN)
    np.testing.assert_array_equal(pixels(varied), pixels(raw)[turned])
    np.testing.assert_array_equal(varied.labels, raw.labels[turned])


def test_windows_are_everywhere_and_fit() -> None:
    """Of a picture in which each pixel has its own label: the image is the same window, and every place comes."""
    raw = drawn(np.arange(6)[:, None] * 7 + np.arange(7))
    tops, lefts = set(), set()
    for _ in range(100):
        varied = still(crop=(4, 3))(raw, OWN)
        top, left = divmod(int(varied.labels[0, 0]), 7)
        tops.add(top), lefts.add(left)
        np.testing.assert_array_equal(varied.labels, raw.labels[top : top + 4, left : left + 3])
        np.testing.assert_array_equal(pixels(varied)[..., 1], varied.labels)
    assert (tops, lefts) == (set(range(3)), set(range(5)))


def test_what_the_picture_leaves_is_padded_at_the_right_and_at_the_bottom() -> None:
    raw = squares(20, 30)
    varied = still(crop=(32, 40), hflip=1.0)(raw, Viewing(frame=None, mean=(0.5, 0.25, 1.0)))
    np.testing.assert_array_equal(varied.labels[:20, :30], raw.labels[:, ::-1])
    np.testing.assert_array_equal(pixels(varied)[:20, :30], pixels(raw)[:, ::-1])
    for outside in (np.s_[20:], np.s_[:, 30:]):
        assert (varied.labels[outside] == IGNORED).all()
        assert (pixels(varied)[outside] == (128, 64, 255)).all()


@pytest.mark.parametrize("factor", [0.5, 2.0, 0.7, 1.6])
@pytest.mark.parametrize("crop", [(24, 24), (200, 200)])
def test_labels_and_picture_move_together(factor: float, crop: tuple[int, int]) -> None:
    """Where a label is that of all its neighbours, the picture shows nothing else."""
    raw = squares(84, 96)
    varied = still(crop=crop, scale=(factor, factor), hflip=0.5, most_of_one_class=1)(raw, OWN)
    around = sliding_window_view(varied.labels, (3, 3))
    inner = (around == around[..., 1:2, 1:2]).all((2, 3)) & (around[..., 1, 1] != IGNORED)
    assert inner.sum() > 0.3 * (varied.labels != IGNORED).sum()
    np.testing.assert_array_equal(pixels(varied)[1:-1, 1:-1, 0][inner], varied.labels[1:-1, 1:-1][inner])
    assert set(np.unique(varied.labels)) <= set(np.unique(raw.labels)) | {IGNORED}
    inside = varied.labels != IGNORED
    height, width = fitted_size((84, 96), (int(84 * factor), int(96 * factor)))
    assert (inside.any(1).sum(), inside.any(0).sum()) == (min(height, crop[0]), min(width, crop[1]))


@pytest.mark.parametrize(("factor", "crop"), [(0.5, (20, 20)), (2.0, (80, 80))])
def test_centres_of_squares_are_exact(factor: float, crop: tuple[int, int]) -> None:
    """Scaled as a whole, each square is found where it must be."""
    raw = squares(40, 40, side=20)
    varied = still(crop=crop, scale=(factor, factor))(raw, OWN)
    quarter, side = int(10 * factor), int(20 * factor)
    for row in range(2):
        for column in range(2):
            at = np.s_[row * side + quarter, column * side + quarter]
            expected = raw.labels[row * 20 + 10, column * 20 + 10]
            assert varied.labels[at] == expected == pixels(varied)[at][0]
    np.testing.assert_array_equal(varied.labels, nearest(raw.labels, crop))


@pytest.mark.parametrize(
    ("base", "frame", "size"), [(None, None, (40, 60)), (None, (20, 90), (20, 30)), ((10, 90), (20, 90), (10, 15))]
)
def test_what_the_scale_multiplies(
    base: tuple[int, int] | None, frame: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    varied = still(base=base, crop=(64, 64))(squares(40, 60), Viewing(frame=frame))
    inside = varied.labels != IGNORED
    assert (inside.any(1).sum(), inside.any(0).sum()) == size


def test_scales_fill_the_range() -> None:
    vary = still(scale=(0.5, 2.0), crop=(200, 200))
    sides = [int((vary(squares(40, 40), OWN).labels != IGNORED).any(0).sum()) for _ in range(60)]
    assert 20 <= min(sides) < 26
    assert 74 < max(sides) <= 80


def halves() -> Raw:
    """One class but for a strip at the right, an eighth of the width."""
    labels = np.zeros((16, 128))
    labels[:, 112:] = 1
    return drawn(labels)


def test_windows_of_one_class_are_drawn_anew() -> None:
    """A window of 16 columns of 128 is mixed enough in 3 places of 113: those with 5 to 11 of 16 columns are 7."""
    limited = [still(crop=(16, 16), most_of_one_class=0.7)(halves(), OWN).labels for _ in range(200)]
    free = [still(crop=(16, 16), most_of_one_class=1)(halves(), OWN).labels for _ in range(200)]
    shares = [[max(np.mean(each == 0), np.mean(each == 1)) < 0.7 for each in found] for found in (limited, free)]
    # 7 / 113 in one draw; 1 - (1 - 7 / 113) ** 10 = 47 % in ten, and a little more for the last one.
    assert 0.35 < np.mean(shares[0]) < 0.65
    assert np.mean(shares[1]) < 0.15


def test_ignored_pixels_have_no_share() -> None:
    """Two classes share the rest equally, so that every window is taken, the first one too."""
    labels = np.full((8, 64), IGNORED)
    labels[0], labels[1] = 0, 1
    torch.manual_seed(5)
    first = still(crop=(8, 8))(drawn(labels), OWN)
    torch.manual_seed(5)
    free = still(crop=(8, 8), most_of_one_class=1)(drawn(labels), OWN)
    np.testing.assert_array_equal(first.labels, free.labels)


def test_a_picture_of_one_class_still_trains() -> None:
    assert (still(crop=(8, 8))(drawn(np.full((20, 20), 3)), OWN).labels == 3).all()
    assert (still(crop=(8, 8))(drawn(np.full((20, 20), IGNORED)), OWN).labels == IGNORED).all()


def test_colours_change_and_labels_do_not() -> None:
    raw = squares(40, 60)
    varied = [still(crop=(40, 60), photometric=True)(raw, OWN) for _ in range(30)]
    assert all((each.labels == raw.labels).all() for each in varied)
    same = sum((pixels(each) == pixels(raw)).all() for each in varied)
    # On grey, hue does nothing and saturation neither: brightness and contrast stay away in a quarter of all.
    assert 1 <= same <= 16


def test_the_range_of_colours() -> None:
    """Grey 100 becomes 1.5 * (100 + 32) = 198 at the most and 0.5 * (100 - 32) = 34 at the least, and stays grey."""
    values = np.array([np.asarray(distort(Image.new("RGB", (1, 1), (100, 100, 100))))[0, 0] for _ in range(400)])
    assert (values == values[:, :1]).all()
    assert 34 <= values.min() < 52
    assert 180 < values.max() <= 198
    assert 0.15 < (values[:, 0] == 100).mean() < 0.35


def test_hue_and_saturation_move_a_colour() -> None:
    """Pure red keeps one channel as its largest, with others that follow the turn by at most a tenth of the circle."""
    found = np.array([np.asarray(distort(Image.new("RGB", (1, 1), (200, 60, 60))))[0, 0] for _ in range(300)]).astype(
        int
    )
    red, green, blue = found.T
    assert (red >= np.maximum(green, blue)).all(), "36 degrees are no more than orange or pink"
    assert (green > blue + 5).any()
    assert (blue > green + 5).any()
    greyness = np.minimum(green, blue) / np.maximum(red, 1)
    assert greyness.min() < 0.2 < 0.5 < greyness.max()


def test_all_randomness_is_torch_s() -> None:
    raw, vary = squares(90, 120), SegmentationAugmentation(crop=(48, 48), vflip=0.5)
    outcomes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outcomes.append([vary(raw, OWN) for _ in range(3)])
    for first, second in zip(outcomes[0], outcomes[1], strict=True):
        np.testing.assert_array_equal(pixels(first), pixels(second))
        np.testing.assert_array_equal(first.labels, second.labels)
    assert any((a.labels != b.labels).any() for a, b in zip(outcomes[0], outcomes[2], strict=True))


def test_a_picture_of_one_pixel() -> None:
    raw = Raw(Image.new("RGB", (1, 1)), np.zeros((1, 1), np.uint8))
    for _ in range(5):
        assert SegmentationAugmentation(crop=(3, 4))(raw, Viewing()).labels.shape == (3, 4)


def test_lists_of_a_yaml_file_become_tuples() -> None:
    vary = SegmentationAugmentation(scale=[1, 2], crop=[8, 16], base=[32, 64])  # pyright: ignore
    assert vary == SegmentationAugmentation(scale=(1, 2), crop=(8, 16), base=(32, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (2, 1)}, "scale must be two rising positive factors"),
        ({"scale": (0, 1)}, "scale must be two rising positive factors"),
        ({"crop": (0, 5)}, "crop must be a height and a width"),
        ({"base": (20, 10)}, "base must be the shorter and then the longer side"),
        ({"most_of_one_class": 0}, "most_of_one_class must be a share above 0"),
        ({"hflip": 1.5}, r"hflip must be a probability in \[0, 1\], got 1.5"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationAugmentation(**settings)
