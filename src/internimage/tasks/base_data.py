"""What the data of every task share: three splits, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

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

    def __str__(self) -> str:
        # Lightning's opens every split, and the command line's parser asks for it.
        return f"{type(self).__name__}({self.root})"

    def dataset(self, split: Split) -> Any:
        """The images of one split; those for training are varied."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Open the splits of a stage, so that what is wrong with them shows before anything is computed."""
        splits: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in splits.get(stage, ()):
            self.dataset(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; a last incomplete batch is dropped unless it is the only one."""
        dataset = self.dataset("train")
        processes = self.trainer.world_size if self.trainer else 1
        return self._loader(dataset, shuffle=True, drop_last=len(dataset) // processes >= self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images in order."""
        return self._loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """All test images in order (the validation images where there are none)."""
        return self._loader(self.dataset("test"))

    def _loader(self, dataset: Dataset[Any], *, shuffle: bool = False, drop_last: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=type(self).collate,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
