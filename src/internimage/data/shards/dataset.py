"""Shards as a dataset for training and evaluation, and the splits of a set in shards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from internimage.data.class_folders import SPLIT_FOLDERS, Split
from internimage.data.images import read_image
from internimage.data.shards.order import epoch_order
from internimage.data.shards.places import is_url
from internimage.data.shards.shard_set import CACHE_GIB, ShardSet, holds_shards
from internimage.structures import LabelMap

log = logging.getLogger(__name__)
Transform = Callable[[Image.Image], Tensor]


class ShardDataset(Dataset[tuple[Tensor, int]]):
    """The pictures of shards, as pairs (``transform(image)``, class index).

    A picture that cannot be read raises `ImageReadError` with the names of its shard and itself.

    Args:
        shards: the pictures.
        labels: the classes in the order of the model's outputs; those of the shards are matched by name.
        transform: makes a tensor of a PIL image of mode RGB (or L).
        in_chans: 3 for RGB or 1 for grey images.

    Raises:
        ValueError: the shards hold no classes, or some that are not among ``labels``.
    """

    def __init__(
        self, shards: ShardSet, *, labels: LabelMap | None = None, transform: Transform, in_chans: int = 3
    ) -> None:
        self.shards, self.transform, self.in_chans = shards, transform, in_chans
        self.labels, self._numbers = _match(shards, labels)

    def name(self, index: int) -> str:
        """What an image is called."""
        return self.shards.name(index)

    def target(self, index: int) -> int:
        """The class index of an image; raises ``ValueError`` where it has none."""
        target = self.shards.target(index)
        if target is None:
            raise ValueError(f"{self.name(index)} in {self.shards.source} has no class; training needs one for each")
        return self._numbers[target]

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        content = self.shards.read(index)
        name = f"{self.name(index)} in {self.shards.source}"
        return self.transform(read_image(content, in_chans=self.in_chans, name=name)), self.target(index)

    def epoch_order(self, seed: int, epoch: int, process: int, processes: int, start: int) -> Iterator[int]:
        """What `epoch_order` says of these shards; a server's are fetched ahead."""
        counts = [shard.num_samples for shard in self.shards.shards]
        share = {"process": process, "processes": processes, "start": start}
        return epoch_order(counts, seed=seed, epoch=epoch, **share, on_window=self.shards.fetch_ahead)

    def near(self, index: int) -> range:
        """The images that lie in one shard with this one."""
        return self.shards.shard_of(index)


@dataclass(frozen=True)
class ShardSplits:
    """A set in shards: a folder, or the URL of one, with shards in train, val and perhaps test.

    Args:
        root: of all.
        sources: folder or URL of each split that is there.
        cache: see `ShardSet.open`.
        cache_gib: see `ShardSet.open`.
    """

    root: str
    sources: dict[Split, str | Path]
    cache: Path | None
    cache_gib: float

    @cached_property
    def labels(self) -> LabelMap:
        """The classes of the first split.

        Raises:
            ValueError: it has none.
        """
        return _match(self._open(next(iter(self.sources))), None)[0]

    def open(self, split: Split, *, transform: Transform, in_chans: int = 3) -> ShardDataset:
        """One split; without test images, ``test`` is ``val``, with a warning in the log.

        Raises:
            ValueError: it is missing, or as for `ShardSet.open` and `ShardDataset`.
        """
        if split == "test" and "test" not in self.sources:
            log.warning("%s has no test images: the validation images stand in for them", self.root)
            split = "val"
        if split not in self.sources:
            present = " and ".join(self.sources)
            raise ValueError(f"{self.root} has shards in {present} but none in {split}; add that folder")
        return ShardDataset(self._open(split), labels=self.labels, transform=transform, in_chans=in_chans)

    def _open(self, split: Split) -> ShardSet:
        return ShardSet.open(self.sources[split], cache=self.cache, cache_gib=self.cache_gib)


def find_shards(root: str | Path, cache: Path | None = None, cache_gib: float = CACHE_GIB) -> ShardSplits | None:
    """The splits of a set in shards; None where a folder holds no shards.

    Raises:
        ValueError: there are shards beside the splits, several folders for a split, or nothing at a URL.
        ConnectionError: the server of a URL can't be asked.
    """
    sources: dict[Split, str | Path] = {}
    for split in ("train", "val", "test"):
        if is_url(root):
            candidates = [f"{str(root).rstrip('/')}/{name}" for name in SPLIT_FOLDERS[split]]
        else:
            folder = Path(root)
            folders = sorted(folder.iterdir()) if folder.is_dir() else []
            candidates = [path for path in folders if path.name.lower() in SPLIT_FOLDERS[split]]
        found = [place for place in candidates if holds_shards(place)]
        if len(found) > 1:
            raise ValueError(f"{root} holds shards in {' and in '.join(map(str, found))}; keep one of them")
        if found:
            sources[split] = found[0]
    if sources:
        return ShardSplits(str(root), sources, cache, cache_gib)
    if holds_shards(root):
        fix = "put those to train on into the folder train and those to validate with into val"
        raise ValueError(f"{root} holds shards of no split; {fix}")
    if is_url(root):
        fix = "on the machine that has them, `internimage data pack FOLDER OUT` or `--index_only FOLDER` writes it"
        raise ValueError(f"{root} has no train/index.json of shards; {fix}")
    return None


def _match(shards: ShardSet, labels: LabelMap | None) -> tuple[LabelMap, list[int]]:
    """The classes, and the index among them of each class of the shards."""
    own = shards.labels
    if own is None:
        fix = "write the class index of each as a member .cls"
        raise ValueError(f"the samples in {shards.source} have no classes; {fix}")
    # Of shards by others only numbers may be known.
    if labels is None or (own == LabelMap.numbered(len(own)) and len(own) <= len(labels)):
        return labels or own, list(range(len(own)))
    numbers = {name: number for number, name in enumerate(labels)}
    if unknown := [name for name in own if name not in numbers]:
        raise ValueError(f"{shards.source} has classes that the others do not have: {', '.join(unknown[:5])}")
    return labels, [numbers[name] for name in own]
