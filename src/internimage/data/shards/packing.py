"""Writing a class-folder tree as shards: the pictures' own bytes in tar files, shuffled once, with an index."""

from __future__ import annotations

import io
import logging
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from internimage.data.class_folders import Split, find_split, labels_in
from internimage.data.classification import FolderDataset, open_split
from internimage.data.images import ImageReadError, read_image
from internimage.data.shards.index import CLASSES_FILE, INDEX_FILE, Index, Samples, Shard, write_whole
from internimage.data.shards.scan import write_samples

log = logging.getLogger(__name__)
SHARD_MIB = 256
# Pictures that are read and decoded at a time, by several threads.
_AT_ONCE = 256


@dataclass
class Packed:
    """What became of one split.

    Args:
        folder: where its shards are.
        index: of them.
        unreadable: the pictures that can't be read, with reasons.
    """

    folder: Path
    index: Index
    unreadable: list[ImageReadError] = field(default_factory=list[ImageReadError])


@dataclass(frozen=True)
class _Picture:
    """A file that was read, or what is wrong with it."""

    path: Path
    target: int
    content: bytes | None
    error: ImageReadError | None


def pack(
    folder: str | Path,
    output: str | Path,
    *,
    shard_mib: float = SHARD_MIB,
    seed: int = 0,
    val_fraction: float = 0.1,
    keep_unreadable: bool = False,
) -> dict[Split, Packed]:
    """Write each split of a class-folder tree as ``output/<split>/shard-00000.tar`` and so on.

    A sample is a file's own bytes under its own suffix (``daisy/rose1.jpg``) and its class index (``daisy/rose1.cls``).
    The same tree and seed give the same bytes.

    Args:
        folder: as `open_split` takes it.
        output: a new or empty folder.
        shard_mib: a shard is complete when it has this size.
        seed: of the order, and of the split as `open_split` makes it.
        val_fraction: share kept for validation where there are no split folders.
        keep_unreadable: pack pictures, too, that can't be decoded; they are left out otherwise.

    Raises:
        ValueError: ``output`` is not empty, or as for `open_split`.
    """
    root, target = Path(folder), Path(output)
    if not shard_mib > 0:
        raise ValueError(f"the size of a shard must be above 0 MiB, got {shard_mib:g}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; give the path of a new or empty folder")
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; give the path of a new or empty folder")
    labels = labels_in(root)
    if broken := [name for name in labels if len(name.splitlines()) != 1 or name != name.strip()]:
        raise ValueError(f"the class folder {broken[0]!r} has a line break or space at an end of its name; rename it")
    splits: list[Split] = ["train", "val", "test"]
    present: list[Split] = [split for split in splits if find_split(root, split)]
    chosen: list[Split] = present or splits[:2]
    opened: dict[Split, FolderDataset] = {
        split: open_split(root, split, transform=_none, labels=labels, val_fraction=val_fraction, seed=seed)
        for split in chosen
    }
    packed: dict[Split, Packed] = {}
    for split, dataset in opened.items():
        order = np.random.default_rng((seed, splits.index(split))).permutation(len(dataset)).tolist()
        packed[split] = _pack_split(dataset, order, target / split, int(shard_mib * 2**20), keep_unreadable)
    return packed


def _none(_: Any) -> Any:
    raise AssertionError("packing makes no tensors")


def _pack_split(
    dataset: FolderDataset, order: Sequence[int], target: Path, shard_bytes: int, keep_unreadable: bool
) -> Packed:
    unreadable: list[ImageReadError] = []
    shards: list[Shard] = []
    keys: set[str] = set()
    pictures = _good(_read(dataset, order), unreadable, keep_unreadable)
    target.mkdir(parents=True)
    for first in pictures:
        with _Writer(target / f"shard-{len(shards):05d}.tar") as writer:
            for picture in chain([first], pictures):
                writer.add(_key(picture.path.relative_to(dataset.root), keys), picture)
                if writer.size >= shard_bytes:
                    break
            shards.append(writer.finish())
        log.info("%s: %d of %d pictures", writer.path, len(keys), len(order))
    index = Index(tuple(shards), dataset.labels)
    # For people, and for whoever makes the index anew.
    write_whole(target / CLASSES_FILE, "".join(f"{name}\n" for name in dataset.labels).encode())
    write_whole(target / INDEX_FILE, index.to_text().encode())
    return Packed(target, index, unreadable)


def _good(pictures: Iterator[_Picture], unreadable: list[ImageReadError], keep: bool) -> Iterator[_Picture]:
    """Those to pack; what is wrong with others is added to ``unreadable``."""
    for picture in pictures:
        if picture.error:
            unreadable.append(picture.error)
        if picture.content is not None and (keep or picture.error is None):
            yield picture


def _read(dataset: FolderDataset, order: Sequence[int]) -> Iterator[_Picture]:
    """The files in this order; a few threads are ahead, since Pillow decodes in parallel."""

    def read(index: int) -> _Picture:
        return _read_one(dataset.paths[index], dataset.targets[index])

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(order), _AT_ONCE):
            yield from threads.map(read, order[start : start + _AT_ONCE])


def _read_one(path: Path, target: int) -> _Picture:
    try:
        content = path.read_bytes()
    except OSError as error:
        return _Picture(path, target, None, ImageReadError(f"cannot read {path}: {error.strerror or error}"))
    try:
        read_image(content, name=str(path))
    except ImageReadError as error:
        return _Picture(path, target, content, error)
    return _Picture(path, target, content, None)


class _Writer:
    """One shard, under another name until it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        self.tar = tarfile.TarFile(self.partial, "w", format=tarfile.PAX_FORMAT)
        self.rows: list[tuple[int, int, int, int]] = []
        self.names: list[str] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.tar.close()

    @property
    def size(self) -> int:
        """In bytes, so far."""
        return self.tar.offset

    def add(self, key: str, picture: _Picture) -> None:
        """Add a picture with its class."""
        assert picture.content is not None
        name = key + picture.path.suffix
        offset = self._add(name, picture.content)
        self.rows.append((offset, len(picture.content), zlib.crc32(picture.content), picture.target))
        self.names.append(name)
        self._add(f"{key}.cls", str(picture.target).encode())

    def _add(self, name: str, content: bytes) -> int:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.tar.addfile(member, io.BytesIO(content))
        # It would remember every member.
        cast(Any, self.tar).members = []
        return self.tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    def finish(self) -> Shard:
        """Give it its name and its index."""
        self.tar.close()
        rows = np.array(self.rows, np.int64)
        samples = Samples(
            rows[:, 0], rows[:, 1], rows[:, 2].astype(np.uint32), rows[:, 3].astype(np.int32), tuple(self.names)
        )
        shard = write_samples(self.path.parent, self.path.name, self.partial.stat().st_size, samples)
        self.partial.replace(self.path)
        return shard


def _key(path: Path, keys: set[str]) -> str:
    """A name for a sample without dots, which end it in a tar of webdataset's, and like no other.

    >>> _key(Path("n01/a.b.jpg"), {"n01/a-b"})
    'n01/a-b-2'
    """
    key = stem = re.sub(r"[^\w\-/ ]", "-", path.with_suffix("").as_posix())
    number = 1
    while key in keys:
        number += 1
        key = f"{stem}-{number}"
    keys.add(key)
    return key
