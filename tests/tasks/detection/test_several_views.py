"""Evaluation in several views: what it finds is what `internimage.Detector` finds, and training never looks twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageOps

from internimage import Detector, Merging
from internimage.data.detection.dataset import DetectionDataset, collate
from internimage.data.detection.images import prepare
from internimage.model.checkpoints.detector_files import save_detector
from internimage.model.detection import Detected
from internimage.structures import Framing, Views
from internimage.tasks.callbacks import DivergedError
from internimage.tasks.detection.precision import category_ids, coco_results, image_id
from support.pictures import Listed, rectangles

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists and is not empty:UserWarning"),
]
DETR = {"num_queries": 20, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_ffn_dim": 32}
DETR |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32}
SIDES = (64, 96)


def predicted(detector: Detector, source: Any, index: int) -> list[dict[str, Any]]:
    """What prediction finds in a picture of a set, as evaluation writes it."""
    found = detector(source.read(index).image)
    tensors = (torch.from_numpy(each) for each in (found.boxes, found.scores, found.labels))
    masks = None if found.masks is None else torch.from_numpy(np.ascontiguousarray(found.masks))
    return coco_results(Detected(*tensors, masks), image_id(source, index), category_ids(source))


@pytest.mark.parametrize(
    ("kind", "views"),
    [
        ("rcnn", Views(SIDES, flip=True, merge="soft_nms")),
        ("rcnn", Views(flip=True, merge=Merging("box_voting", iou=0.4))),
        ("rcnn", Views((128,))),
        ("deformable_detr", Views(SIDES, merge="box_fusion")),
        ("deformable_detr", Views(flip=True)),
    ],
)
def test_evaluation_is_inference(run: Run, kind: str, views: Views) -> None:
    """The same boxes, scores and masks, bit for bit, of pictures that are looked at one by one."""
    run.data, run.model = {"batch_size": 1}, {"test_time": views}
    if kind == "deformable_detr":
        run.data |= {"masks": False}
        run.model |= {"family": kind, "detector_options": DETR}
    run.build()
    for name, each in run.task.network.named_parameters():
        if "class_embed" in name or name.endswith("cls.weight"):
            torch.nn.init.normal_(each, std=0.5)
    path = save_detector(run.task.network, run.folder / "now.safetensors", framing=run.datamodule.preprocess)
    detector = Detector(path, device="cpu", sides=views.sides, flip=views.flip, merge=views.merge)
    run.trainer.validate(run.task, datamodule=run.datamodule, verbose=False)
    source = run.datamodule.dataset("val").source
    for index in range(5):
        assert len(run.task.results_of(index)) > 0
        assert run.task.results_of(index) == predicted(detector, source, index)
    once = Detector(path, device="cpu")
    assert any(run.task.results_of(index) != predicted(once, source, index) for index in range(5))


def test_training_looks_once(run: Run) -> None:
    """Its validation is that of the usual look; the evaluation after it looks twice, also at pictures in batches."""
    run.model = {"test_time": Views(flip=True)}
    run.fit(max_epochs=1)
    dataset = run.datamodule.dataset("val")
    assert len(dataset.views) == 1
    once = {index: run.task.results_of(index) for index in run.task.evaluated()}
    for split in ("val", "test"):
        evaluate = run.trainer.validate if split == "val" else run.trainer.test
        evaluate(run.task, datamodule=run.datamodule, verbose=False)
        assert len(run.datamodule.dataset(split).views) == 2
        assert {index: run.task.results_of(index) for index in run.task.evaluated()} != once
    run.task.test_time = Views()
    run.trainer.validate(run.task, datamodule=run.datamodule, verbose=False)
    assert {index: run.task.results_of(index) for index in run.task.evaluated()} == once


def test_looks_are_made_of_the_original_picture() -> None:
    """Not of an input that was resized once already; only the first look goes to the device with the batch."""
    raw, other = rectangles((90, 70), (3, 4, 40, 60)), rectangles((50, 80), (3, 4, 40, 30))
    dataset = DetectionDataset(Listed([raw, other]), Framing((64, 96)))
    dataset.views = Views((32, 128), flip=True).of(dataset.framing)
    batch = collate([dataset[0], dataset[1]])
    assert [look.mirrored for look in batch.looks] == [False, True, False, True]
    image, placement = prepare(ImageOps.mirror(raw.image), Framing((128, 192)))
    last = batch.looks[-1]
    assert last.placements[0] == placement
    assert torch.equal(last.images[0, :, : image.shape[1], : image.shape[2]], image)
    assert batch.placements == batch.looks[1].placements
    scale = torch.tensor([*batch.placements[0].scale_xy] * 2)
    torch.testing.assert_close(batch.boxes[0], torch.tensor([[3.0, 4, 40, 60]]) * scale)
    moved = batch.to("meta")
    assert [look.images.device.type for look in moved.looks] == ["meta", "cpu", "cpu", "cpu"]


def test_a_diverged_training_is_said(run: Run) -> None:
    run.data, run.model = {"masks": False}, {"test_time": Views(flip=True)}
    run.build()
    torch.nn.init.constant_(run.task.network.state_dict()["roi_heads.box_heads.0.reg.bias"], float("nan"))
    with pytest.raises(DivergedError, match="gives boxes or scores that are not finite: its training diverged"):
        run.trainer.validate(run.task, datamodule=run.datamodule, verbose=False)
