"""Which images a task sees: splits, batches, mixing in training only, and folders that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from internimage.data import SAMPLE_LABELS, SAMPLE_PREPROCESS
from internimage.data.augment import Augmentation
from internimage.structures import Preprocess
from internimage.tasks import ClassificationData

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


class Watch(Callback):
    """Keeps the batches that the steps get."""

    def __init__(self) -> None:
        self.train: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.val: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.train.append(batch)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.val.append(batch)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_images_are_mixed_and_targets_softened_in_training_only(run: Run, mixup: float) -> None:
    watch = Watch()
    none = Augmentation.none()
    mixing = Augmentation(**vars(none) | {"mixup": mixup, "cutmix": mixup})
    run.epochs, run.callbacks, run.data = 1, [watch], {"augmentation": mixing, "label_smoothing": 0.1}
    run.fit()
    dataset = run.datamodule.dataset("train")
    plain = {np.round(dataset[index][0].numpy(), 4).tobytes() for index in range(len(dataset))}
    untouched = [np.round(image.numpy(), 4).tobytes() in plain for images, _ in watch.train for image in images]
    assert len(watch.train) == 6
    assert all(untouched) == (mixup == 0)
    for images, target in watch.train:
        assert target.shape == (len(images), 10)
        torch.testing.assert_close(target.sum(1), torch.ones(len(images)))
        # Smoothing alone leaves two values in a row, mixing more.
        values = {len(row.mul(1000).round().unique()) for row in target}
        assert values == {2} if mixup == 0 else max(values) > 2
    assert len(watch.val) > 3, "the trial run is watched as well"
    for _, target in watch.val:
        assert target.dtype == torch.int64
        assert target.dim() == 1


def test_the_sample_set_by_its_name() -> None:
    data = ClassificationData("sample", batch_size=64, num_workers=0)
    assert (data.labels, data.preprocess) == (SAMPLE_LABELS, SAMPLE_PREPROCESS)
    sizes = [len(data.dataset(split)) for split in ("train", "val", "test")]
    assert sizes == [4500, 500, 1000]
    images, targets = next(iter(data.val_dataloader()))
    assert images.shape == (64, 1, 28, 28)
    assert targets[:3].tolist() == [data.dataset("val")[index][1] for index in range(3)]
    colour = ClassificationData("sample", preprocess=Preprocess(32), num_workers=0, batch_size=2)
    assert next(iter(colour.val_dataloader()))[0].shape == (2, 3, 32, 32)


def test_image_size_is_shorthand(images: Path) -> None:
    assert ClassificationData(str(images)).preprocess == Preprocess(224)
    assert ClassificationData(str(images), image_size=96).preprocess == Preprocess(96)
    assert ClassificationData("sample", image_size=56).preprocess.mean == SAMPLE_PREPROCESS.mean
    with pytest.raises(ValueError, match="size must be a positive number"):
        ClassificationData(str(images), image_size=0)


@pytest.mark.parametrize(
    ("batch_size", "processes", "batches"),
    [
        (25, 1, 2),  # the last ten of sixty are dropped
        (60, 1, 1),
        (64, 1, 1),  # fewer than a batch: kept, or nothing would be trained
        (30, 2, 1),
        (32, 2, 1),  # thirty for each of two processes: kept
        (12, 2, 2),  # the last six of thirty are dropped
    ],
)
def test_an_incomplete_batch_is_dropped_unless_it_is_the_only_one(
    images: Path, batch_size: int, processes: int, batches: int
) -> None:
    data = ClassificationData(str(images), batch_size=batch_size, num_workers=0)
    if processes > 1:
        data.trainer = several(processes)
    loader = data.train_dataloader()
    assert len(loader) == batches
    assert loader.drop_last == (60 // processes >= batch_size)


def several(processes: int, rank: int = 0, epoch: int = 0, batches: int = 0) -> Any:
    """What the data ask of a trainer: its processes, and where they stand."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=batches, completed=batches, ready=batches))
    epochs = SimpleNamespace(current=SimpleNamespace(processed=epoch, completed=epoch))
    loop = SimpleNamespace(epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=progress))
    strategy = SimpleNamespace(broadcast=lambda value: value)
    return SimpleNamespace(world_size=processes, global_rank=rank, fit_loop=loop, strategy=strategy)


