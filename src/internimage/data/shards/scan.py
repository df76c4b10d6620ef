"""Indexing tar files that someone else wrote, such as webdataset's and img2dataset's: each is read through once."""

from __future__ import annotations

import json
import logging
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from internimage.data.images import IMAGE_SUFFIXES
from internimage.data.shards.index import (
    CLASSES_FILE,
    INDEX_FILE,
    NO_CLASS,
    Index,
    Samples,
    Shard,
    index_file,
    write_whole,
)
from internimage.structures import LabelMap

log = logging.getLogger(__name__)
_BLOCK, _PIECE = 512, 2**20
# Under which names img2dataset and others write the class into a sample's JSON.
_JSON_KEYS = ("cls", "label", "class", "target")
Target = int | str | None


@dataclass
class _Found:
    """The samples of one shard; a class may be a number or a name."""

    num_bytes: int
    rows: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    names: list[str] = field(default_factory=list[str])
    targets: list[Target] = field(default_factory=list[Target])
    without_picture: int = 0


def index_folder(folder: Path, target: Path) -> Index:
    """Index all tar files of a folder, write the index to another (or the same), and return it.

    A sample is what follows each other under one name up to its first dot; its picture is the first member with one
    of `IMAGE_SUFFIXES`, its class the number or name in ``.cls``, or in ``.json`` under cls, label, class or target.
    Class names are those of ``classes.txt`` in the folder or the one above, one per line.

    Raises:
        ValueError: there are no tar files, or some are damaged; names all of these.
    """
    paths = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not paths:
        raise ValueError(f"{folder} holds no tar files; give a folder of shards")
    size = sum(path.stat().st_size for path in paths)
    log.info("%s: indexing %d shards, %.2f GiB, once", folder, len(paths), size / 2**30)
    found: list[_Found] = []
    faults: list[str] = []
    for path in paths:
        try:
            found.append(_scan(path))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError("; ".join(faults[:3]) + more)
    if without := sum(each.without_picture for each in found):
        log.warning("%s: %d samples without a picture are left out", folder, without)
    labels = _labels(folder, [target for each in found for target in each.targets])
    target.mkdir(parents=True, exist_ok=True)
    shards = [_write(target, path.name, each, labels) for path, each in zip(paths, found, strict=True)]
    index = Index(tuple(shards), labels)
    write_whole(target / INDEX_FILE, index.to_text().encode())
    return index


def classes_beside(folder: Path) -> LabelMap | None:
    """The names in ``classes.txt`` of a folder or the one above; None where there is no such file."""
    for path in (folder / CLASSES_FILE, folder.resolve().parent / CLASSES_FILE):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            return LabelMap(tuple(line for line in lines if line.strip()))
    return None


