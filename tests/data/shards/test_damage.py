"""Damaged shards and indexes: every picture comes out as it was, or an error names where it lay."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from internimage.data import ImageReadError
from internimage.data.shards import ShardSet, index_folder
from support.shards import damage


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Callable[[], Path]:
    def again() -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        return Path(shutil.copytree(packed / "train", tmp_path / "copy"))

    return again


def attempt(read: Callable[[], Any], expected: type[Exception]) -> tuple[Any, str]:
    """What comes out, and what the error says; any other error ends the test."""
    try:
        return read(), ""
    except expected as error:
        return None, str(error)


def everything(shards: ShardSet) -> list[tuple[bytes, int | None]]:
    return [(shards.read(index), shards.target(index)) for index in range(len(shards))]


def test_200_damaged_shards(packed: Path, copy: Callable[[], Path]) -> None:
    """Cut, flipped or zeroed anywhere: what is read is right, and what is not read is named."""
    good, dice = everything(ShardSet.open(packed / "train")), random.Random(0)
    kinds: dict[str, int] = {}
    for _ in range(200):
        folder = copy()
        path = dice.choice(sorted(folder.glob("*.tar")))
        kind = damage(path, dice)
        shards = ShardSet.open(folder)
        for index, (content, target) in enumerate(good):
            found, said = attempt(lambda of=shards, at=index: of.read(at), ImageReadError)
            assert found == content or shards.name(index) in said
            assert not said or shards.name(index).startswith(f"{path.name}/")
            kinds[kind] = kinds.get(kind, 0) + bool(said)
            assert shards.target(index) == target
    assert all(kinds[kind] > 5 for kind in ("cut", "flipped", "zeroed")), kinds


def test_100_damaged_indexes(packed: Path, copy: Callable[[], Path]) -> None:
    """Never other bytes, never another class; the sentence says which file, and what to type."""
    good, dice, refused = everything(ShardSet.open(packed / "train")), random.Random(1), 0
    for _ in range(100):
        folder = copy()
        path = dice.choice([folder / "index.json", *sorted(folder.glob("*.npz"))])
        damage(path, dice)
        found, said = attempt(lambda at=folder: everything(ShardSet.open(at)), ValueError)
        assert found == good or (path.name in said and f"internimage data pack --index_only {folder}" in said), said
        refused += bool(said)
    assert refused > 90
    index_folder(folder, folder)
    assert everything(ShardSet.open(folder)) == good


def test_100_damaged_tars_without_an_index(copy: Callable[[], Path]) -> None:
    """What is cut off or has a broken header is refused by name; else all samples are there."""
    dice, refused = random.Random(2), 0
    for _ in range(100):
        folder = copy()
        for path in (*folder.glob("*.npz"), folder / "index.json"):
            path.unlink()
        path = dice.choice(sorted(folder.glob("*.tar")))
        damage(path, dice)
        found, said = attempt(lambda at=folder: len(ShardSet.open(at)), ValueError)
        # A number in .cls, too, may be none any more, or of no class.
        assert found == 60 or str(path) in said or "classes" in said or "class number" in said, said
        refused += bool(said)
    assert refused > 30


def test_missing_and_unknown_shards_are_named(copy: Callable[[], Path]) -> None:
    folder = copy()
    (folder / "shard-00001.tar").rename(folder / "shard-00077.tar")
    with pytest.raises(ValueError, match=r"shard-00001\.tar is missing, but .*index\.json names it; bring it back"):
        ShardSet.open(folder)
    shutil.copy(folder / "shard-00077.tar", folder / "shard-00001.tar")
    with pytest.raises(ValueError, match=r"shard-00077\.tar is not in .*; make the index anew"):
        ShardSet.open(folder)


def test_a_shard_that_goes_while_it_is_used(copy: Callable[[], Path]) -> None:
    folder = copy()
    shards = ShardSet.open(folder)
    (folder / shards.shards[1].file).unlink()
    index = shards.shards[0].num_samples
    with pytest.raises(ImageReadError, match=r"shard-00001\.tar/.*: the shard is not there any more"):
        shards.read(index)


def test_an_index_with_paths_is_refused(copy: Callable[[], Path]) -> None:
    """A server's index must not say where on this machine something is written."""
    from internimage.data.shards.index import Index, Shard

    folder = copy()
    evil = Index((Shard("../evil.tar", 1, 1, 1),), None)
    (folder / "index.json").write_text(evil.to_text())
    with pytest.raises(ValueError, match=r"'\.\./evil\.tar', which is no plain file name"):
        ShardSet.open(folder)


def read_all(shards: ShardSet) -> int:
    return sum(len(shards.read(index)) for index in range(len(shards)))


def test_forked_spawned_and_in_threads(packed: Path) -> None:
    """An open file in the parent neither helps nor harms."""
    shards = ShardSet.open(packed / "train")
    size = read_all(shards)
    for method in ("fork", "spawn"):
        with get_context(method).Pool(2) as pool:
            assert pool.map(read_all, [shards] * 4) == [size] * 4
    good, dice = everything(shards), random.Random(0)
    order = [dice.randrange(len(shards)) for _ in range(2000)]
    with ThreadPoolExecutor(8) as threads:
        assert all(
            content == good[index][0] for content, index in zip(threads.map(shards.read, order), order, strict=True)
        )


@pytest.mark.parametrize("index", [-1, 60])
def test_samples_that_are_not_there(packed: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"sample {index} of 60"):
        ShardSet.open(packed / "train").read(index)
