"""Masks of polygons and run lengths, with pycocotools as the judge."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from internimage.data.detection.coco import Instance, Picture
from internimage.data.detection.rle import (
    check_rle,
    encode_masks,
    instance_masks,
    joined_mask,
    run_lengths,
    segmentation_box,
)

judge = pytest.importorskip("pycocotools.mask")

# pycocotools was built before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BOX = (0, 0, 1, 1)


def masks_of(size, *segmentations):
    instances = tuple(Instance(at, BOX, 0, each) for at, each in enumerate(segmentations))
    return instance_masks(Picture(3, Path("a.jpg"), size, instances), instances)


def random_masks():
    """Of odd sizes; noise, blobs, all, nothing, single pixels, and a last pixel."""
    generator = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 9), (9, 1), (7, 5), (64, 33), (300, 211)):
        noise = generator.random((height, width)) < 0.5
        blob = np.hypot(*np.ogrid[-height / 2 : height / 2, -width / 2 : width / 2]) < height / 3
        yield from (noise, blob[:height, :width], noise | True, noise & False)
        corner = np.zeros((height, width), bool)
        corner[-1, -1] = True
        yield corner


def test_masks_by_hand():
    """The columns of 3 rows: a run over two columns, and a square of two polygons that touch."""
    runs = {"size": [3, 4], "counts": [2, 3, 7]}
    polygons = [[0, 0, 2, 0, 2, 3, 0, 3], [2, 0, 3, 0, 3, 1, 2, 1]]
    masks = masks_of((3, 4), runs, polygons)
    assert masks.dtype == bool
    assert masks.shape == (2, 3, 4)
    assert masks.astype(int).tolist() == [
        [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]],
        [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
    ]
    assert masks_of((3, 4)).shape == (0, 3, 4)
    assert segmentation_box(runs) == (0, 0, 2, 3)
    assert segmentation_box(polygons) == (0, 0, 3, 3)


def test_joined_masks_are_any_of_the_masks():
    """Run lengths, compressed ones and polygons together; each alone; none; no segmentation."""
    runs = {"size": [5, 6], "counts": [2, 3, 25]}
    compressed = encode_masks(np.arange(30).reshape(1, 5, 6) % 7 == 0)[0]
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    for segmentations in ((runs, compressed, polygon), (runs,), (compressed,), (polygon,), ()):
        instances = tuple(Instance(at, BOX, 0, each) for at, each in enumerate(segmentations))
        found = joined_mask(Picture(3, Path("a.jpg"), (5, 6), instances), instances)
        assert (found.dtype, found.shape) == (bool, (5, 6))
        np.testing.assert_array_equal(found, masks_of((5, 6), *segmentations).any(0))
    with pytest.raises(ValueError, match="has no segmentation"):
        joined_mask(Picture(3, Path("a.jpg"), (5, 6), ()), [Instance(1, BOX, 0, None)])


def test_encoding_and_decoding_agree_with_the_judge():
    for mask in random_masks():
        code = judge.encode(np.asfortranarray(mask, np.uint8))
        expected = {"size": list(mask.shape), "counts": code["counts"].decode()}
        assert encode_masks(mask[None]) == [expected]
        json.dumps(expected)
        assert check_rle(expected, mask.shape) is None
        assert check_rle({**expected, "counts": run_lengths(expected)}, mask.shape) is None
        uncompressed = {**expected, "counts": run_lengths(expected)}
        np.testing.assert_array_equal(masks_of(mask.shape, expected, uncompressed), [mask, mask])
        x, y, width, height = judge.toBbox(code).tolist()
        if mask.any():
            assert segmentation_box(expected) == segmentation_box(uncompressed) == (x, y, x + width, y + height)
        else:
            assert segmentation_box(expected) == (0, 0, 0, 0)


def test_our_run_lengths_are_the_masks():
    """Decoded by repetition, without any library."""
    for mask in random_masks():
        counts = run_lengths(encode_masks(mask[None])[0])
        values = np.arange(len(counts)) % 2 == 1
        np.testing.assert_array_equal(np.repeat(values, counts).reshape(mask.shape[::-1]).T, mask)


def test_polygons_as_the_judge_draws_them():
    generator = np.random.default_rng(1)
    for _ in range(50):
        height, width = generator.integers(5, 80, 2).tolist()
        # A few points lie outside.
        polygons = [
            (generator.uniform(-0.2, 1.2, (count, 2)) * (width, height)).round(2).ravel().tolist()
            for count in generator.integers(3, 9, 2)
        ]
        expected = judge.decode(judge.merge(judge.frPyObjects(polygons, height, width)))
        np.testing.assert_array_equal(masks_of((height, width), polygons)[0], expected)


def test_many_masks_at_once():
    masks = np.random.default_rng(2).random((40, 19, 23)) < 0.3
    codes = encode_masks(masks)
    assert len(codes) == 40
    np.testing.assert_array_equal(masks_of((19, 23), *codes), masks)
    assert encode_masks(masks[:0]) == []


BROKEN = {
    "sum": ([4, 4], "its counts sum to 8, not to 3 x 4 = 12 pixels"),
    "compressed_sum": ("44", "its counts sum to 8, not to 3 x 4 = 12 pixels"),
    "negative": ([14, -2], "a count is negative (-2)"),
    # 4, 4, 4, then 4 less 9: the fourth number is a difference to the second.
    "compressed_negative": ("444G", "a count is negative (-5)"),
    "fraction": ([4, 8.0], "its counts must be whole numbers"),
    "truth": ([11, True], "its counts must be whole numbers"),
    "nothing": ([], "its counts sum to 0, not to 3 x 4 = 12 pixels"),
    "empty": ("", "its counts sum to 0, not to 3 x 4 = 12 pixels"),
    "missing": (None, "its counts must be a list of numbers or a text, got None"),
    "letter": ("4é", "its counts hold the character 'é', which compressed counts never do"),
    "low": ("4 8", "its counts hold the character ' ', which compressed counts never do"),
    "unfinished": ("4h", "its counts end in the middle of a number"),
    "endless": ("o" * 20, "its counts hold a number of more than 40 bits"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_run_lengths(case):
    counts, reason = BROKEN[case]
    assert check_rle({"size": [3, 4], "counts": counts}, (3, 4)) == reason


@pytest.mark.parametrize("size", [[4, 3], [3], None, "34", [3.0, 4.0]])
def test_sizes_of_run_lengths(size):
    assert check_rle({"size": size, "counts": [12]}, (3, 4)) == f"its size is {size!r}, but the picture's is [3, 4]"


def test_objects_without_masks():
    with pytest.raises(ValueError, match=r"annotation 1 \(image 3, a.jpg\) has no segmentation; a detector of masks"):
        masks_of((3, 4), {"size": [3, 4], "counts": [12]}, None)
    with pytest.raises(ValueError, match=r"masks must have shape \(R, H, W\), got \(3, 4\)"):
        encode_masks(np.zeros((3, 4), bool))


def test_without_the_library(monkeypatch):
    usual = builtins.__import__

    def refuse(name, *rest, **named):
        if name.startswith("faster_coco_eval"):
            raise ImportError("No module named 'faster_coco_eval'", name=name)
        return usual(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'internimage-torch\[detection\]'"):
        encode_masks(np.zeros((1, 3, 4), bool))
