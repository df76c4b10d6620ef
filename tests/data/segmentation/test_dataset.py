"""Samples: images as prediction sees them, labels at the picture's own size; batches of any sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from internimage.data.detection.images import resize_bilinear
from internimage.data.segmentation import Batch, Raw, SegmentationDataset, collate, view
from internimage.data.segmentation.augment import SegmentationAugmentation
from internimage.structures import Colour, LabelMap, Viewing


class Listed:
    """A source of given pictures."""

    labels = LabelMap(("sky", "road"))
    palette: tuple[Colour, ...] = ((0, 0, 255), (90, 90, 90))

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, index: int) -> Raw:
        rng = np.random.default_rng(index)
        image = Image.fromarray(rng.integers(0, 256, (*self.sizes[index], 3), np.uint8))
        return Raw(image, rng.integers(0, 2, self.sizes[index], np.uint8))

    def name(self, index: int) -> str:
        return str(index)


def noise(height: int, width: int) -> Image.Image:
    return Listed((height, width)).read(0).image


@pytest.mark.parametrize(
    ("frame", "multiple", "sizes"),
    [
        (None, 1, [(30, 50)]),
        (None, 32, [(30, 50), (32, 64)]),
        ((60, 200), 1, [(30, 50), (60, 100)]),
        ((60, 80), 1, [(30, 50), (48, 80)]),
        ((60, 200), 32, [(30, 50), (60, 100), (64, 128)]),
        ((64, 128), 32, [(32, 64), (64, 128)]),
    ],
)
def test_views_by_hand(frame: tuple[int, int] | None, multiple: int, sizes: list[tuple[int, int]]) -> None:
    """Fitted, then stretched: two resizings, each as OpenCV's."""
    image = noise(*sizes[0])
    expected = np.asarray(image)
    for height, width in sizes[1:]:
        expected = resize_bilinear(expected, height, width)
    found = view(image, Viewing(frame=frame, multiple=multiple))
    assert (found.dtype, tuple(found.shape)) == (torch.uint8, (3, *sizes[-1]))
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_views_are_copies_of_rgb_pictures() -> None:
    image = noise(4, 4)
    before = np.array(image)
    view(image, Viewing(frame=None)).zero_()
    np.testing.assert_array_equal(np.asarray(image), before)
    with pytest.raises(ValueError, match="a segmenter takes RGB, got an image of mode L; read_image converts it"):
        view(image.convert("L"), Viewing())


def test_for_measuring_labels_keep_their_size() -> None:
    source = Listed((30, 50), (20, 20))
    dataset = SegmentationDataset(source, Viewing(frame=(60, 200)))
    assert (len(dataset), dataset.labels, dataset.palette) == (2, source.labels, source.palette)
    sample = dataset[0]
    assert (tuple(sample.image.shape), sample.index, sample.labels.dtype) == ((3, 60, 100), 0, torch.uint8)
    np.testing.assert_array_equal(sample.labels.numpy(), source.read(0).labels)
    assert SegmentationDataset(source)[1].image.shape[1:] == (512, 512), "the usual frame"


def test_for_training_both_have_the_crop_s_size() -> None:
    dataset = SegmentationDataset(Listed((30, 50)), Viewing(frame=None), SegmentationAugmentation(crop=(24, 40)))
    sample = dataset[0]
    assert (tuple(sample.image.shape), sample.image.dtype) == ((3, 24, 40), torch.uint8)
    assert (tuple(sample.labels.shape), sample.labels.dtype) == ((24, 40), torch.uint8)


def test_batches_of_any_sizes() -> None:
    dataset = SegmentationDataset(Listed((30, 50), (20, 20)), Viewing(frame=(10, 20)))
    batch = collate([dataset[1], dataset[0]])
    assert isinstance(batch, Batch)
    assert (len(batch), batch.indices) == (2, [1, 0])
    assert [tuple(each.shape) for each in batch.images] == [(3, 10, 10), (3, 10, 17)]
    assert [tuple(each.shape) for each in batch.labels] == [(20, 20), (30, 50)]
    moved = batch.to("meta", non_blocking=True)
    assert {each.device.type for each in (*moved.images, *moved.labels)} == {"meta"}
    assert moved.indices == [1, 0]
