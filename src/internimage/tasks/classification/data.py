"""Data for the tasks: which images, prepared how, in which batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from internimage.data import SAMPLE_LABELS, SAMPLE_PREPROCESS, labels_in, open_samples, open_split, to_tensor
from internimage.data.augment import Augmentation, batch_mixer, train_transform
from internimage.data.shards import CACHE_GIB, ShardSplits, find_shards
from internimage.structures import LabelMap, Preprocess
from internimage.tasks.base_data import BaseData, Split

SAMPLE = "sample"


class ClassificationData(BaseData):
    """Images in one folder per class or in shards, or the sample set that ships with the package.

    ``root`` holds ``train`` and ``val`` (and perhaps ``test``) with class folders or shards inside, or class folders
    directly (then a fixed share of each class is kept for validation), or is the word ``sample``.

    Args:
        root: the folder, the URL of a folder with shards, or ``sample``.
        preprocess: size, crop and normalisation; by default 224 pixels with ImageNet's mean and deviation
            (the sample set brings its own).
        image_size: shorthand for another ``preprocess.size``.
        augmentation: see `Augmentation`; used in training only.
        label_smoothing: share of each training target spread over all classes, in [0, 1).
        batch_size: images per step and device.
        num_workers: processes that read images; 0 reads in the training process.
        val_fraction: share kept for validation where there are no split folders.
        seed: of that split.
        cache: the folder for copies of a server's shards; by default ``~/.cache/internimage/shards``.
        cache_gib: how much may lie there.
    """

    def __init__(
        self,
        root: str,
        preprocess: Preprocess | None = None,
        image_size: int | None = None,
        augmentation: Augmentation | None = None,
        label_smoothing: float = 0.1,
        batch_size: int = 64,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        seed: int = 0,
        cache: str | None = None,
        cache_gib: float = CACHE_GIB,
    ) -> None:
        super().__init__(root, batch_size, num_workers)
        base = preprocess or (SAMPLE_PREPROCESS if root == SAMPLE else Preprocess())
        self.preprocess = base if image_size is None else replace(base, size=image_size)
        self.augmentation = augmentation or Augmentation()
        self.label_smoothing = label_smoothing
        self.val_fraction, self.seed = val_fraction, seed
        self.cache, self.cache_gib = cache, cache_gib
        self._datasets: dict[Split, Dataset[tuple[Tensor, int]]] = {}
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")

    @cached_property
    def labels(self) -> LabelMap:
        """Class names, in the order of the targets."""
        if self.root == SAMPLE:
            return SAMPLE_LABELS
        return self._shards.labels if self._shards else labels_in(Path(self.root))

    @cached_property
    def _shards(self) -> ShardSplits | None:
        return find_shards(self.root, None if self.cache is None else Path(self.cache), self.cache_gib)

    def dataset(self, split: Split) -> Dataset[tuple[Tensor, int]]:
        """The images of one split; those for training are augmented."""
        if split not in self._datasets:
            self._datasets[split] = self._open(split)
        return self._datasets[split]

    def _open(self, split: Split) -> Dataset[tuple[Tensor, int]]:
        transform: Callable[[Image.Image], Tensor] = partial(to_tensor, preprocess=self.preprocess)
        if split == "train":
            transform = train_transform(self.augmentation, self.preprocess)
        in_chans = self.preprocess.in_chans
        if self.root == SAMPLE:
            return open_samples(split, transform=transform, in_chans=in_chans)
        if self._shards:
            return self._shards.open(split, transform=transform, in_chans=in_chans)
        return open_split(
            self.root,
            split,
            transform=transform,
            labels=self.labels,
            in_chans=in_chans,
            val_fraction=self.val_fraction,
            seed=self.seed,
        )

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Mix images and smooth targets, on the device, in training only."""
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return batch
        return self._mixer(batch[0], batch[1])

    @cached_property
    def _mixer(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return batch_mixer(self.augmentation, len(self.labels), self.label_smoothing)
