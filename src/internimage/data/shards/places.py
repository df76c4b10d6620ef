"""Where shards lie: in a folder, or on a server with copies in a cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from internimage.data.shards.cache import Cache, Served
from internimage.data.shards.fetching import MissingFileError, Patience, address, fetch_bytes
from internimage.data.shards.index import INDEX_FILE, Index, Shard, how_to_index, open_file
from internimage.data.shards.scan import index_folder

FOLDER_VARIABLE = "INTERNIMAGE_SHARDS"


class Place(Protocol):
    """What gives shards and the files of their samples."""

    is_copy: bool

    def index_of(self, shard: Shard) -> tuple[str, bytes]:
        """Where the file of its samples lies, and its content."""
        ...

    def open(self, shard: Shard) -> int:
        """A new file handle for reading; raises ``FileNotFoundError`` where the shard is gone."""
        ...

    def drop(self, shard: Shard) -> None:
        """Forget a copy, so that it is fetched anew."""
        ...

    def fetch_ahead(self, shards: Sequence[Shard]) -> None:
        """Begin to fetch what will be opened soon."""
        ...


class Folder:
    """Shards in a folder, read in place.

    Args:
        folder: of the tar files.
        indexes: of the index, usually the same.
    """

    is_copy = False

    def __init__(self, folder: Path, indexes: Path) -> None:
        self.folder, self.indexes = folder, indexes

    def index_of(self, shard: Shard) -> tuple[str, bytes]:
        """Where the file of its samples lies, and its content."""
        path = self.indexes / shard.index_file
        try:
            return str(path), path.read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(f"cannot read {path}: {reason}; {how_to_index(str(path))}") from error

    def open(self, shard: Shard) -> int:
        """A new file handle for reading."""
        return open_file(self.folder / shard.file)

    def drop(self, shard: Shard) -> None:
        """Nothing to forget: this is no copy."""

    def fetch_ahead(self, shards: Sequence[Shard]) -> None:
        """Nothing to fetch."""


def is_url(source: str | Path) -> bool:
    """Whether shards lie on a server."""
    return str(source).startswith(("http://", "https://"))


def url_has_index(url: str) -> bool:
    """Whether a server has the index of shards there."""
    try:
        fetch_bytes(address(url, INDEX_FILE), Patience())
    except MissingFileError:
        return False
    return True


def cache_folder(cache: Path | None) -> Path:
    """Where copies and the indexes of read-only folders lie."""
    default = os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "internimage" / "shards"
    return Path(default if cache is None else cache).expanduser()


def find_place(
    source: str | Path, cache: Path | None, cache_gib: float, patience: Patience | None = None
) -> tuple[Place, Index]:
    """Where the shards of a source lie, and what they are; see `ShardSet.open`."""
    if is_url(source):
        return _find_served(str(source), Cache(cache_folder(cache), int(cache_gib * 2**30), patience or Patience()))
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give a folder of shards")
    # A folder that can't be written to has its index in the cache.
    elsewhere = cache_folder(cache) / "indexes" / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    for indexes in (folder, elsewhere):
        if (indexes / INDEX_FILE).is_file():
            return Folder(folder, indexes), _read_index(folder, indexes)
    if not any(folder.glob("*.tar")):
        raise ValueError(f"{folder} holds no shards: neither {INDEX_FILE} nor tar files; give a folder of shards")
    elsewhere.mkdir(parents=True, exist_ok=True)
    # One process of a node does the work; the others find it done.
    with FileLock(elsewhere / ".lock"):
        for indexes in (folder, elsewhere):
            if (indexes / INDEX_FILE).is_file():
                return Folder(folder, indexes), _read_index(folder, indexes)
        indexes = folder if os.access(folder, os.W_OK) else elsewhere
        return Folder(folder, indexes), index_folder(folder, indexes)


def _find_served(url: str, cache: Cache) -> tuple[Place, Index]:
    where = address(url, INDEX_FILE)
    try:
        index = Index.from_text(fetch_bytes(where, cache.patience), where)
    except MissingFileError:
        how = "internimage data pack --index_only FOLDER"
        raise ValueError(f"{url} has no {INDEX_FILE}; make it on the machine that has the shards: {how}") from None
    return Served(url, index, cache), index


def _read_index(folder: Path, indexes: Path) -> Index:
    path = indexes / INDEX_FILE
    index = Index.from_text(path.read_bytes(), str(path))
    named = {shard.file for shard in index.shards}
    here = {path.name for path in folder.iterdir() if path.suffix == ".tar" and not path.name.startswith(".")}
    if missing := sorted(named - here):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"{folder / missing[0]}{more} is missing, but {path} names it; bring it back, or {_anew(path)}"
        )
    if unknown := sorted(here - named):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ValueError(f"{folder / unknown[0]}{more} is not in {path}; {_anew(path)}")
    return index


def _anew(path: Path) -> str:
    return how_to_index(str(path))
