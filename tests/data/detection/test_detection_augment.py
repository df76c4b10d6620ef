"""Varied pictures: boxes and masks follow, by hand and for all settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internimage.data.detection import augment
from internimage.data.detection.augment import DetectionAugmentation
from internimage.data.detection.dataset import DetectionDataset, Raw, Sample
from internimage.data.detection.images import normalize
from internimage.data.detection.masks import mask_boxes
from internimage.structures import Framing, Placement
from support.pictures import Listed, rectangles

FRAME = Framing((80, 120))
PICTURES = [
    rectangles((50, 70), (5, 10, 25, 40), (30, 5, 70, 20), (0, 0, 8, 6)),
    rectangles((90, 60), (10, 10, 50, 80)),
    rectangles((64, 64)),
]
SETTINGS = {
    "released_1x": DetectionAugmentation(),
    "released_3x": DetectionAugmentation(scales=(48, 64, 80), crop=True),
    "both flips": DetectionAugmentation(hflip=1, vflip=1),
    "jitter": DetectionAugmentation(jitter=(0.1, 2.0), jitter_size=96),
    "colours": DetectionAugmentation(color_jitter=0.4),
    "copy-paste": DetectionAugmentation(copy_paste=1),
    "everything": DetectionAugmentation(vflip=0.5, jitter=(0.5, 1.5), jitter_size=64, color_jitter=0.4, copy_paste=0.5),
}


def vary(settings: DetectionAugmentation, raw: Raw, framing: Framing = FRAME) -> Raw:
    return settings(raw, framing, lambda: raw)


def pixels(raw: Raw) -> np.ndarray:
    return np.asarray(raw.image)


@pytest.mark.parametrize(
    ("settings", "box", "turned"),
    [
        (DetectionAugmentation(hflip=1), [55, 10, 75, 40], (slice(None), slice(None, None, -1))),
        (DetectionAugmentation(hflip=0, vflip=1), [5, 40, 25, 70], (slice(None, None, -1), slice(None))),
        (DetectionAugmentation(hflip=0), [5, 10, 25, 40], (slice(None), slice(None))),
    ],
    ids=["left and right", "up and down", "not at all"],
)
def test_flips_move_boxes_and_masks_exactly(
    settings: DetectionAugmentation, box: list[int], turned: tuple[slice, slice]
) -> None:
    raw = rectangles((80, 80), (5, 10, 25, 40))
    varied = vary(settings, raw)
    assert varied.boxes.tolist() == [box]
    assert varied.masks is not None
    assert mask_boxes(varied.masks).tolist() == [box]
    np.testing.assert_array_equal(pixels(varied), pixels(raw)[turned])


def test_an_input_is_normalised_and_a_picture_of_its_own() -> None:
    raw = rectangles((80, 80), (5, 10, 25, 40))
    sample = DetectionDataset(Listed([raw]), FRAME, DetectionAugmentation(hflip=0))[0]
    assert torch.equal(sample.image, normalize(torch.tensor(pixels(raw)).permute(2, 0, 1), FRAME))
    assert sample.placement == Placement((80, 80), (80, 80), (1.0, 1.0))
    assert (sample.boxes.dtype, sample.labels.dtype) == (torch.float32, torch.int64)


def test_a_crop_cuts_boxes_to_what_is_left_of_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an L only its foot is in the window: the box is the foot's, not the L's cut box."""
    raw = rectangles((80, 80), (0, 0, 60, 60), (70, 70, 80, 80), (30, 45, 40, 55))
    assert raw.masks is not None
    raw.masks[0, :50, 10:] = False
    # The window begins at x 20, y 40 and is 40 pixels large.
    draws = iter([40, 20])
    monkeypatch.setattr(augment, "_integer", lambda low, high: next(draws))
    cut = augment._close(augment._cut(augment._open(raw), (160, 80), [80, 40]))
    assert cut.labels.tolist() == [0, 2]
    assert cut.boxes.tolist() == [[0, 10, 40, 20], [10, 5, 20, 15]]
    np.testing.assert_array_equal(pixels(cut), pixels(raw)[40:80, 20:60])
    assert cut.masks is not None
    np.testing.assert_array_equal(cut.masks, raw.masks[[0, 2], 40:80, 20:60])

    draws = iter([40, 20])
    cut = augment._close(augment._cut(augment._open(raw._replace(masks=None)), (80, 80), [40, 40]))
    assert cut.boxes.tolist() == [[0, 0, 40, 20], [10, 5, 20, 15]]


def test_the_released_crops() -> None:
    """Windows of 384 to 600 pixels of a picture resized to 400, 500 or 600; both kinds of pictures occur."""
    settings, framing = DetectionAugmentation.released_3x(), Framing()
    whole, sizes = rectangles((100, 120), with_masks=False), set[tuple[int, int]]()
    for _ in range(60):
        varied = vary(settings, whole, framing)
        sizes.add((varied.image.height, varied.image.width))
    assert all(min(size) in settings.scales or max(size) == 1333 for size in sizes)
    # An uncut picture is 1.2 times as wide as high.
    uncut = [size for size in sizes if abs(size[1] - 1.2 * size[0]) <= 1]
    assert 5 <= len(uncut) < len(sizes) - 5


def test_crops_are_in_proportion_to_a_small_frame() -> None:
    torch.manual_seed(1)
    picture = augment._open(rectangles((80, 100), with_masks=False))
    heights, widths = zip(*(augment._size(augment._crop(picture, FRAME)) for _ in range(50)), strict=True)
    # Of pictures whose shorter side is 40, 50 or 60, windows of 38 to 60 pixels: half to all of the height.
    assert 50 <= min(heights) < 60 < max(heights) <= 80
    assert 50 <= min(widths) < 60 < max(widths) <= 100