def test_training_is_shuffled_and_evaluation_is_not(images: Path) -> None:
    data = ClassificationData(str(images), image_size=14, augmentation=Augmentation.none(), batch_size=60)
    data.num_workers = 0
    targets: list[list[int]] = []
    for epoch in range(2):
        data.trainer = several(1, epoch=epoch)
        targets.append(next(iter(data.train_dataloader()))[1].tolist())
    assert targets[0] != targets[1]
    assert sorted(targets[0]) == sorted(targets[1])
    assert next(iter(data.val_dataloader()))[1].tolist() == sorted(next(iter(data.val_dataloader()))[1].tolist())


def test_an_epoch_is_shared_out(images: Path) -> None:
    """Processes together, and the two parts of an interrupted epoch, have each picture once, as they would at once."""

    def pictures(**place: int) -> list[Any]:
        data = ClassificationData(str(images), image_size=14, batch_size=6 // place["processes"], num_workers=0)
        data.load_state_dict({"order_seed": 5})
        data.trainer = several(**place)
        return [tuple(image.flatten().tolist()) for batch, _ in data.train_dataloader() for image in batch]

    whole = pictures(processes=1, epoch=3)
    assert len(set(whole)) == 60
    assert pictures(processes=1, epoch=3, batches=4) == whole[24:]
    halves = [pictures(processes=2, rank=rank, epoch=3) for rank in range(2)]
    for step in range(10):
        both = {*halves[0][3 * step : 3 * step + 3], *halves[1][3 * step : 3 * step + 3]}
        assert both == set(whole[6 * step : 6 * step + 6])
    assert set(pictures(processes=1, epoch=4)) & set(whole) == set(), "each epoch varies them anew"


def test_a_dataset_of_one_batch_trains(run: Run) -> None:
    run.epochs, run.data = 1, {"batch_size": 500}
    run.build()
    run.trainer.fit(run.task, datamodule=run.datamodule)
    assert run.trainer.global_step == 1
    assert run.history.rows[0]["train/loss"] > 0


def test_class_folders_alone_are_split_by_themselves(images: Path) -> None:
    data = ClassificationData(str(images / "train"), val_fraction=0.3, num_workers=0)
    train, val = ({str(path) for path in data.dataset(split).paths} for split in ("train", "val"))
    assert train
    assert val
    assert not train & val
    assert len(train | val) == 60


def test_without_test_images_validation_stands_in(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ClassificationData(str(images), num_workers=0)
    assert len(data.dataset("test")) == 30
    assert "no test images" in caplog.text


def broken(images: Path, root: Path, what: str) -> Path:
    shutil.copytree(images, root)
    if what == "an empty class":
        for path in (root / "train" / "Bag").iterdir():
            path.unlink()
    elif what == "a class only in val":
        shutil.rmtree(root / "train" / "Bag")
    elif what == "no val":
        shutil.rmtree(root / "val")
    elif what == "one class":
        for split in ("train", "val"):
            for folder in (root / split).iterdir():
                if folder.name != "Bag":
                    shutil.rmtree(folder)
    return root


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("an empty class", "class folders without images: Bag; fill or remove them"),
        ("a class only in val", "do not match the classes asked for; unexpected: Bag"),
        ("no val", "has train but no folder val"),
        ("one class", "holds only the class folder Bag"),
    ],
)
def test_what_is_wrong_with_a_folder_shows_before_training(
    images: Path, tmp_path: Path, what: str, message: str
) -> None:
    data = ClassificationData(str(broken(images, tmp_path / "broken", what)), num_workers=0)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_a_missing_folder(tmp_path: Path) -> None:
    data = ClassificationData(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        _ = data.labels


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1"),
        ({"num_workers": -1}, "num_workers must be 0 or more, got -1"),
        ({"val_fraction": 1.5}, "val_fraction must lie between 0 and 1"),
    ],
)
def test_settings_out_of_range(images: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationData(str(images / "train"), **settings).setup("fit")
