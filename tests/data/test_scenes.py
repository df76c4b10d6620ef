"""Composed pictures: the same each time, exact boxes and masks, items of one split only, and files of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from internimage.data import load_sample_arrays, open_samples
from internimage.data.detection.coco import find_coco, read_coco
from internimage.data.detection.dataset import CocoPictures
from internimage.data.samples.cutouts import cut_out
from internimage.data.scenes import BACKGROUND, SAMPLE_LABELS, Scenes, export_coco


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes("train", 60)


def test_a_scene_depends_on_seed_split_and_index_alone(scenes: Scenes) -> None:
    first, again = scenes.read(7), Scenes("train", 8).read(7)
    assert first.image.tobytes() == again.image.tobytes()
    for one, two in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, two)
    others = [scenes.read(8), Scenes("train", 8, seed=1).read(7), Scenes("val", 8).read(7)]
    assert len({raw.image.tobytes() for raw in (first, *others)}) == 4


def test_boxes_are_tight_and_masks_are_apart(scenes: Scenes) -> None:
    counts, labels = set[int](), set[int]()
    for index in range(len(scenes)):
        raw = scenes.read(index)
        assert (raw.image.mode, raw.image.size) == ("RGB", (128, 128))
        assert raw.masks is not None
        assert raw.masks.sum(0).max() == 1
        assert (raw.boxes.dtype, raw.labels.dtype, raw.masks.dtype) == (np.float32, np.int64, np.bool_)
        for (x1, y1, x2, y2), mask in zip(raw.boxes.tolist(), raw.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
        counts.add(len(raw.labels))
        labels.update(raw.labels.tolist())
    assert counts <= set(range(1, 7))
    assert len(counts) >= 4
    assert labels == set(range(10))


def test_enough_of_every_item_shows(scenes: Scenes) -> None:
    hidden = 0
    for index in range(len(scenes)):
        _, items, owners = scenes._compose(index)
        for number, item in enumerate(items, 1):
            share = (owners == number).sum() / item.mask.sum()
            assert share >= 0.6
            hidden += share < 1
    assert hidden > 10


def test_items_look_like_items(scenes: Scenes) -> None:
    """Where an item is, the picture differs from the background around it."""
    differences = []
    for index in range(20):
        raw = scenes.read(index)
        assert raw.masks is not None
        pixels, everywhere = np.asarray(raw.image, np.float64), raw.masks.any(0)
        differences += [np.abs(pixels[mask].mean(0) - pixels[~everywhere].mean(0)).max() for mask in raw.masks]
    assert np.mean(differences) > 50
    assert np.percentile(differences, 5) > 10


def test_the_label_map_agrees_with_the_masks(scenes: Scenes) -> None:
    raw, label_map = scenes.read(3), scenes.label_map(3)
    expected = np.full((128, 128), BACKGROUND)
    assert raw.masks is not None
    for mask, label in zip(raw.masks, raw.labels, strict=True):
        expected[mask] = label
    np.testing.assert_array_equal(label_map, expected)
    assert label_map.dtype == np.uint8
    assert BACKGROUND == len(scenes.labels) == 10


def test_no_item_is_in_two_splits() -> None:
    for split in ("train", "val"):
        samples = open_samples(split, transform=lambda image: image)
        np.testing.assert_array_equal(cut_out("train").labels[Scenes(split, 1).items], samples.targets)
        assert [f"train_{item:04d}" for item in Scenes(split, 1).items] == [path.stem for path in samples.paths]
    test = Scenes("test", 1)
    assert len(test.items) == 1000
    assert test.cutouts is cut_out("test")
    train, val = Scenes("train", 1), Scenes("val", 1)
    assert train.cutouts is val.cutouts is cut_out("train")
    assert not set(train.items.tolist()) & set(val.items.tolist())


def test_other_sizes() -> None:
    raw = Scenes("test", 1, size=(64, 200)).read(0)
    assert raw.image.size == (200, 64)
    assert raw.masks is not None
    assert raw.masks.shape[1:] == (64, 200)
    assert (raw.boxes[:, 3] - raw.boxes[:, 1]).max() <= 0.7 * 64


def test_cutouts_have_no_holes_but_below_handles_and_between_straps() -> None:
    items = cut_out("test")
    for label, name in enumerate(SAMPLE_LABELS):
        # Half a pixel and more is the item's.
        masks = items.opacity[items.labels == label] >= 128
        holes = [int((ndimage.binary_fill_holes(mask) & ~mask).sum() > 3) for mask in masks]
        assert (sum(holes) > 10) == (name in ("Sandal", "Bag")), name
        assert masks.any((1, 2)).all()
    images, _ = load_sample_arrays("test")
    assert (items.opacity[images > 100] >= 128).mean() > 0.98
    assert (items.opacity[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "dev"}, "split must be train, val or test, got 'dev'"),
        ({"count": 0}, "count must be 1 or more, got 0"),
        ({"size": (32, 128)}, r"size must be a height and a width of 64 pixels or more, got \(32, 128\)"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_impossible_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scenes(**{"split": "train", "count": 1, **settings})


def test_there_is_no_scene_beyond_the_last(scenes: Scenes) -> None:
    with pytest.raises(IndexError, match="scene 60 of 60"):
        scenes.read(60)


def test_files_of_scenes_are_read_back_as_they_were(tmp_path: Path) -> None:
    root, parts = tmp_path / "scenes", (Scenes("train", 5), Scenes("val", 2))
    assert export_coco(root, *parts) == [root / "annotations/train.json", root / "annotations/val.json"]
    for part in parts:
        found = find_coco(root, part.split)
        assert found is not None
        coco = read_coco(*found)
        assert (coco.labels, coco.findings) == (SAMPLE_LABELS, ())
        pictures = CocoPictures(coco, with_masks=True)
        assert len(pictures) == len(part)
        for index in range(len(part)):
            read, drawn = pictures.read(index), part.read(index)
            assert read.image.tobytes() == drawn.image.tobytes()
            for one, two in zip(read[1:], drawn[1:], strict=True):
                np.testing.assert_array_equal(one, two)
            areas = [instance.area for instance in coco.pictures[index].instances]
            assert drawn.masks is not None
            assert areas == drawn.masks.sum((1, 2)).tolist()
    content = json.loads((root / "annotations/val.json").read_text(encoding="utf-8"))
    assert [each["id"] for each in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is not empty; give the path of a new or empty folder"):
        export_coco(tmp_path, Scenes("train", 1))
    with pytest.raises(ValueError, match="give the scenes of each split once, got val, val"):
        export_coco(tmp_path / "new", Scenes("val", 1), Scenes("val", 2))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
