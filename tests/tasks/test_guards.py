"""Pictures that can't be read and losses that are no numbers: named, and survived where that was asked for."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.data import ImageReadError, export_samples, read_image
from internimage.data.augment import Augmentation
from internimage.tasks.callbacks import DivergedError
from internimage.tasks.guards import FiniteLoss, Unreadable

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    # A damaged file may still be read, with what Pillow thinks of it.
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]


def damage(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    place = dice.randrange(len(content))
    kind = dice.randrange(4)
    if kind == 0:
        del content[place:]
    elif kind == 1:
        content[place] ^= 1 << dice.randrange(8)
    elif kind == 2:
        content[place : place + 16] = bytes(16)
    else:
        content[:] = bytes(dice.randrange(256) for _ in range(60))
    path.write_bytes(content)


def cannot_be_read(path: Path) -> bool:
    try:
        read_image(path, in_chans=1)
    except ImageReadError:
        return True
    return False


@pytest.mark.parametrize(
    ("good", "bad"), [(40, 20), pytest.param(500, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_every_picture_that_cannot_be_read_is_named(run: Run, tmp_path: Path, good: int, bad: int) -> None:
    """The training runs on without them, and is the same with workers, who find them in another order."""
    paths, dice = export_samples(tmp_path / "set/train", "train", good + bad), random.Random(0)
    shutil.copytree(run.root / "val", tmp_path / "set/val")
    for path in dice.sample(paths, bad):
        damage(path, dice)
    named: list[set[str]] = []
    for workers in (0, 2):
        each = replace(run, folder=tmp_path / f"run_{workers}", root=tmp_path / "set", epochs=1)
        each.data = {"num_workers": workers, "augmentation": Augmentation(mixup=0.0, cutmix=0.0)}
        each.build()
        each.datamodule.unreadable = Unreadable(each.folder / "unreadable.jsonl", 0.9)
        each.trainer.fit(each.task, datamodule=each.datamodule)
        assert each.trainer.global_step == (good + bad) // 10
        named.append(set(each.datamodule.unreadable.read()))
    wanted = {str(path) for path in paths if cannot_be_read(path)}
    assert len(wanted) > bad // 3
    assert len(named[0]) == len(wanted)
    assert all(any(path in reason for reason in named[0]) for path in wanted)
    assert named[0] == named[1]
    weights = [torch.load(tmp_path / f"run_{workers}/checkpoints/last.ckpt", weights_only=True) for workers in (0, 2)]
    first, second = (each["state_dict"] for each in weights)
    assert all(first[name].equal(second[name]) for name in first)


def test_too_many_end_the_training(tmp_path: Path) -> None:
    noted = Unreadable(tmp_path / "unreadable.jsonl", 0.02)
    errors = [ImageReadError(f"{name}.png: it is empty") for name in "abc"]
    for error in (errors[0], errors[0], errors[1], errors[0]):
        noted.note(error, 100)
    assert noted.read() == ["a.png: it is empty", "b.png: it is empty"]
    with noted.path.open("a", encoding="utf-8") as file:
        file.write('{"error": "d.pn\n')
    with pytest.raises(ImageReadError, match=r"c\.png: it is empty; with it 3 of 100 training pictures can't be read"):
        noted.note(errors[2], 100)
    whole = Unreadable(tmp_path / "all.jsonl", 1.0)
    whole.note(errors[0], 2)
    with pytest.raises(ImageReadError, match="2 of 2"):
        whole.note(errors[1], 2)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], got 2"):
        Unreadable(tmp_path, 2)


def poisoned(run: Run, guard: FiniteLoss, *batches: int, **trainer: Any) -> Run:
    """A training in which the losses of some batches, counted over all epochs, are NaN."""
    run.callbacks = [guard]
    run.build(**trainer)
    step, count = run.task.training_step, iter(range(1000))

    def maybe(batch: Any, batch_idx: int) -> torch.Tensor:
        return step(batch, batch_idx) * (torch.nan if next(count) in batches else 1.0)

    run.task.training_step = maybe
    run.trainer.fit(run.task, datamodule=run.datamodule)
    return run


def test_a_loss_that_is_no_number_ends_the_training(run: Run) -> None:
    """Before it reaches the weights; the pictures of the step are named."""
    guard = FiniteLoss(run.folder / "bad_steps.jsonl", skip=False)
    with pytest.raises(DivergedError, match=r"not finite at step 8; .*listed in .*bad_steps\.jsonl"):
        poisoned(run, guard, 8)
    assert all(each.isfinite().all() for each in run.task.parameters())
    (row,) = (json.loads(line) for line in guard.path.read_text(encoding="utf-8").splitlines())
    assert (row["step"], row["process"]) == (8, 0)
    dataset = run.datamodule.dataset("train")
    seen = [run.datamodule.labels[dataset.targets[dataset.paths.index(Path(name))]] for name in row["pictures"]]
    assert len(set(row["pictures"])) == 10
    # The third batch of the second epoch, as the loader gives it.
    run.trainer.fit_loop.epoch_loop.batch_progress.current.processed = 2
    targets = next(iter(run.datamodule.train_dataloader()))[1]
    assert seen == [run.datamodule.labels[int(target)] for target in targets]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_without_a_number_is_left_out(run: Run, accumulate: int) -> None:
    guard = FiniteLoss(run.folder / "bad_steps.jsonl", skip=True)
    poisoned(run, guard, 2, 7, accumulate_grad_batches=accumulate)
    assert guard.skipped == 2
    assert run.trainer.global_step == 12 // accumulate
    assert all(each.isfinite().all() for each in run.task.parameters())
    rows = [json.loads(line) for line in guard.path.read_text(encoding="utf-8").splitlines()]
    assert [len(row["pictures"]) for row in rows] == [10 * accumulate] * 2
    assert torch.load(run.last, weights_only=True)["callbacks"]["FiniteLoss"] == {"skipped": 2}