def _scan(path: Path) -> _Found:
    found = _Found(path.stat().st_size)
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = 0
            for key, members in _samples(tar):
                end = max(end, *(_end(member) for member in members))
                _add(found, key, members, file, path)
            _check_end(file, end)
    # tarfile raises whatever a damaged header makes it trip over.
    except Exception as error:
        raise ValueError(f"cannot index {path}: {error}; mend or remove it (compressed tars: unpack them)") from error
    return found


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Members that follow each other and share their name up to the first dot."""
    key: str | None = None
    members: list[tarfile.TarInfo] = []
    for member in tar:
        own = _key(member.name)
        if members and own != key:
            yield key or "", members
            members = []
        key = own
        members.append(member)
        # It would remember every member of a shard.
        cast(Any, tar).members = []
    if members:
        yield key or "", members


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _add(found: _Found, key: str, members: Sequence[tarfile.TarInfo], file: BinaryIO, path: Path) -> None:
    files = {member.name[len(key) + 1 :].lower(): member for member in members if member.isreg()}
    pictures = [member for suffix, member in files.items() if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if not pictures:
        # Folders are members, too.
        found.without_picture += bool(files)
        return
    # `jpg` before `mask.png`.
    picture = min(pictures, key=lambda member: member.name[len(key) + 1 :].count("."))
    found.rows.append((picture.offset_data, picture.size, _crc(file, picture)))
    found.names.append(picture.name)
    found.targets.append(_target(files, file, f"{path}/{key}"))


def _crc(file: BinaryIO, member: tarfile.TarInfo) -> int:
    crc = 0
    for piece in _pieces(file, member.offset_data, member.size):
        crc = zlib.crc32(piece, crc)
    return crc


def _pieces(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    file.seek(offset)
    while size > 0:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise ValueError("it was cut short")
        size -= len(piece)
        yield piece


def _target(files: dict[str, tarfile.TarInfo], file: BinaryIO, name: str) -> Target:
    if "cls" in files:
        text = b"".join(_pieces(file, files["cls"].offset_data, files["cls"].size)).decode("utf-8").strip()
        return int(text) if text.isdecimal() else text or None
    if "json" not in files:
        return None
    content: Any = json.loads(b"".join(_pieces(file, files["json"].offset_data, files["json"].size)))
    said = [content[key] for key in _JSON_KEYS if key in content] if isinstance(content, dict) else []
    if said and (not isinstance(said[0], int | str) or isinstance(said[0], bool)):
        raise ValueError(f"the class of {name} is {said[0]!r:.40}, which is no number and no name")
    return said[0] if said else None


def _end(member: tarfile.TarInfo) -> int:
    size = member.size if member.isreg() else 0
    return member.offset_data + -(-size // _BLOCK) * _BLOCK


def _check_end(file: BinaryIO, end: int) -> None:
    """tarfile takes a damaged header in the middle, or a cut between two members, for the end: look what follows."""
    file.seek(end)
    num_zeros = 0
    while piece := file.read(_PIECE):
        if piece.count(0) < len(piece):
            raise ValueError(f"it is damaged near byte {end:,}")
        num_zeros += len(piece)
    if num_zeros < _BLOCK:
        raise ValueError("it was cut short: the mark of its end is missing")


def _labels(folder: Path, targets: Sequence[Target]) -> LabelMap | None:
    """The classes, once all samples are known."""
    numbers = {target for target in targets if isinstance(target, int)}
    names = {target for target in targets if isinstance(target, str)}
    given = classes_beside(folder)
    if numbers and names:
        raise ValueError(f"{folder}: some samples have a class number and others a name, such as {min(names)!r}")
    if not numbers and not names:
        return given
    if given is None:
        return LabelMap(tuple(sorted(names))) if names else LabelMap.numbered(max(numbers) + 1)
    if numbers and not 0 <= min(numbers) <= max(numbers) < len(given):
        raise ValueError(f"{folder} has classes up to {max(numbers)}, but {CLASSES_FILE} names {len(given)}")
    if unknown := sorted(names - set(given)):
        raise ValueError(f"{folder} has the class {unknown[0]!r}, which {CLASSES_FILE} does not name")
    return given


def _write(target: Path, name: str, found: _Found, labels: LabelMap | None) -> Shard:
    numbers = {} if labels is None else {label: number for number, label in enumerate(labels)}
    targets = [NO_CLASS if each is None else numbers[each] if isinstance(each, str) else each for each in found.targets]
    rows = np.array(found.rows, np.int64).reshape(-1, 3)
    samples = Samples(
        rows[:, 0], rows[:, 1], rows[:, 2].astype(np.uint32), np.array(targets, np.int32), tuple(found.names)
    )
    return write_samples(target, name, found.num_bytes, samples)


def write_samples(target: Path, name: str, num_bytes: int, samples: Samples) -> Shard:
    """Write the file of a shard's samples; returns what ``index.json`` is to say of it."""
    content = samples.to_bytes()
    write_whole(target / index_file(name), content)
    return Shard(name, num_bytes, len(samples.names), zlib.crc32(content))
