"""webdataset reads what we pack, and we read what it writes."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from internimage.data.shards import ShardSet, holds_shards

wds = pytest.importorskip("webdataset")
# It leaves its files open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def jpeg(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def write(folder: Path, *samples: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with wds.ShardWriter(str(folder / "a-%04d.tar"), maxcount=5, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    return folder


def test_webdataset_reads_ours(packed: Path) -> None:
    ours = ShardSet.open(packed / "train")
    urls = [str(packed / "train" / shard.file) for shard in ours.shards]
    theirs = wds.WebDataset(urls, shardshuffle=False)
    samples = [(sample["png"], int(sample["cls"])) for sample in theirs]
    assert samples == [(ours.read(index), ours.target(index)) for index in range(len(ours))]
    for sample in wds.WebDataset(urls[:1], shardshuffle=False).decode("rgb8"):
        assert sample["png"].shape == (28, 28, 3)
        assert isinstance(sample["cls"], int)


def test_we_read_webdatasets(tmp_path: Path) -> None:
    samples = [{"__key__": f"sub/{index:03d}", "jpg": jpeg(index), "cls": index % 3} for index in range(12)]
    folder = write(tmp_path / "set", *samples)
    assert holds_shards(folder)
    for _ in range(2):
        shards = ShardSet.open(folder)
        assert [shards.read(index) for index in range(12)] == [sample["jpg"] for sample in samples]
        assert [shards.target(index) for index in range(12)] == [index % 3 for index in range(12)]
        assert shards.name(7) == "a-0001.tar/sub/007.jpg"
        assert shards.labels is not None
        assert shards.labels.names == ("class 0", "class 1", "class 2")
    assert (folder / "index.json").is_file()


def test_names_beside_the_shards(tmp_path: Path) -> None:
    folder = write(tmp_path / "set/train", *({"__key__": f"{i}", "jpg": jpeg(i), "cls": i % 2} for i in range(4)))
    (tmp_path / "set/classes.txt").write_text("cat\ndog\n")
    shards = ShardSet.open(folder)
    assert shards.labels is not None
    assert shards.labels.names == ("cat", "dog")


@pytest.mark.parametrize("key", ["label", "cls", "class"])
def test_classes_in_json(tmp_path: Path, key: str) -> None:
    """As img2dataset writes what else a table said; names are sorted."""
    samples = [
        {"__key__": f"{i}", "jpg": jpeg(i), "json": json.dumps({"url": "x", key: "dog" if i % 2 else "cat"}).encode()}
        for i in range(6)
    ]
    shards = ShardSet.open(write(tmp_path, *samples))
    assert shards.labels is not None
    assert shards.labels.names == ("cat", "dog")
    assert [shards.target(index) for index in range(6)] == [0, 1] * 3


def test_samples_without_class_or_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [
        {"__key__": "a", "jpg": jpeg(1), "txt": "a caption"},
        {"__key__": "b", "txt": "no picture"},
        {"__key__": "c", "seg.png": b"a label map", "jpg": jpeg(2)},
    ]
    with caplog.at_level(logging.WARNING, logger="internimage"):
        shards = ShardSet.open(write(tmp_path, *samples))
    assert "1 samples without a picture are left out" in caplog.text
    assert [shards.name(index) for index in range(2)] == ["a-0000.tar/a.jpg", "a-0000.tar/c.jpg"]
    assert shards.labels is None
    assert shards.target(0) is None


def test_classes_that_make_no_sense(tmp_path: Path) -> None:
    mixed = [{"__key__": "a", "jpg": jpeg(1), "cls": 1}, {"__key__": "b", "jpg": jpeg(1), "json": b'{"label": "dog"}'}]
    with pytest.raises(ValueError, match="some samples have a class number and others a name, such as 'dog'"):
        ShardSet.open(write(tmp_path / "mixed", *mixed))
    odd = write(tmp_path / "odd", {"__key__": "a", "jpg": jpeg(1), "json": b'{"label": [1, 2]}'})
    with pytest.raises(
        ValueError, match=r"cannot index .*a-0000\.tar: the class of .*/a is \[1, 2\], which is no number"
    ):
        ShardSet.open(odd)
    few = write(tmp_path / "few", {"__key__": "a", "jpg": jpeg(1), "cls": 5})
    (few / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"has classes up to 5, but classes\.txt names 2"):
        ShardSet.open(few)


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(ValueError, match=r"cannot index .*a\.tar: .*compressed tars: unpack them"):
        ShardSet.open(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """Root may write anywhere, so the question itself is answered here."""
    folder = write(tmp_path / "set", *({"__key__": f"{i}", "jpg": jpeg(i), "cls": i % 2} for i in range(4)))
    monkeypatch.setattr("os.access", lambda *_: False)
    for _ in range(2):
        assert len(ShardSet.open(folder)) == 4
    assert [path.suffix for path in folder.iterdir()] == [".tar"]
    assert len(list(own_cache.rglob("index.json"))) == 1
