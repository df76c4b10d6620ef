"""Training on shards: every picture once an epoch, resumed anywhere, measured as from folders."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from internimage.data import ImageReadError, to_tensor
from internimage.data.augment import Augmentation
from internimage.data.shards import ShardDataset, ShardSet, pack
from internimage.structures import Preprocess
from internimage.tasks import ClassificationData
from internimage.tasks.guards import Unreadable
from internimage.tasks.repeatable import EpochSampler, Position, ResumableLoader, SeededSamples
from support.shards import damage, serving

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]


@pytest.fixture(scope="module")
def packed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(images, folder, shard_mib=0.02)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_SHARDS", str(tmp_path / "cache"))


class Numbers(ShardDataset):
    """Says which picture it read."""

    def __getitem__(self, index: int) -> Any:
        super().__getitem__(index)
        return index


class Process(Position):
    """As much of a trainer as a sampler looks at."""

    def __init__(self, number: int, count: int) -> None:
        object.__setattr__(self, "global_rank", number)
        object.__setattr__(self, "world_size", count)


class PlacedSampler(EpochSampler):
    """Begins where it is told instead of asking a trainer."""

    position = Position()

    def __iter__(self) -> Any:
        return self.keys_from(self.position)


def loaded(packed: Path, number: int, count: int, workers: int, position: Position) -> list[int]:
    """What a process's real loader gives from there to the end of the epoch."""
    shards = ShardSet.open(packed / "train")
    transform = Transform()
    samples = SeededSamples(Numbers(shards, transform=transform, in_chans=1), 5)
    sampler = PlacedSampler(samples, 5, Process(number, count), batch_size=4)  # type: ignore[arg-type]
    sampler.position = position
    loader = ResumableLoader(samples, batch_size=4, sampler=sampler, num_workers=workers)
    return [index for batch in loader for index in batch.tolist()]


class Transform:
    def __call__(self, image: Any) -> torch.Tensor:
        return to_tensor(image, Preprocess(size=14, mean=(0.5,), std=(0.5,)))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_picture_once_and_resumed_anywhere(packed: Path, processes: int, workers: int) -> None:
    epochs: list[list[int]] = []
    for epoch in (0, 1):
        whole: list[int] = []
        for process in range(processes):
            here = loaded(packed, process, processes, workers, Position(epoch, 0))
            assert loaded(packed, process, processes, workers, Position(epoch, 2)) == here[8:]
            assert loaded(packed, process, processes, 0, Position(epoch, 2)) == here[8:]
            whole += here
        assert Counter(whole) == Counter(range(60))
        epochs.append(whole)
    assert epochs[0] != epochs[1]


class Stop(Callback):
    """Ctrl-C in the middle of the second epoch."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == 9:
            raise KeyboardInterrupt


VARIED: dict[str, Any] = {"augmentation": Augmentation()}


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_in_the_middle_of_an_epoch_nothing_changes(
    run: Run, packed: Path, tmp_path: Path, workers: int
) -> None:
    run.root, run.data = packed, VARIED
    whole = replace(run, folder=tmp_path / "whole").fit()
    run.callbacks = [Stop()]
    with pytest.raises(SystemExit):
        run.fit()
    run.callbacks, run.data = [], {**VARIED, "num_workers": workers}
    resumed = run.fit(resume=True)
    assert resumed.trainer.global_step == whole.trainer.global_step == 12
    one, other = whole.task.state_dict(), resumed.task.state_dict()
    assert all(one[name].equal(other[name]) for name in one)


def test_validation_counts_as_from_folders(run: Run, images: Path, packed: Path, tmp_path: Path) -> None:
    """The same weights, the same pictures in another order: the same accuracy and matrix."""
    folders = run.fit()
    measured: list[dict[str, float]] = []
    matrices: list[torch.Tensor] = []
    for root in (images, packed):
        data = ClassificationData(str(root), preprocess=folders.datamodule.preprocess, batch_size=7, num_workers=0)
        assert data.labels == folders.datamodule.labels
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        measured += trainer.validate(folders.task, datamodule=data, verbose=False)
        matrices.append(folders.task.confusion_counts())
    assert measured[1] == pytest.approx(measured[0], rel=1e-5)
    assert measured[1]["val/accuracy"] == measured[0]["val/accuracy"]
    assert matrices[0].equal(matrices[1])
    assert int(matrices[0].sum()) == 30


def test_training_from_a_server_is_training_from_the_folder(run: Run, packed: Path, tmp_path: Path) -> None:
    run.epochs, run.data = 1, {**VARIED, "num_workers": 2}
    run.optimizer = {"warmup_epochs": 0}
    run.root = packed
    local = run.fit().task.state_dict()
    with serving(packed) as server:
        served = replace(
            run, folder=tmp_path / "served", root=server.url, data={**run.data, "cache": str(tmp_path / "c")}
        )
        other = served.fit().task.state_dict()
        most = max(Counter(path for path in server.asked if path.endswith(".tar")).values())
    assert most == 1
    assert all(local[name].equal(other[name]) for name in local)


def test_damaged_pictures_are_replaced_and_listed(run: Run, images: Path, tmp_path: Path) -> None:
    """One from the same shard takes the place, also with workers; a whole shard may be lost."""
    pack(images, tmp_path / "set", shard_mib=0.02)
    dice = random.Random(3)
    for path in sorted((tmp_path / "set/train").glob("*.tar"))[1:4]:
        damage(path, dice)
    gone = sorted((tmp_path / "set/train").glob("*.tar"))[0]
    gone.write_bytes(b"")
    shards = ShardSet.open(tmp_path / "set/train")
    bad = {shards.name(index) for index in range(60) if not readable(shards, index)}
    assert len(bad) > 7
    states: list[dict[str, torch.Tensor]] = []
    for workers in (0, 2):
        each = replace(run, folder=tmp_path / f"run_{workers}", root=tmp_path / "set", epochs=1)
        each.data, each.optimizer = {"num_workers": workers}, {"warmup_epochs": 0}
        each.build()
        each.datamodule.unreadable = Unreadable(each.folder / "unreadable.jsonl", 0.9)
        each.trainer.fit(each.task, datamodule=each.datamodule)
        listed = [json.loads(line)["error"] for line in (each.folder / "unreadable.jsonl").read_text().splitlines()]
        assert all(any(name in error for error in listed) for name in bad)
        states.append(each.task.state_dict())
    assert all(states[0][name].equal(states[1][name]) for name in states[0])


def readable(shards: ShardSet, index: int) -> bool:
    try:
        shards.read(index)
    except ImageReadError:
        return False
    return True


def test_the_pictures_of_a_step_have_names(run: Run, packed: Path) -> None:
    run.root = packed
    run.build()
    names = run.datamodule.step_names()
    assert len(names) == 10
    assert all(name.startswith("shard-0000") for name in names)


def test_sets_that_make_no_sense(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds shards of no split; put those to train on into the folder train"):
        _ = ClassificationData(str(packed / "train")).labels
    (tmp_path / "half").mkdir()
    (tmp_path / "half/train").symlink_to(packed / "train")
    with pytest.raises(ValueError, match=r"has shards in train but none in val; add that folder"):
        ClassificationData(str(tmp_path / "half")).setup("fit")
