"""Images with one class each: a folder per class, or the sample images that ship with the package."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from internimage.data.class_folders import (
    SPLIT_FOLDERS,
    Split,
    class_folders,
    find_split,
    is_split,
    labels_in,
    match_folders,
)
from internimage.data.images import images_below, read_image
from internimage.data.samples.fashion_mnist import SAMPLE_LABELS, SampleSplit, load_sample_arrays, sample_path
from internimage.structures import LabelMap

logger = logging.getLogger(__name__)

Transform = Callable[[Image.Image], Tensor]


class FolderDataset(Dataset[tuple[Tensor, int]]):
    """Images of a tree with one folder per class, as pairs (``transform(image)``, class index).

    Each image is read when it is asked for, and one that cannot be read raises `ImageReadError` with its path.

    Args:
        root: the folder that holds the class folders; images may lie deeper in these.
        labels: the classes in the order of the model's outputs; by default the folders' names in sorted order. A class
            whose name no folder can have, such as ``T-shirt/top``, is looked for as `folder_name` writes it.
        transform: makes a tensor of a PIL image of mode RGB (or L).
        in_chans: 3 for RGB or 1 for grey images.

    Attributes:
        labels: the classes.
        paths: the image files, sorted within each class.
        targets: the class index of each.

    Raises:
        ValueError: there is no such folder, it has fewer than two class folders, some hold no images, or they differ
            from ``labels``.
    """

    def __init__(
        self, root: str | Path, *, labels: LabelMap | None = None, transform: Transform, in_chans: int = 3
    ) -> None:
        self.root = Path(root)
        folders = {folder.name: folder for folder in class_folders(self.root)}
        if splits := [name for name, folder in folders.items() if is_split(folder)]:
            fix = f"give {folders[splits[0]]}, or use open_split"
            raise ValueError(f"{self.root} holds splits ({', '.join(splits)}), not class folders; {fix}")
        self.labels = LabelMap(tuple(folders)) if labels is None else labels
        self.transform = transform
        self.in_chans = in_chans
        self.paths: list[Path] = []
        self.targets: list[int] = []
        by_class = [images_below(folder) for folder in match_folders(self.root, folders, self.labels)]
        if empty := [name for name, paths in zip(self.labels, by_class, strict=True) if not paths]:
            raise ValueError(f"{self.root} has class folders without images: {', '.join(empty)}; fill or remove them")
        for target, paths in enumerate(by_class):
            self.paths += paths
            self.targets += [target] * len(paths)

    def name(self, index: int) -> str:
        """What an image is called."""
        return str(self.paths[index])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(read_image(self.paths[index], in_chans=self.in_chans)), self.targets[index]

    def varied(self, transform: Transform) -> FolderDataset:
        """The same images, made tensors otherwise."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def subset(self, indices: Sequence[int]) -> FolderDataset:
        """The same dataset with the images at ``indices`` only; its classes stay."""
        part = copy.copy(self)
        part.paths = [self.paths[index] for index in indices]
        part.targets = [self.targets[index] for index in indices]
        return part


