"""What lies where in a folder of shards: ``index.json``, and beside each shard one small file of its samples.

``index.json`` names classes and shards and carries its own SHA-256. Of each shard it knows the CRC-32 of the file of
its samples, and that file the CRC-32 of each picture: so every byte that is used has been checked. A reader needs the
second kind for the shards it has open only, which keeps millions of samples out of memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from internimage.structures import LabelMap

INDEX_FILE = "index.json"
CLASSES_FILE = "classes.txt"
NO_CLASS = -1
_FORMAT, _VERSION = "internimage shards", 1


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Args:
        file: its name in the folder.
        num_bytes: its size.
        num_samples: how many pictures it holds.
        index_crc32: of the file of its samples.
    """

    file: str
    num_bytes: int
    num_samples: int
    index_crc32: int

    @property
    def index_file(self) -> str:
        """The name of the file of its samples."""
        return index_file(self.file)

    def is_index(self, content: bytes) -> bool:
        """Whether these are the bytes of that file."""
        return zlib.crc32(content) == self.index_crc32


@dataclass(frozen=True)
class Samples:
    """The pictures of one shard, in the order in which they lie there.

    Args:
        offsets: where each begins, in bytes, (N,).
        sizes: in bytes, (N,).
        crc32: of each, (N,).
        targets: class indices, or `NO_CLASS`, (N,).
        names: the members' names.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    targets: NDArray[np.int32]
    names: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """As a file of numpy's arrays."""
        # A name in a tar file ends with the first zero, so it holds none.
        names = np.frombuffer("\0".join(self.names).encode("utf-8", "surrogateescape"), np.uint8)
        file = io.BytesIO()
        arrays = {"offsets": self.offsets, "sizes": self.sizes, "crc32": self.crc32, "targets": self.targets}
        np.savez_compressed(file, allow_pickle=False, names=names, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, shard: Shard, where: str) -> Self:
        """What `to_bytes` wrote.

        Raises:
            ValueError: these are other bytes; names ``where``.
        """
        if not shard.is_index(content):
            raise ValueError(f"{where} is damaged: its checksum differs from {INDEX_FILE}; {how_to_index(where)}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = tuple(arrays["names"].tobytes().decode("utf-8", "surrogateescape").split("\0"))
            offsets, sizes, crc32, targets = (arrays[name] for name in ("offsets", "sizes", "crc32", "targets"))
        if shard.num_samples == 0:
            names = ()
        if (
            any(each.shape != (shard.num_samples,) for each in (offsets, sizes, crc32, targets))
            or len(names) != shard.num_samples
        ):
            raise ValueError(f"{where} does not hold the {shard.num_samples} samples of {shard.file}")
        return cls(offsets, sizes, crc32, targets, names)


@dataclass(frozen=True)
class Index:
    """What ``index.json`` says.

    Args:
        shards: in order.
        labels: the classes; None where the samples have none.
    """

    shards: tuple[Shard, ...]
    labels: LabelMap | None

    @property
    def ends(self) -> list[int]:
        """Up to which sample each shard reaches."""
        return list(accumulate(shard.num_samples for shard in self.shards))

    @property
    def num_samples(self) -> int:
        """How many pictures all shards hold."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def key(self) -> str:
        """A name of these shards and no others, for a cache."""
        return _digest(self._content())[:16]

    def to_text(self) -> str:
        """As JSON with its checksum."""
        content = self._content()
        return json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n"

    def _content(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "classes": None if self.labels is None else list(self.labels),
            "shards": [
                {
                    "file": shard.file,
                    "bytes": shard.num_bytes,
                    "samples": shard.num_samples,
                    "index_crc32": shard.index_crc32,
                }
                for shard in self.shards
            ],
        }

    @classmethod
    def from_text(cls, text: bytes, where: str) -> Index:
        """What `to_text` wrote.

        Raises:
            ValueError: it is something else, or damaged; names ``where``.
        """
        try:
            content: Any = json.loads(text)
            said = content.pop("sha256")
            is_ours = content["format"] == _FORMAT
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{where} is damaged or no index of shards; {how_to_index(where)}") from None
        if not is_ours or said != _digest(content):
            raise ValueError(f"{where} is damaged: it does not fit its checksum; {how_to_index(where)}")
        if content["version"] != _VERSION:
            raise ValueError(f"{where} is of version {content['version']}, known is {_VERSION}; update internimage")
        labels = None if content["classes"] is None else LabelMap(tuple(content["classes"]))
        shards = tuple(
            Shard(each["file"], each["bytes"], each["samples"], each["index_crc32"]) for each in content["shards"]
        )
        for shard in shards:
            # It may come from a server, and names what is written on this machine.
            if shard.file in ("", ".", "..") or any(sign in shard.file for sign in "/\\\0"):
                raise ValueError(f"{where} names the shard {shard.file!r}, which is no plain file name")
        return cls(shards, labels)


def index_file(shard: str) -> str:
    """The name of the file of a shard's samples.

    >>> index_file("shard-00000.tar")
    'shard-00000.index.npz'
    """
    return f"{shard.removesuffix('.tar')}.index.npz"


def how_to_index(where: str) -> str:
    """What to type, in words."""
    folder = where.rpartition("/")[0]
    there = "the folder, on the machine that has it" if "://" in where else folder
    return f"make the index anew: internimage data pack --index_only {there}"


def write_whole(path: Path, content: bytes) -> None:
    """Under another name first, so that nobody ever sees a part of it."""
    # Threads of one process may write the same file.
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def open_file(path: Path) -> int:
    """A file handle for reading bytes."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
