"""Training images grow from epoch to epoch, also where a training goes on; those that are measured don't."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from internimage.data.augment import Augmentation

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
]


class Sizes(Callback):
    """The sizes of each epoch's inputs; perhaps ends the training at a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.trained: dict[int, set[int]] = {}
        self.measured: set[int] = set()
        self.stop = stop

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.stop:
            raise RuntimeError("stopped")
        self.trained.setdefault(trainer.current_epoch, set()).update(batch[0].shape[-2:])

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self.measured.update(batch[0].shape[-2:])


@pytest.fixture
def stepped(run: Any) -> Any:
    run.epochs, run.data = 4, {"size_steps": {2: 14, 0: 8}, "augmentation": Augmentation()}
    run.callbacks = [Sizes()]
    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_sizes_follow_the_epochs(stepped: Any, workers: int) -> None:
    """Workers stay from epoch to epoch, and read ahead."""
    stepped.data["num_workers"] = workers
    stepped.fit()
    (seen,) = stepped.callbacks
    assert seen.trained == {0: {8}, 1: {8}, 2: {14}, 3: {14}}
    assert seen.measured == {14}


def test_a_training_goes_on_with_the_epochs_size(stepped: Any, images: Any, tmp_path: Any) -> None:
    whole = type(stepped)(tmp_path / "whole", images, epochs=4, data=stepped.data).fit()
    stepped.callbacks = [Sizes(stop=15)]
    with pytest.raises(RuntimeError, match="stopped"):
        stepped.fit()
    stepped.callbacks = [seen := Sizes()]
    stepped.fit(resume=True)
    assert seen.trained == {2: {14}, 3: {14}}
    for name, weight in whole.task.state_dict().items():
        assert torch.equal(weight, stepped.task.state_dict()[name]), name


@pytest.mark.parametrize("steps", [{1: 8}, {0: 8, 2: 0}])
def test_sizes_that_say_nothing(run: Any, steps: dict[int, int]) -> None:
    run.data = {"size_steps": steps}
    with pytest.raises(ValueError, match="size_steps must give positive sizes from epoch 0 on"):
        run.build()


def test_samples_are_those_of_the_set(stepped: Any) -> None:
    data = stepped.build().datamodule
    first, later = data.dataset("train"), data.later()
    assert list(later) == [2]
    assert (first[3][0].shape[-1], later[2][3][0].shape[-1]) == (8, 14)
    assert first.name(3) == later[2].name(3)