def test_a_range_of_scales_gives_every_length_within_it() -> None:
    settings = DetectionAugmentation(scale_range=(40, 43))
    sizes = {vary(settings, PICTURES[2]).image.size for _ in range(60)}
    assert sizes == {(side, side) for side in (40, 41, 42, 43)}
    with pytest.raises(ValueError, match="scales must not exceed the frame's longer side, 120; got 200"):
        vary(DetectionAugmentation(scale_range=(80, 200)), PICTURES[0])


def test_scales_all_occur_within_the_frame() -> None:
    settings, sizes = DetectionAugmentation(scales=(40, 60)), set[tuple[int, int]]()
    for _ in range(20):
        sizes |= {vary(settings, raw).image.size for raw in (PICTURES[2], rectangles((20, 80)))}
    # The frame's longer side limits the second to 120 pixels.
    assert sizes == {(40, 40), (60, 60), (120, 30)}


def test_jitter_gives_one_size_and_pads_with_the_mean() -> None:
    settings = DetectionAugmentation(hflip=0, jitter=(0.5, 0.5), jitter_size=100)
    varied = vary(settings, rectangles((50, 25), (0, 0, 25, 50)))
    assert varied.boxes.tolist() == [[0, 0, 25, 50]]
    assert varied.image.size == (100, 100)
    assert (pixels(varied)[50:] == [124, 116, 104]).all()
    assert (pixels(varied)[:, 25:] == [124, 116, 104]).all()
    assert varied.masks is not None
    assert varied.masks.sum() == 25 * 50


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_boxes_stay_those_of_the_masks(settings: DetectionAugmentation) -> None:
    dataset = DetectionDataset(Listed(PICTURES), FRAME, settings)
    seen = 0
    for sample in [dataset[index] for index in range(3) for _ in range(12)]:
        assert sample.image.isfinite().all()
        assert sample.masks is not None
        assert sample.masks.shape[1:] == sample.image.shape[1:] == sample.placement.size
        assert len(sample.boxes) == len(sample.labels) == len(sample.masks)
        if settings.jitter:
            assert sample.placement.size == (settings.jitter_size, settings.jitter_size)
        if seen := seen + len(sample.boxes):
            around = torch.from_numpy(mask_boxes(sample.masks.numpy()))
            torch.testing.assert_close(sample.boxes, around, rtol=0, atol=1.0)
            assert (sample.boxes[:, 2:] - sample.boxes[:, :2] >= 1).all()
    assert seen > 20


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_the_seed_decides(settings: DetectionAugmentation) -> None:
    def draw(seed: int) -> list[Sample]:
        torch.manual_seed(seed)
        return [DetectionDataset(Listed(PICTURES), FRAME, settings)[index] for index in (0, 1, 0, 1)]

    first, again, other = draw(3), draw(3), draw(4)
    assert all(torch.equal(one.image, two.image) for one, two in zip(first, again, strict=True))
    assert all(torch.equal(one.boxes, two.boxes) for one, two in zip(first, again, strict=True))
    if settings.vflip < 1:
        same = [
            one.image.shape == two.image.shape and torch.equal(one.image, two.image)
            for one, two in zip(first, other, strict=True)
        ]
        assert not all(same)


def test_given_pictures_stay_as_they_are() -> None:
    raw = rectangles((50, 70), (5, 10, 25, 40))
    assert raw.masks is not None
    before = pixels(raw).copy(), raw.boxes.copy(), raw.masks.copy()
    for settings in SETTINGS.values():
        for _ in range(3):
            vary(settings, raw)
    for value, kept in zip(before, (pixels(raw), raw.boxes, raw.masks), strict=True):
        np.testing.assert_array_equal(value, kept)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hflip": 1.5}, r"hflip must be a probability in \[0, 1\], got 1.5"),
        ({"copy_paste": -1}, "copy_paste must be a probability"),
        ({"color_jitter": -0.1}, "color_jitter must be 0 or more"),
        ({"scales": (480, 0)}, r"scales must be lengths in pixels, 1 or more; got \(480, 0\)"),
        (
            {"scale_range": (600, 480)},
            r"scale_range must be two rising lengths in pixels, without scales; got \(600, 480",
        ),
        ({"scale_range": (480, 600), "scales": (480,)}, "scale_range must be two rising lengths"),
        ({"scale_range": (480, 600), "jitter": (0.1, 2.0)}, "leave out scales and crop"),
        ({"jitter": (2.0, 0.1)}, "jitter must be two rising positive scales, such as 0.1, 2.0"),
        ({"jitter": (0.5,)}, "jitter must be two rising"),
        ({"jitter_size": 0}, "jitter_size must be a length in pixels"),
        ({"jitter": (0.1, 2.0), "crop": True}, "leave out scales and crop"),
    ],
)
def test_impossible_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DetectionAugmentation(**settings)


def test_a_scale_beyond_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="scales must not exceed the frame's longer side, 120; got 200"):
        vary(DetectionAugmentation(scales=(80, 200)), PICTURES[0])


def test_lists_from_yaml_become_tuples() -> None:
    assert DetectionAugmentation(scales=[48, 64]) == DetectionAugmentation(scales=(48, 64))
    assert DetectionAugmentation(jitter=[0.1, 2.0]).jitter == (0.1, 2.0)
