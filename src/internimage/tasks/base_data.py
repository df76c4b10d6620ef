"""What the data of every task share: three splits, and batches of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from internimage.tasks.guards import Unreadable
from internimage.tasks.repeatable import Draw, EpochSampler, Position, ResumableLoader, SeededSamples, seed_step

Split = Literal["train", "val", "test"]


class BaseData(LightningDataModule):
    """Datasets of three splits in batches. Subclasses say with `dataset` what a split holds.

    Args:
        root: the folder, or the word for what ships with the package.
        batch_size: images per step and device.
        num_workers: processes that read images; 0 reads in the training process.
    """

    # Makes a batch of samples; None is PyTorch's own.
    collate: ClassVar[Callable[[Any], Any] | None] = None

    def __init__(self, root: str, batch_size: int, num_workers: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        self.root, self.batch_size, self.num_workers = root, batch_size, num_workers
        self._order_seed: int | None = None
        # Where to note training pictures that can't be read; by default the first one is an error.
        self.unreadable: Unreadable | None = None
        # How long a batch may take before the training ends, where other processes read; None waits for ever.
        self.timeout_minutes: float | None = None

    def __str__(self) -> str:
        # Lightning's opens every split, and the command line's parser asks for it.
        return f"{type(self).__name__}({self.root})"

    def dataset(self, split: Split) -> Any:
        """The images of one split; those for training are varied."""
        raise NotImplementedError

    def later(self) -> dict[int, Any]:
        """The training images again, varied otherwise, by the epoch from which they are; by default they stay."""
        return {}

    def draw(self) -> Draw | None:
        """Which training samples an epoch shows; by default each of them once."""
        return None

    def setup(self, stage: str) -> None:
        """Open the splits of a stage, so that what is wrong with them shows before anything is computed."""
        splits: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in splits.get(stage, ()):
            self.dataset(split)

    @property
    def order_seed(self) -> int:
        """What order and variation of the training samples follow from: that of the training, or of its checkpoint."""
        if self._order_seed is None:
            said = os.environ.get("PL_GLOBAL_SEED")
            seed = torch.initial_seed() % 2**32 if said is None else int(said)
            # Without a common seed, each process has drawn its own.
            self._order_seed = self.trainer.strategy.broadcast(seed) if self.trainer else seed
        return self._order_seed

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint."""
        return {"order_seed": self.order_seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that training resumes."""
        self._order_seed = int(state_dict["order_seed"])

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; a last incomplete batch is dropped unless it is the only one."""
        samples = SeededSamples(self.dataset("train"), self.order_seed, self.unreadable, self.later(), self.draw())
        sampler = EpochSampler(samples, self.order_seed, self.trainer, self.batch_size)
        return self._loader(samples, sampler=sampler, drop_last=len(sampler) >= self.batch_size)

    def step_names(self) -> list[str]:
        """The pictures of the training step under way, up to the present batch of this process."""
        place = Position.of(self.trainer)
        begun = place.batches % (self.trainer.accumulate_grad_batches if self.trainer else 1)
        samples = SeededSamples(self.dataset("train"), self.order_seed, draw=self.draw())
        sampler = EpochSampler(samples, self.order_seed, self.trainer, self.batch_size)
        keys = sampler.keys_from(Position(place.epoch, place.batches - begun))
        indices = [samples.index_of(key) for key in islice(keys, (begun + 1) * self.batch_size)]
        return [self.dataset("train").name(index) for index in indices]

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images in order."""
        return self._loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """All test images in order (the validation images where there are none)."""
        return self._loader(self.dataset("test"))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """What is drawn for a training step, beginning with the mixing of its pictures, follows from its place."""
        if self.trainer is not None and self.trainer.training:
            seed_step(self.order_seed, self.trainer)
        return batch

    def _loader(
        self, dataset: Dataset[Any], *, sampler: Sampler[Any] | None = None, drop_last: bool = False
    ) -> DataLoader[Any]:
        # A little less than other processes wait for this one, so that the cause is named and not its consequence.
        timeout = 54 * self.timeout_minutes if self.timeout_minutes and self.num_workers else 0
        return ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=type(self).collate,
            timeout=timeout,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
