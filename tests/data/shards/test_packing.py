"""Packing class folders: the same bytes, mixed classes, and nothing that is left out in silence."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from internimage.data import labels_in, open_split
from internimage.data.shards import ShardSet, find_shards, holds_shards, index_folder, pack


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_picture_is_there_with_its_bytes_and_class(clothes: Path, packed: Path) -> None:
    for split in ("train", "val"):
        dataset = open_split(clothes, split, transform=lambda image: image)
        shards = ShardSet.open(packed / split)
        assert shards.labels == labels_in(clothes)
        wanted = Counter(
            (path.read_bytes(), target) for path, target in zip(dataset.paths, dataset.targets, strict=True)
        )
        assert Counter((shards.read(index), shards.target(index)) for index in range(len(shards))) == wanted
        names = [shards.name(index) for index in range(len(shards))]
        assert len(set(names)) == len(dataset)
        assert any(name.startswith("shard-00000.tar/Ankle boot/") and name.endswith(".png") for name in names)


def test_a_sample_is_a_picture_and_its_class(packed: Path) -> None:
    with tarfile.open(packed / "train/shard-00000.tar") as tar:
        members = tar.getmembers()
        assert [Path(member.name).suffix for member in members] == [".png", ".cls"] * (len(members) // 2)
        assert [member.name[:-4] for member in members[::2]] == [member.name[:-4] for member in members[1::2]]


def test_shards_hold_mixed_classes_and_about_the_size(packed: Path) -> None:
    shards = ShardSet.open(packed / "train")
    assert len(shards.shards) > 4
    sizes = [shard.num_bytes for shard in shards.shards]
    assert all(20_000 < size < 40_000 for size in sizes[:-1])
    first = [shards.target(index) for index in shards.shard_of(0)]
    assert len(set(first)) > 3


def test_the_same_seed_gives_the_same_bytes(clothes: Path, packed: Path, tmp_path: Path) -> None:
    pack(clothes, tmp_path / "again", shard_mib=0.02)
    assert contents(tmp_path / "again") == contents(packed)
    pack(clothes, tmp_path / "other", shard_mib=0.02, seed=1)
    assert contents(tmp_path / "other") != contents(packed)


def test_folders_without_splits_are_split_as_training_splits_them(clothes: Path, tmp_path: Path) -> None:
    pack(clothes / "train", tmp_path / "packed", val_fraction=0.3)
    for split in ("train", "val"):
        dataset = open_split(clothes / "train", split, transform=lambda image: image, val_fraction=0.3)
        shards = ShardSet.open(tmp_path / "packed" / split)
        assert {shards.read(index) for index in range(len(shards))} == {path.read_bytes() for path in dataset.paths}


def test_names_that_a_tar_would_mix_up(tmp_path: Path) -> None:
    """Dots end a sample's name in webdataset; suffixes tell files apart, but not samples."""
    names = ("cat/a.b.png", "cat/a-b.png", "cat/a.jpg", "cat/a.png", "dog/ä b.JPEG", f"dog/{'x' * 180}.png")
    for number, name in enumerate(names):
        path = tmp_path / "set/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4 + number)).save(path)
    pack(tmp_path / "set", tmp_path / "packed")
    shards = ShardSet.open(tmp_path / "packed/train")
    assert len({shards.name(index).rpartition(".")[0] for index in range(len(shards))}) == len(names)
    written = {shards.read(index) for index in range(len(shards))}
    assert written == {path.read_bytes() for path in (tmp_path / "set").rglob("*.*")}
    again = index_folder(tmp_path / "packed/train", tmp_path / "index")
    assert again == ShardSet.open(tmp_path / "packed/train").index


@pytest.mark.parametrize("keep", [False, True])
def test_unreadable_pictures_are_named(clothes: Path, tmp_path: Path, keep: bool) -> None:
    root = Path(shutil.copytree(clothes, tmp_path / "set"))
    cut, empty = sorted((root / "train/Bag").iterdir())[:2]
    cut.write_bytes(cut.read_bytes()[:100])
    empty.write_bytes(b"")
    train = pack(root, tmp_path / "packed", keep_unreadable=keep)["train"]
    assert {name for error in train.unreadable for name in (cut, empty) if str(name) in str(error)} == {cut, empty}
    shards = ShardSet.open(tmp_path / "packed/train")
    assert len(shards) == (60 if keep else 58)
    if keep:
        assert cut.read_bytes() in {shards.read(index) for index in range(len(shards))}


def test_nothing_is_overwritten(clothes: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="full is not empty; give the path of a new or empty folder"):
        pack(clothes, tmp_path / "full")
    with pytest.raises(ValueError, match="file is a file"):
        pack(clothes, tmp_path / "file")
    with pytest.raises(ValueError, match="above 0 MiB, got 0"):
        pack(clothes, tmp_path / "new", shard_mib=0)
    with pytest.raises(ValueError, match="there is no folder"):
        pack(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_index_is_json_for_people(packed: Path) -> None:
    content = json.loads((packed / "val/index.json").read_text())
    assert content["classes"][0] == "Ankle boot"
    assert sum(shard["samples"] for shard in content["shards"]) == 30
    assert (packed / "val/classes.txt").read_text().splitlines() == content["classes"]


def test_archives_beside_class_folders_are_no_shards(clothes: Path, packed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clothes, tmp_path / "set"))
    shutil.copy(packed / "train/shard-00000.tar", root / "train/Bag.tar")
    assert not holds_shards(root / "train")
    assert find_shards(root) is None
    assert holds_shards(packed / "train")
    assert not holds_shards(packed)