class SampleDataset(Dataset[tuple[Tensor, int]]):
    """The sample images that ship with the package, as pairs (``transform(image)``, class index).

    Args:
        split: ``train`` (5,000 images) or ``test`` (1,000).
        transform: makes a tensor of a PIL image of mode L (or RGB).
        in_chans: 1 for the grey images as they are, 3 to have them as RGB.

    Attributes:
        labels: the ten classes, `SAMPLE_LABELS`.
        paths: where `export_samples` would write each image, relative to its folder; no such files exist.
        targets: the class index of each image.
    """

    def __init__(self, split: SampleSplit, *, transform: Transform, in_chans: int = 1) -> None:
        self.images, targets = load_sample_arrays(split)
        self.labels = SAMPLE_LABELS
        self.targets: list[int] = targets.tolist()
        self.paths = [sample_path(split, index, target) for index, target in enumerate(self.targets)]
        self.transform = transform
        self.in_chans = in_chans

    def name(self, index: int) -> str:
        """What an image is called."""
        return str(self.paths[index])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(read_image(self.images[index], in_chans=self.in_chans)), self.targets[index]

    def varied(self, transform: Transform) -> SampleDataset:
        """The same images, made tensors otherwise."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def subset(self, indices: Sequence[int]) -> SampleDataset:
        """The same dataset with the images at ``indices`` only."""
        part = copy.copy(self)
        part.images = self.images[list(indices)]
        part.paths = [self.paths[index] for index in indices]
        part.targets = [self.targets[index] for index in indices]
        return part


def open_samples(split: Split, *, transform: Transform, in_chans: int = 1) -> SampleDataset:
    """One split of the sample images: 4,500 to train, 500 to validate (both of its training part), 1,000 to test.

    >>> len(open_samples("val", transform=lambda image: image))
    500
    """
    if split == "test":
        return SampleDataset("test", transform=transform, in_chans=in_chans)
    whole = SampleDataset("train", transform=transform, in_chans=in_chans)
    # Classes take turns, so every tenth run of ten images holds a tenth of each class.
    return whole.subset([index for index in range(len(whole)) if (index // 10 % 10 == 9) == (split == "val")])


def open_split(
    root: str | Path,
    split: Split,
    *,
    transform: Transform,
    labels: LabelMap | None = None,
    in_chans: int = 3,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> FolderDataset:
    """One split of a folder tree.

    Where ``root`` has the folders ``train`` and ``val`` (or ``valid``, ``validation``) and perhaps ``test``, with
    capitals or without, that folder is opened, with the classes of ``train``. Where it has class folders, the images
    of each are split by a hash of their paths: an added image leaves the others in their split, except where a class
    is so small that it needs it to have one image on either side. Without test images, ``test`` is ``val``, with a
    warning in the log.

    Args:
        root: the folder.
        split: ``train``, ``val`` or ``test``.
        transform: see `FolderDataset`.
        labels: see `FolderDataset`.
        in_chans: see `FolderDataset`.
        val_fraction: share of the images for validation, in (0, 1), where there are no split folders.
        seed: another number gives another split.

    Raises:
        ValueError: a split is missing, a class has only one image to split, or as for `FolderDataset`.
    """
    root = Path(root)
    if split not in SPLIT_FOLDERS:
        raise ValueError(f"split must be train, val or test, got {split!r}")
    present = [name for name in SPLIT_FOLDERS if find_split(root, name)]
    if split == "test" and "test" not in present:
        logger.warning("%s has no test images: the validation images stand in for them", root)
        split = "val"
    if present:
        folder = find_split(root, split)
        if folder is None:
            names = " or ".join(SPLIT_FOLDERS[split])
            raise ValueError(
                f"{root} has {' and '.join(present)} but no folder {names}; add it with class folders inside"
            )
        labels = labels_in(root) if labels is None else labels
        return FolderDataset(folder, labels=labels, transform=transform, in_chans=in_chans)
    labels = labels_in(root) if labels is None else labels
    whole = FolderDataset(root, labels=labels, transform=transform, in_chans=in_chans)
    train, val = _split_by_hash(whole, val_fraction, seed)
    if split == "train":
        settings = f"val_fraction={val_fraction}, seed={seed}"
        logger.info("%s: %d images to train and %d to validate, by hash (%s)", root, len(train), len(val), settings)
    return whole.subset(train if split == "train" else val)


def _split_by_hash(whole: FolderDataset, val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and for validation; each class has at least one of each."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must lie between 0 and 1, got {val_fraction}")
    targets = np.array(whole.targets)
    draws = np.array([_draw(f"{seed}/{path.relative_to(whole.root).as_posix()}") for path in whole.paths])
    is_val = draws < val_fraction
    for target, name in enumerate(whole.labels):
        members = np.flatnonzero(targets == target)
        if len(members) == 1:
            fix = "add images, or make train and val folders yourself"
            raise ValueError(f"class {name} in {whole.root} has one image, and a split needs two; {fix}")
        is_val[members[draws[members].argmin()]] = True
        is_val[members[draws[members].argmax()]] = False
    return np.flatnonzero(~is_val).tolist(), np.flatnonzero(is_val).tolist()


def _draw(text: str) -> float:
    """A number in [0, 1) that depends on ``text`` alone."""
    # A file's name need not be valid text.
    return int.from_bytes(hashlib.sha256(os.fsencode(text)).digest()[:6]) / 2**48
