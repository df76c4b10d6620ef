"""A folder of shards, here or behind a URL, read at random as if it were a list of pictures."""

from __future__ import annotations

import os
import threading
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from internimage.data.images import ImageReadError
from internimage.data.shards.fetching import Patience
from internimage.data.shards.index import INDEX_FILE, NO_CLASS, Index, Samples, Shard
from internimage.data.shards.places import Place, find_place, is_url, url_has_index

CACHE_GIB = 100.0
# Shards that a process keeps open, the ones used last; a file handle and the list of its samples for each.
_OPEN = 8
_position = threading.Lock()


class ShardSet:
    """Pictures in tar files, each with its class if it has one; see `open`.

    Any sample may be read at any time, by several threads, in worker processes that were forked or spawned.

    Attributes:
        source: the folder or URL.
        index: what lies where.
        labels: the classes; None where the samples have none.

    """

    def __init__(self, source: str, index: Index, place: Place) -> None:
        self.source, self.index, self.labels = source, index, index.labels
        self.shards = index.shards
        self._ends, self._place = index.ends, place
        self._opened: dict[int, _Opened] = {}
        self._renewed: set[int] = set()

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        cache: Path | None = None,
        cache_gib: float = CACHE_GIB,
        patience: Patience | None = None,
    ) -> ShardSet:
        """The shards in a folder, or behind the URL of such a folder.

        Tar files of a folder without an index (as webdataset and img2dataset write them) are read through once and
        indexed; the index is kept beside them, or in the cache where nothing can be written there.

        Args:
            source: a folder, or an address that begins with ``http://`` or ``https://``.
            cache: the folder for shards of a server; by default ``$INTERNIMAGE_SHARDS`` or
                ``~/.cache/internimage/shards``.
            cache_gib: how much may lie there; the shards that were not used for longest go first.
            patience: with a server; by default five tries within a quarter of a minute, besides its own slowness.

        Raises:
            ValueError: there are no shards, or some are damaged, missing, or not in the index; names them.
            ConnectionError: the server does not give the index; says why.
        """
        place, index = find_place(source, cache, cache_gib, patience)
        return cls(str(source), index, place)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def name(self, index: int) -> str:
        """What a sample is called: ``shard-00003.tar/abc.jpg``."""
        number, row = self._find(index)
        return f"{self.shards[number].file}/{self._samples(number).names[row]}"

    def target(self, index: int) -> int | None:
        """The class index of a sample; None where it has no class."""
        number, row = self._find(index)
        target = int(self._samples(number).targets[row])
        return None if target == NO_CLASS else target

    def read(self, index: int) -> bytes:
        """The file of a sample, as it was packed.

        Raises:
            ImageReadError: there are other bytes in its place, or none; names shard and sample.
            ConnectionError: the server does not give the shard.
            ValueError: the index of its shard is damaged.
        """
        number, row = self._find(index)
        content, reason = self._read(number, row)
        if reason and self._place.is_copy and number not in self._renewed:
            # The copy may have been damaged here: once it is fetched anew.
            self._renewed.add(number)
            self._opened.pop(number, None)
            self._place.drop(self.shards[number])
            content, reason = self._read(number, row)
        if reason:
            raise ImageReadError(f"cannot read {self.name(index)} in {self.source}: {reason}")
        return content

    def shard_of(self, index: int) -> range:
        """All samples of the shard that holds one of them."""
        number, row = self._find(index)
        first = index - row
        return range(first, first + self.shards[number].num_samples)

    def fetch_ahead(self, numbers: Sequence[int]) -> None:
        """Have a server's shards fetched in the background, so that nobody waits for them later."""
        self._place.fetch_ahead([self.shards[number] for number in numbers])

    def __getstate__(self) -> dict[str, Any]:
        # File handles mean nothing to another process.
        return {**self.__dict__, "_opened": {}}

    def _find(self, index: int) -> tuple[int, int]:
        """The number of the shard, and the row in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number] - self.shards[number].num_samples)

    def _read(self, number: int, row: int) -> tuple[bytes, str | None]:
        """The bytes, and what is wrong with them."""
        samples = self._samples(number)
        size, offset = int(samples.sizes[row]), int(samples.offsets[row])
        opened = self._open(number)
        if opened.handle is None:
            try:
                opened.handle = _Handle(self._place, self.shards[number])
            except FileNotFoundError:
                return b"", "the shard is not there any more"
        try:
            content = opened.handle.read(size, offset)
        except OSError as error:
            return b"", f"the disk says: {error.strerror or error}"
        if len(content) < size:
            return content, f"the shard was cut short: it ends before byte {offset + size:,}"
        if zlib.crc32(content) != int(samples.crc32[row]):
            return (
                content,
                "its bytes differ from those that were indexed (CRC-32): the shard is damaged or was changed",
            )
        return content, None

    def _samples(self, number: int) -> Samples:
        return self._open(number).samples

    def _open(self, number: int) -> _Opened:
        # Without a lock: threads may open one twice, and a handle is closed only when its last reader is done.
        opened = self._opened.pop(number, None)
        if opened is None:
            shard = self.shards[number]
            path, content = self._place.index_of(shard)
            opened = _Opened(Samples.from_bytes(content, shard, path))
        self._opened[number] = opened
        while len(self._opened) > _OPEN:
            self._opened.pop(next(iter(self._opened)), None)
        return opened


class _Opened:
    """A shard's samples, and its file once it was read."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.handle: _Handle | None = None


class _Handle:
    """An open shard; forked processes may share it, since reading moves no position."""

    def __init__(self, place: Place, shard: Shard) -> None:
        self.number = -1
        self.number = place.open(shard)

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from there; fewer where the file ends."""
        parts: list[bytes] = []
        while size > 0 and (part := _read_at(self.number, size, offset)):
            parts.append(part)
            size, offset = size - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def _read_at(handle: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size, offset)
    # Windows has no such call, but never shares handles between processes either.
    with _position:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, size)


def holds_shards(source: str | Path) -> bool:
    """Whether shards lie there: tar files, not splits of such and no class folders.

    Raises:
        ConnectionError: the server of a URL can't be asked.
    """
    if is_url(source):
        return url_has_index(str(source))
    folder = Path(source)
    if not folder.is_dir() or not any(folder.glob("*.tar")):
        return False
    # Class folders win over archives that were left beside them.
    has_folders = any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())
    return not has_folders or (folder / INDEX_FILE).is_file()
