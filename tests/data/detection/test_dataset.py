"""Samples and batches of a detector: the plain path is that of prediction, bit for bit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from internimage.data.detection.coco import CocoSet, Instance, Picture, read_coco
from internimage.data.detection.dataset import CocoPictures, DetectionDataset, Raw, collate
from internimage.data.detection.images import prepare
from internimage.data.detection.masks import mask_boxes, resize_masks
from internimage.structures import Framing, LabelMap, Placement
from support.pictures import Listed, rectangles

SMALL = Framing((64, 96))
NUCLEI = Path(__file__).resolve().parents[4] / "shared/data/nuclei/nuclei.zip"


def test_without_augmentation_a_sample_is_what_prediction_sees() -> None:
    raw = rectangles((40, 30), (3, 4, 13, 24), (0, 0, 30, 40))
    sample = DetectionDataset(Listed([raw]), SMALL)[0]
    image, placement = prepare(raw.image, SMALL)
    assert torch.equal(sample.image, image)
    assert (sample.placement, sample.index) == (placement, 0)
    assert placement.size == (85, 64)
    # 64 / 30 and 85 / 40 input pixels to one of the picture.
    expected = torch.tensor([[3, 4, 13, 24], [0, 0, 30, 40]]) * torch.tensor([64 / 30, 2.125, 64 / 30, 2.125])
    torch.testing.assert_close(sample.boxes, expected)
    assert sample.labels.tolist() == [0, 1]
    assert sample.masks is not None
    assert sample.masks.dtype == torch.bool
    assert sample.masks[1].all()
    assert np.abs(mask_boxes(sample.masks.numpy()) - expected.numpy()).max() <= 1


def test_boxes_are_cut_at_the_border_and_dropped_when_nothing_is_left() -> None:
    raw = rectangles((64, 64), (0, 0, 10, 10), (5, 5, 9, 9), (20, 20, 64, 30))
    boxes = np.array([[-5, -5, 10, 10], [70, 5, 90, 9], [20, 20, 70, 30]], np.float64)
    sample = DetectionDataset(Listed([raw._replace(boxes=boxes)]), Framing((64, 64)))[0]
    assert sample.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 64, 30]]
    assert sample.labels.tolist() == [0, 2]
    assert sample.masks is not None
    assert sample.masks.sum((1, 2)).tolist() == [100, 440]


def test_a_batch_is_padded_once_for_images_and_masks() -> None:
    pictures = [rectangles((64, 80), (0, 0, 20, 20)), rectangles((64, 64))]
    batch = collate([DetectionDataset(Listed(pictures), SMALL)[index] for index in range(2)])
    assert len(batch) == 2
    assert batch.images.shape == (2, 3, 64, 96)
    assert [boxes.shape for boxes in batch.boxes] == [(1, 4), (0, 4)]
    assert [labels.shape for labels in batch.labels] == [(1,), (0,)]
    assert batch.masks is not None
    assert [masks.shape for masks in batch.masks] == [(1, 64, 96), (0, 64, 96)]
    assert batch.masks[0].sum() == 400
    assert batch.placements[1] == Placement((64, 64), (64, 64), (1.0, 1.0))
    assert batch.indices == [0, 1]


def test_a_batch_moves_as_a_whole() -> None:
    batch = collate([DetectionDataset(Listed([rectangles((64, 64), (0, 0, 9, 9))]), SMALL)[0]])
    moved = batch.to("meta", non_blocking=True)
    assert moved.masks is not None
    assert {each.device.type for each in (moved.images, *moved.boxes, *moved.labels, *moved.masks)} == {"meta"}
    assert moved.placements == batch.placements
    assert batch.images.device.type == "cpu"


def test_without_masks() -> None:
    pictures = [rectangles((64, 64), (0, 0, 9, 9), with_masks=False), rectangles((64, 64), (0, 0, 9, 9))]
    samples = [DetectionDataset(Listed(pictures), SMALL)[index] for index in range(2)]
    assert samples[0].masks is None
    assert collate(samples).masks is None
    assert collate(samples).to("cpu").masks is None


def test_worker_processes_take_it() -> None:
    dataset = DetectionDataset(Listed([rectangles((64, 64), (0, 0, 9, 9))] * 4), SMALL)
    loader = DataLoader(dataset, 2, collate_fn=collate, num_workers=1, multiprocessing_context="fork")
    assert [batch.indices for batch in loader] == [[0, 1], [2, 3]]


def test_masks_shrink_and_grow_by_hand() -> None:
    masks = np.array([[[1, 0, 1, 1], [0, 0, 0, 1]]], bool)
    assert resize_masks(masks, (1, 2)).astype(int).tolist() == [[[1, 1]]]
    assert resize_masks(masks, (2, 8))[0, 0].astype(int).tolist() == [1, 1, 0, 0, 1, 1, 1, 1]
    assert resize_masks(masks[:0], (5, 6)).shape == (0, 5, 6)


def test_boxes_around_masks_by_hand() -> None:
    masks = np.zeros((3, 5, 6), bool)
    masks[0, 1, 2] = masks[0, 3, 4] = True
    masks[1] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 5, 4], [0, 0, 6, 5], [0, 0, 0, 0]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


def coco(tmp_path: Path, size: tuple[int, int]) -> CocoPictures:
    Image.new("RGB", (20, 10), (9, 9, 9)).save(tmp_path / "a.png")
    square = [[2, 3, 6, 3, 6, 8, 2, 8]]
    instances = (
        Instance(1, (2, 3, 6, 8), 1, square, False, 20),
        Instance(2, (0, 0, 20, 10), 0, {"size": [10, 20], "counts": [0, 200]}, True, 200),
    )
    labels = LabelMap(("cat", "dog"))
    picture = Picture(7, tmp_path / "a.png", size, instances)
    return CocoPictures(CocoSet(tmp_path / "a.json", labels, (1, 2), (picture,), ()), with_masks=True)


def test_pictures_of_an_annotation_file_without_their_crowds(tmp_path: Path) -> None:
    source = coco(tmp_path, (10, 20))
    assert (len(source), source.labels.names) == (1, ("cat", "dog"))
    raw = source.read(0)
    assert raw.boxes.tolist() == [[2, 3, 6, 8]]
    assert raw.labels.tolist() == [1]
    assert raw.masks is not None
    assert raw.masks.shape == (1, 10, 20)
    assert mask_boxes(raw.masks).tolist() == [[2, 3, 6, 8]]
    assert CocoPictures(source.coco).read(0).masks is None


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.png \(image 7 of .*\) has 20 x 10 pixels, annotated as 10 x 20; correct"):
        coco(tmp_path, (20, 10)).read(0)


@pytest.mark.shared
@pytest.mark.skipif(not NUCLEI.is_file(), reason="the real image sets are not here")
def test_nuclei(tmp_path: Path) -> None:
    """Real masks: the boxes of the file are those around them."""
    with zipfile.ZipFile(NUCLEI) as archive:
        content = json.loads(archive.read("annotations/val.json"))
        content["images"] = content["images"][:3]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
        for image in content["images"]:
            (tmp_path / image["file_name"]).write_bytes(archive.read(f"images/val/{image['file_name']}"))
    (tmp_path / "val.json").write_text(json.dumps(content))
    source = CocoPictures(read_coco(tmp_path / "val.json", tmp_path), with_masks=True)
    raws: list[Raw] = [source.read(index) for index in range(3)]
    assert sum(len(raw.labels) for raw in raws) == len(content["annotations"])
    for raw in raws:
        assert raw.masks is not None
        np.testing.assert_array_equal(mask_boxes(raw.masks), raw.boxes)
    batch = collate([DetectionDataset(source, Framing((128, 200)))[index] for index in range(3)])
    assert batch.images.isfinite().all()
