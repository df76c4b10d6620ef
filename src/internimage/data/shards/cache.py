"""Copies of a server's shards on this machine: each fetched once, and the ones not used for longest removed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from internimage.data.shards.fetching import Patience, address, fetch, fetch_bytes
from internimage.data.shards.index import Index, Shard, open_file, write_whole

_PARTIAL = ".partial"
# What a process that was killed left behind.
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class Cache:
    """A folder of files, of which all processes of a machine may add and remove some.

    Args:
        folder: of all copies, also those of other sets.
        most_bytes: how much may lie there.
        patience: with servers.
    """

    folder: Path
    most_bytes: int
    patience: Patience

    def open(self, url: str, path: Path, size: int) -> int:
        """A file handle for reading the copy at ``path``, which is fetched if need be.

        Raises:
            ConnectionError: the server does not give it.
            ValueError: it does not fit into the cache.
        """
        while True:
            self.provide(url, path, size)
            try:
                handle = open_file(path)
            except FileNotFoundError:
                # Another process needed its room in between.
                continue
            # For whom the age of files is all there is to tell what is in use.
            os.utime(path)
            return handle

    def provide(self, url: str, path: Path, size: int) -> None:
        """Fetch the copy at ``path`` unless it is there; raises as `open` does."""
        if _has_size(path, size):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if _has_size(path, size):
                return
            partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
            try:
                self._make_room(size, partial)
                with partial.open("r+b") as file:
                    fetch(url, file, size=size, patience=self.patience)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def _make_room(self, size: int, partial: Path) -> None:
        """Remove what was not used for longest, and take the room by a file of that size."""
        if size > self.most_bytes:
            limit = f"the cache {self.folder} may hold {self.most_bytes / 2**30:.2f} GiB"
            raise ValueError(f"{limit}, but one shard has {size / 2**30:.2f} GiB; raise cache_gib")
        with FileLock(self.folder / ".room.lock"):
            files: list[tuple[float, int, Path]] = []
            for path in (*self.folder.glob("*/*.tar"), *self.folder.glob(f"*/*{_PARTIAL}")):
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                if path.name.endswith(_PARTIAL) and time.time() - found.st_mtime > _ABANDONED_S:
                    path.unlink(missing_ok=True)
                else:
                    files.append((found.st_mtime, found.st_size, path))
            total = size + sum(each for _, each, _ in files)
            for _, each, path in sorted(files):
                if total > self.most_bytes and not path.name.endswith(_PARTIAL):
                    # Whoever has it open reads on.
                    path.unlink(missing_ok=True)
                    total -= each
            with partial.open("wb") as file:
                file.truncate(size)


class Served:
    """Shards on a server, read from their copies.

    Args:
        url: of their folder.
        index: of them; another one has copies of its own.
        cache: of copies.
    """

    is_copy = True

    def __init__(self, url: str, index: Index, cache: Cache) -> None:
        self.url, self.cache = url, cache
        self.folder = cache.folder / index.key

    def index_of(self, shard: Shard) -> tuple[str, bytes]:
        """Where the file of its samples lies, and its content."""
        url, path = address(self.url, shard.index_file), self.folder / shard.index_file
        if path.is_file() and shard.is_index(content := path.read_bytes()):
            return url, content
        content = fetch_bytes(url, self.cache.patience)
        if shard.is_index(content):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        return url, content

    def open(self, shard: Shard) -> int:
        """A new file handle for reading its copy."""
        return self.cache.open(address(self.url, shard.file), self.folder / shard.file, shard.num_bytes)

    def drop(self, shard: Shard) -> None:
        """Forget the copy, so that it is fetched anew."""
        (self.folder / shard.file).unlink(missing_ok=True)

    def fetch_ahead(self, shards: Sequence[Shard]) -> None:
        """Begin to fetch what will be opened soon."""
        # It may end with the process at any moment: whoever needs a shard fetches it.
        threading.Thread(target=self._fetch_all, args=(shards,), daemon=True).start()

    def _fetch_all(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            # Whoever needs the shard meets the error again, and says it.
            with contextlib.suppress(OSError, ValueError):
                self.cache.provide(address(self.url, shard.file), self.folder / shard.file, shard.num_bytes)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
