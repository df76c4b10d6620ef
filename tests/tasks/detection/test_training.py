"""A detector's training leaves what prediction, resuming and evaluation need, and measures what it says."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from internimage import Detector, InternImageConfig, create_model, save_checkpoint
from internimage.model import read_checkpoint
from internimage.model.checkpoints.detector_files import load_detector, save_detector
from internimage.tasks.detection.conventions import Metric, measure
from internimage.tasks.detection.precision import average_precision, coco_truth
from internimage.tasks.detection.report import detections_of

Run = Any
TINY = {"channels": 8, "groups": (1, 2, 4, 8), "depths": (1, 1, 1, 1)}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists and is not empty:UserWarning"),
]


def test_the_history_has_the_numbers_of_coco(finished: Run) -> None:
    rows = finished.history.rows
    assert len(rows) == 2
    assert {"val/map", "val/map50", "val/map75", "val/mask_map", "val/mask_map50", "train/loss", "lr"} <= set(rows[-1])
    assert all(0 <= row["val/map"] <= row["val/map50"] <= 1 for row in rows)


def test_the_exported_weights_find_what_the_task_found(finished: Run) -> None:
    """File, card and preprocessing together: the boxes of the last evaluation, picture by picture."""
    state = torch.load(finished.best, weights_only=True)["state_dict"]
    exported = load_file(finished.weights)
    assert {f"network.{key}" for key in exported} == set(state)
    detector = Detector(finished.last, device="cpu")
    assert detector.labels == finished.datamodule.labels
    assert detector.framing == finished.datamodule.preprocess
    source = finished.datamodule.dataset("val").source
    for index in finished.task.evaluated():
        image = source.read(index).image
        expected = detections_of(finished.task.results_of(index), source, (image.height, image.width))
        found = detector(image)
        assert found.names == expected.names
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        if len(found):
            assert found.masks is not None
            assert expected.masks is not None
            assert (found.masks == expected.masks).all()


def test_the_average_stands_in_for_the_weights(finished: Run) -> None:
    both = [load_detector(read_checkpoint(finished.last, ema=ema)).model.state_dict() for ema in (True, False)]
    assert any((both[0][key] != both[1][key]).any() for key in both[0])


def test_every_picture_is_judged_once(finished: Run) -> None:
    source = finished.datamodule.dataset("val").source
    assert finished.task.evaluated() == list(range(5))
    for index, picture in enumerate(source.coco.pictures):
        assert {row["image_id"] for row in finished.task.results_of(index)} <= {picture.id}
    assert len(finished.task.results()) == sum(len(finished.task.results_of(index)) for index in range(5)) > 0
    assert finished.task.results_of(99) == []
    objects = sum(len(picture.instances) for picture in source.coco.pictures)
    assert [int(each.objects.sum()) for each in finished.task.precisions.values()] == [objects, objects]


def test_the_loss_is_the_sum_of_what_is_logged(finished: Run) -> None:
    logged = {name: float(value) for name, value in finished.trainer.callback_metrics.items()}
    parts = [f"train/{name}" for name in ("rpn_class", "rpn_box", "stage0_class", "stage0_box", "stage0_mask")]
    assert logged["train/loss"] == pytest.approx(sum(logged[name] for name in parts), rel=1e-5)
    assert {name for name in logged if name.startswith("train/")} == {"train/loss", *parts}


def test_results_and_truth_are_what_pycocotools_judges(finished: Run, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = tmp_path / "results.json"
    results.write_text(json.dumps(finished.task.results()), encoding="utf-8")
    truth = COCO()
    truth.dataset = copy.deepcopy(coco_truth(finished.datamodule.dataset("val").source))
    truth.createIndex()
    for kind, precision in finished.task.precisions.items():
        judge = COCOeval(truth, truth.loadRes(str(results)), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        ours = np.nan_to_num(list(precision.metrics().values()), nan=-1)
        np.testing.assert_allclose(ours, judge.stats[:6], atol=1e-6)


def test_resumed_training_is_the_uninterrupted_one(run: Run) -> None:
    run.epochs = 2
    run.optimizer = {"lr_falls": (1,)}
    whole = load_file(run.fit().weights)
    rows = run.history.rows
    run.folder = run.folder.with_name("halves")
    run.epochs = 1
    run.fit()
    run.epochs = 2
    run.fit(resume=True)
    assert [row["train/loss"] for row in run.history.rows] == pytest.approx([row["train/loss"] for row in rows])
    halves = load_file(run.weights)
    assert all(torch.allclose(whole[key], halves[key], atol=1e-6) for key in whole)
    assert rows[1]["lr"] == pytest.approx(0.1 * 2e-3), "the rate has fallen after the first epoch"


def test_boxes_alone(run: Run) -> None:
    """Measured as other sets count, too."""
    run.data, run.model = {"masks": False}, {"metrics": ("voc", "miss_rate")}
    run.fit(max_epochs=1)
    assert not run.task.network.config.masks
    last = run.history.rows[-1]
    assert {metric: last[f"val/{metric}"] for metric in ("voc", "miss_rate")} == pytest.approx(run.task.measured)
    assert 0 <= run.task.measured["voc"] < run.task.measured["miss_rate"] <= 1
    assert set(run.task.precisions) == {"bbox"}
    assert not any("mask" in key for key in run.history.rows[-1])
    assert Detector(run.weights, device="cpu")(np.zeros((40, 60, 3), np.uint8)).masks is None


def test_data_without_masks_makes_a_detector_without(run: Run, tmp_path: Path) -> None:
    run.root = Path(shutil.copytree(run.root, tmp_path / "boxes"))
    for path in (run.root / "annotations").iterdir():
        values = json.loads(path.read_text(encoding="utf-8"))
        for each in values["annotations"]:
            del each["segmentation"]
        path.write_text(json.dumps(values), encoding="utf-8")
    run.fit(max_epochs=1)
    assert not run.task.network.config.masks
    assert not any("mask" in key for key in (*run.history.rows[-1], *run.trainer.callback_metrics))
    assert not any("segmentation" in row for row in run.task.results())
    assert not Detector(run.weights, device="cpu").has_masks


def test_a_transformer_trains_too(run: Run) -> None:
    options = {"num_queries": 20, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    run.data = {"masks": False}
    run.model = {"family": "deformable_detr", "detector_options": options | heads}
    run.fit(max_epochs=1)
    assert run.history.rows[-1]["train/loss"] > 0
    assert "val/map" in run.history.rows[-1]
    assert Detector(run.weights, device="cpu").labels == run.datamodule.labels


def test_masks_are_not_asked_of_transformers(run: Run) -> None:
    run.model = {"family": "d_fine"}
    with pytest.raises(ValueError, match="finds boxes alone; set masks to false"):
        run.build()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"detector_options": {"fpn_chanels": 16}}, "unknown detector_options"),
        ({"model_options": {"chanels": 16}}, "unknown model_options"),
        ({"family": "yolo"}, "family must be one of rcnn, cascade"),
        (
            {"model_options": {"stem_strides": [1, 1]}},
            r"maps of strides \(4, 8, 16, 32\), but stem_strides \(1, 1\) make",
        ),
        ({"model_options": {"in_chans": 1}}, "a detector takes RGB pictures; leave in_chans 1 out"),
    ],
)
def test_unknown_settings(run: Run, model: dict[str, Any], message: str) -> None:
    run.model = model
    with pytest.raises(ValueError, match=message):
        run.build()


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_boxes_keep_32_bits(run: Run, precision: str) -> None:
    with pytest.raises(ValueError, match=f"precision 32-true, bf16-mixed or 16-mixed, not {precision}"):
        run.fit(precision=precision)


def test_begins_with_a_classifiers_backbone(run: Run, tmp_path: Path) -> None:
    """Its head stays behind; the detector's layer scale, which it has not, begins at 1 and changes nothing."""
    config = InternImageConfig.from_variant("femto", num_classes=7, **TINY)
    path = save_checkpoint(create_model(config), tmp_path / "seven.safetensors")
    for more in ({}, {"layer_scale": 1.0}):
        run.model = {"pretrained": str(path), "model_options": {**TINY, **more}}
        mine, theirs = run.build().task.network.state_dict(), load_file(path)
        taken = [key for key in mine if key in theirs]
        assert all(torch.equal(mine[key], theirs[key]) for key in taken)
        left = {key for key in mine if key.startswith("backbone.") and key not in theirs}
        assert left == {key for key in mine if "layer_scale" in key}
        assert bool(left) == bool(more)
    run.model = {"pretrained": str(path), "model_options": {**TINY, "depths": [1, 1, 2, 1]}}
    with pytest.raises(ValueError, match=r"seven\.safetensors holds .*, but the model is"):
        run.build()


