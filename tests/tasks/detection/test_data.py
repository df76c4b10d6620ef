"""Which pictures a detector trains on, with which masks, and what is said when they are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from internimage.data.detection.augment import DetectionAugmentation
from internimage.structures import Framing, LabelMap
from internimage.tasks.detection import DetectionData
from internimage.tasks.detection.precision import average_precision, category_ids, coco_truth

Run = Any


@pytest.fixture
def own(scenes: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(scenes, tmp_path / "own"))


def change(root: Path, split: str, edit: Any) -> None:
    path = root / f"annotations/{split}.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def without_masks(values: dict[str, Any]) -> None:
    for each in values["annotations"]:
        del each["segmentation"]


def data(root: Path | str, **settings: Any) -> DetectionData:
    return DetectionData(str(root), num_workers=0, **settings)


def test_a_folder_of_coco_files(scenes: Path) -> None:
    found = data(scenes, frame=(64, 96), batch_size=4)
    found.setup("fit")
    assert (len(found.dataset("train")), len(found.dataset("val")), found.masks) == (6, 5, True)
    batch = next(iter(found.train_dataloader()))
    assert batch.images.shape == (4, 3, 64, 96)
    assert batch.masks is not None
    assert [len(each) for each in batch.boxes] == [len(each) for each in batch.masks]
    assert len(found.train_dataloader()) == 1, "an incomplete batch is dropped"
    assert len(found.val_dataloader()) == 2


def test_scenes_need_no_files() -> None:
    found = data("scenes")
    assert found.preprocess == Framing((128, 128))
    assert (len(found.labels), found.masks, data("scenes", masks=False).masks) == (10, True, False)
    assert not set(found.dataset("train").source.items) & set(found.dataset("val").source.items)


def test_files_that_lie_elsewhere(scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "images/val", tmp_path / "photos")
    shutil.copy(scenes / "annotations/val.json", tmp_path / "labels.json")
    pair = ["labels.json", "photos"]
    found = data(tmp_path, files={"train": pair, "val": pair})
    found.setup("fit")
    assert len(found.dataset("train")) == 5
    with pytest.raises(ValueError, match=r"files needs \[annotations, images\]"):
        data(tmp_path, files={"train": ["labels.json"]})


def test_missing_splits(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="internimage"):
        assert len(data(own).dataset("test")) == 5
    assert "the validation pictures stand in" in caplog.text
    (own / "annotations/val.json").unlink()
    with pytest.raises(ValueError, match="has no val split"):
        data(own).setup("fit")
    (own / "annotations/train.json").unlink()
    with pytest.raises(ValueError, match=r"holds no annotations/train\.json .*`internimage data coco"):
        data(own).setup("fit")


def test_masks_where_there_are_none(own: Path) -> None:
    change(own, "train", without_masks)
    assert data(own).masks is False
    assert data(own, masks=False).masks is False
    with pytest.raises(ValueError, match=r"objects without a mask: \d+ \(the first is annotation 1\)"):
        _ = data(own, masks=True).masks
    assert data(own).dataset("train")[0].masks is None


def test_masks_that_only_training_has(own: Path) -> None:
    """Said before training, not by the first validation."""
    change(own, "val", without_masks)
    with pytest.raises(
        ValueError, match=r"val\.json: objects without a mask: \d+ \(the first is annotation 1\); set data"
    ):
        data(own).setup("fit")
    boxes = data(own, masks=False)
    boxes.setup("fit")
    assert boxes.dataset("val")[0].masks is None


def test_what_is_wrong_shows_before_training(own: Path) -> None:
    def spoil(values: dict[str, Any]) -> None:
        values["annotations"][0]["bbox"][0] = float("nan")

    change(own, "val", spoil)
    with pytest.raises(
        ValueError, match=r"val\.json has one thing to mend first: .*annotation 1 .*internimage data check"
    ):
        data(own).setup("fit")


def test_what_is_mended_is_said(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(values: dict[str, Any]) -> None:
        values["annotations"][0]["bbox"][2] = 0

    change(own, "train", spoil)
    with caplog.at_level("INFO", logger="internimage"):
        data(own).setup("fit")
    assert "boxes without area left out: 1" in caplog.text


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning")
def test_pictures_without_objects_train(own: Path, run: Run) -> None:
    def empty(values: dict[str, Any]) -> None:
        values["annotations"] = [each for each in values["annotations"] if each["image_id"] % 2]

    change(own, "train", empty)
    run.root = own
    run.fit(max_epochs=1)
    assert torch.tensor(run.history.rows[-1]["train/loss"]).isfinite()


def test_category_ids_of_another_order(own: Path) -> None:
    """The validation file counts its categories otherwise, and lacks one: labels are the training's all the same."""

    def renumber(values: dict[str, Any]) -> None:
        values["categories"] = [{"id": 100 - each["id"], "name": each["name"]} for each in values["categories"]]
        for each in values["annotations"]:
            each["category_id"] = 100 - each["category_id"]
        used = {each["category_id"] for each in values["annotations"]}
        unused = next(each for each in values["categories"] if each["id"] not in used)
        values["categories"].remove(unused)

    plain = data(own)
    expected = [plain.dataset("val").source.read(index).labels.tolist() for index in range(5)]
    change(own, "val", renumber)
    other = data(own)
    source = other.dataset("val").source
    assert source.labels == other.labels == plain.labels
    assert isinstance(other.labels, LabelMap)
    assert [source.read(index).labels.tolist() for index in range(5)] == expected
    ids = category_ids(source)
    assert len(set(ids)) == len(ids), "a class that the file does not know has an id of its own"
    truth = coco_truth(source)
    perfect = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 1.0}
        for each in truth["annotations"]
    ]
    assert average_precision(truth, perfect, "bbox").ap == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning")
