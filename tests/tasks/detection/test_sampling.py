"""How often an epoch shows a picture: rare classes, classes that take turns, and where that meets the loader."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from internimage.data.detection.lvis import repeats
from internimage.tasks.detection import DetectionData
from internimage.tasks.detection.sampling import ClassAware, Repeated
from internimage.tasks.repeatable import EpochSampler, Position, SeededSamples

# Class 0 is in every picture, class 1 in one of a hundred, class 2 in four; one picture shows nothing.
SHOWN = [frozenset({0, 1}), *[frozenset({0, 2})] * 4, *[frozenset({0})] * 94, frozenset[int]()]


def test_repeats_by_hand() -> None:
    """Threshold 0.09: sqrt(0.09 / 0.01) = 3, sqrt(0.09 / 0.04) = 1.5 and so 2, and sqrt(0.09 / 0.99) below 1."""
    assert repeats(SHOWN, 0.09) == [3, 2, 2, 2, 2, *[1] * 95]
    assert repeats([], 0.5) == []
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"repeat_threshold must be a share of the pictures in \(0, 1\]"):
            repeats(SHOWN, wrong)


def test_classes_take_turns() -> None:
    draw = ClassAware(SHOWN)
    assert len(draw) == 100
    drawn = draw.of_epoch(seed=1, epoch=0)
    assert len(drawn) == 100
    assert 99 not in drawn, "nothing to learn there"
    # 33 or 34 turns of each class; those of the middle one go round its four pictures.
    counts = Counter(drawn)
    assert counts[0] >= 33
    assert sum(counts[index] for index in range(1, 5)) >= 33
    assert all(counts[index] >= 8 for index in range(1, 5))
    assert draw.of_epoch(1, 0) == drawn
    assert draw.of_epoch(1, 1) != drawn
    assert draw.of_epoch(2, 0) != drawn
    with pytest.raises(ValueError, match="no training picture has an object"):
        ClassAware([frozenset()])


class Numbers(Dataset[tuple[int, float]]):
    """Its number, and what was drawn for it."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(torch.rand(()))


def test_a_repeated_sample_is_varied_anew_and_comes_out_the_same_again() -> None:
    samples = SeededSamples(Numbers(), 0, draw=Repeated([1, 0, 3]))
    assert len(samples) == 4
    keys = list(EpochSampler(samples, 0, None, 1))
    assert sorted(samples.index_of(key) for key in keys) == [0, 2, 2, 2]
    values = [samples[key] for key in keys]
    assert sorted(number for number, _ in values) == [0, 2, 2, 2]
    assert len({drawn for _, drawn in values}) == 4
    assert [samples[key] for key in keys] == values


def test_processes_and_a_resumed_epoch_share_one_draw() -> None:
    draw = ClassAware(SHOWN)
    drawn: list[int] = []
    for rank in (0, 1):
        trainer: Any = SimpleNamespace(world_size=2, global_rank=rank)
        samples = SeededSamples(Numbers(), 0, draw=draw)
        sampler = EpochSampler(samples, 0, trainer, batch_size=4)
        keys = list(sampler.keys_from(Position(epoch=3)))
        assert list(sampler.keys_from(Position(epoch=3, batches=5))) == keys[20:]
        drawn += [samples.index_of(key) for key in keys]
    assert sorted(drawn) == sorted(draw.of_epoch(0, 3))


def test_from_the_file_to_the_loader(scenes: Path) -> None:
    data = DetectionData(str(scenes), frame=(64, 96), class_aware=True, batch_size=1, num_workers=0)
    shown = [picture.shown for picture in data.dataset("train").source.coco.pictures]
    assert data.image_counts() == [sum(label in each for each in shown) for label in range(len(data.labels))]
    assert max(data.image_counts()) >= 1
    batches = list(data.train_dataloader())
    assert len(batches) == len(shown) == 6
    draw = data.draw()
    assert draw is not None
    assert sorted(batch.indices[0] for batch in batches) == sorted(draw.of_epoch(data.order_seed, 0))
    assert data.step_names()[0] == data.dataset("train").name(batches[0].indices[0])
    rare = DetectionData(str(scenes), repeat_threshold=1.0)
    assert len(rare.train_dataloader().dataset) == sum(repeats(shown, 1.0)) > 6
    with pytest.raises(ValueError, match="class_aware and repeat_threshold both say how often"):
        DetectionData(str(scenes), repeat_threshold=1.0, class_aware=True)


def test_scenes_are_counted_too() -> None:
    data = DetectionData("scenes")
    data._sets["train"] = DetectionData("scenes").dataset("val")
    assert sum(data.image_counts()) > len(data._sets["train"])