def test_boxes_alone_begin_with_a_detector_of_masks(finished: Run, run: Run) -> None:
    run.data, run.model = {"masks": False}, {"pretrained": str(finished.weights)}
    mine, theirs = run.build().task.network.state_dict(), load_file(finished.weights)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert set(theirs) - set(mine) == {key for key in theirs if "mask_heads" in key}


def test_begins_with_a_detector_for_other_classes(finished: Run, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What fits is taken; the layers of its classes start anew, and it is said."""
    run.model = {"pretrained": str(finished.weights)}
    run.build()
    theirs = load_file(finished.weights)
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in run.task.network.state_dict().items())
    from internimage.structures import LabelMap
    from internimage.tasks.detection.building import load_pretrained

    names = LabelMap(tuple(f"other {index}" for index in range(len(run.datamodule.labels))))
    run.model = {}
    network = run.build().task.network
    before = copy.deepcopy(network.state_dict())
    with caplog.at_level("INFO", logger="internimage"):
        load_pretrained(network, "internimage_femto", str(finished.weights), names)
    assert "the last layers start anew" in caplog.text
    kept = "roi_heads.box_heads.0.cls.weight"
    assert torch.equal(network.state_dict()[kept], before[kept])
    assert torch.equal(network.state_dict()["rpn.head.conv.0.0.weight"], theirs["rpn.head.conv.0.0.weight"])
    run.model = {"pretrained": str(finished.weights), "detector_options": {"fpn_channels": 8}}
    with pytest.raises(ValueError, match="is another detector"):
        run.build()


def test_begins_with_a_detector_without_class_names(
    finished: Run, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As released to begin others with: of as many classes it is taken whole, and it is said."""
    path = save_detector(finished.task.network, tmp_path / "bare.safetensors")
    run.model = {"pretrained": str(path)}
    with caplog.at_level("INFO", logger="internimage"):
        mine = run.build().task.network.state_dict()
    assert all(torch.equal(tensor, mine[key]) for key, tensor in load_file(path).items())
    assert "names no classes" in caplog.text
    assert "start anew" not in caplog.text


def test_numbers_of_other_sets_are_in_the_epochs_rows(finished: Run, run: Run) -> None:
    metrics: tuple[Metric, ...] = ("voc", "miss_rate")
    run.model = {"metrics": metrics, "pretrained": str(finished.weights)}
    run.fit(max_epochs=1)
    truth = coco_truth(run.datamodule.dataset("val").source)
    for metric in metrics:
        expected = measure(metric, truth, run.task.results())
        assert run.history.rows[-1][f"val/{metric}"] == pytest.approx(expected, abs=1e-6)


def test_average_precision_of_what_was_saved(finished: Run) -> None:
    truth = coco_truth(finished.datamodule.dataset("val").source)
    again = average_precision(truth, finished.task.results(), "bbox")
    assert again.ap == pytest.approx(finished.history.rows[-1]["val/map"], abs=1e-9)