def test_the_evaluation_counts_by_the_trainings_labels(own: Path, run: Run) -> None:
    """Of a validation file that numbers its categories backwards and lacks the first class of the training."""

    def backwards(values: dict[str, Any]) -> None:
        dropped = {each["id"] for each in values["categories"] if each["name"] == first}
        values["annotations"] = [each for each in values["annotations"] if each["category_id"] not in dropped]
        values["categories"] = [
            {"id": 50 - each["id"], "name": each["name"]} for each in values["categories"] if each["id"] not in dropped
        ]
        for each in values["annotations"]:
            each["category_id"] = 50 - each["category_id"]

    first = data(own).labels[0]
    change(own, "val", backwards)
    run.root = own
    run.build()
    run.trainer.validate(run.task, run.datamodule, verbose=False)
    source = run.datamodule.dataset("val").source
    assert category_ids(source) == (49, *range(48, 39, -1)), "the first has an id that the file does not use"
    counts = np.bincount([label for index in range(5) for label in source.read(index).labels], minlength=10)
    precision = run.task.precisions["bbox"]
    assert precision.objects.tolist() == counts.tolist()
    assert np.isnan(precision.per_class[0]).tolist() == (counts == 0).tolist()
    assert {row["category_id"] for row in run.task.results()} <= set(category_ids(source))


def test_classes_that_training_does_not_know_are_refused(own: Path) -> None:
    def another(values: dict[str, Any]) -> None:
        values["categories"].append({"id": 99, "name": "Umbrella"})

    change(own, "val", another)
    with pytest.raises(ValueError, match=r"val\.json: category 99: the training set has no class 'Umbrella'"):
        data(own).setup("validate")


def test_the_names_of_coco_itself(scenes: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(scenes / "images" / split, tmp_path / f"{split}2017")
        target = tmp_path / f"annotations/instances_{split}2017.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(scenes / f"annotations/{split}.json", target)
    found = data(tmp_path)
    found.setup("fit")
    assert [len(found.dataset(split)) for split in ("train", "val")] == [6, 5]
    assert found.preprocess == Framing((800, 1333))


def test_test_pictures_where_there_are_some(own: Path) -> None:
    shutil.copytree(own / "images/train", own / "images/test")
    shutil.copy(own / "annotations/train.json", own / "annotations/test.json")
    found = data(own)
    found.setup("test")
    assert len(found.dataset("test")) == 6
    assert found.dataset("test").augmentation is None
    assert found.dataset("train").augmentation == DetectionAugmentation()


def test_a_crowd_needs_no_mask(own: Path) -> None:
    """It is left out of training anyway, and what is found in it counts neither as right nor as wrong."""

    def crowd(values: dict[str, Any]) -> None:
        values["annotations"][0]["iscrowd"] = 1
        del values["annotations"][0]["segmentation"]

    plain = sum(len(data(own).dataset("train")[index].boxes) for index in range(6))
    for split in ("train", "val"):
        change(own, split, crowd)
    found = data(own, masks=True, augmentation=DetectionAugmentation(hflip=0))
    found.setup("fit")
    assert sum(len(found.dataset("train")[index].boxes) for index in range(6)) == plain - 1
    truth = coco_truth(found.dataset("val").source)
    assert all("segmentation" in each for each in truth["annotations"])
    perfect = [{**each, "score": 1.0} for each in truth["annotations"][1:]]
    inside = {**truth["annotations"][0], "score": 0.9, "segmentation": perfect[0]["segmentation"]}
    for kind in ("bbox", "segm"):
        assert average_precision(truth, perfect, kind).ap == pytest.approx(1)
    assert average_precision(truth, [*perfect, inside], "bbox").ap == pytest.approx(1)


def test_masks_that_are_not_wanted(scenes: Path) -> None:
    found = data(scenes, masks=False)
    assert found.dataset("train")[0].masks is None
    assert found.dataset("val")[0].masks is None


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"num_workers": -1}, {"frame": (96, 64)}])
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DetectionData("scenes", **settings)
