"""Shards of a real server: each fetched once, whole or not at all, in a cache of bounded size."""

from __future__ import annotations

import shutil
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler
from multiprocessing import get_context
from pathlib import Path

import pytest

from internimage.data import ImageReadError
from internimage.data.shards import ShardSet, find_shards, holds_shards
from internimage.data.shards.fetching import Patience
from internimage.data.shards.index import write_whole
from support.shards import serving

HASTY = Patience(tries=3, wait_s=0.01, timeout_s=2.0)


def everything(shards: ShardSet) -> list[tuple[bytes, int | None, str]]:
    return [(shards.read(index), shards.target(index), shards.name(index)) for index in range(len(shards))]


@pytest.fixture
def good(packed: Path) -> list[tuple[bytes, int | None, str]]:
    return everything(ShardSet.open(packed / "train"))


class Fault:
    """The first ``times`` requests for tar files are answered badly."""

    def __init__(self, kind: str, times: int = 2) -> None:
        self.kind, self.left = kind, times

    def __call__(self, handler: SimpleHTTPRequestHandler, path: str, content: bytes) -> bool:
        if not path.endswith(".tar") or self.left == 0:
            return False
        self.left -= 1
        if self.kind.isdecimal():
            handler.send_error(int(self.kind))
            return True
        handler.send_response(200)
        if self.kind in ("dies", "hangs"):
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(bytes(len(content)) if self.kind == "other bytes" else content[: len(content) // 2])
        if self.kind == "hangs":
            time.sleep(2.5)
        return True


def test_as_from_the_folder_and_each_file_once(packed: Path, good: list[tuple[bytes, int | None, str]]) -> None:
    with serving(packed) as server:
        assert holds_shards(f"{server.url}/train")
        assert not holds_shards(server.url)
        server.asked.clear()
        for _ in range(2):
            assert everything(ShardSet.open(f"{server.url}/train/", patience=HASTY)) == good
        counts = Counter(server.asked)
    assert counts.pop("train/index.json") == 2
    assert len(counts) == 2 * len(list((packed / "train").glob("*.tar")))
    assert set(counts.values()) == {1}


def test_splits_of_a_server(packed: Path) -> None:
    with serving(packed) as server:
        splits = find_shards(server.url)
        assert splits is not None
        assert list(splits.sources) == ["train", "val"]
        assert len(splits.open("val", transform=lambda image: image)) == 30
        with pytest.raises(ValueError, match=r"has no train/index\.json of shards"):
            find_shards(f"{server.url}/nowhere")


def read_all(shards: ShardSet) -> int:
    return sum(len(shards.read(index)) for index in range(len(shards)))


def test_processes_fetch_each_shard_once(packed: Path, good: list[tuple[bytes, int | None, str]]) -> None:
    with serving(packed) as server:
        shards = ShardSet.open(f"{server.url}/train", patience=HASTY)
        with get_context("spawn").Pool(3) as pool:
            assert set(pool.map(read_all, [shards] * 6, chunksize=1)) == {sum(len(content) for content, *_ in good)}
        assert max(Counter(path for path in server.asked if path.endswith(".tar")).values()) == 1


@pytest.mark.parametrize("kind", ["500", "503", "429", "dies", "short", "hangs"])
def test_a_bad_spell_is_survived(packed: Path, good: list[tuple[bytes, int | None, str]], kind: str) -> None:
    with serving(packed, Fault(kind, 1 if kind == "hangs" else 2)) as server:
        assert everything(ShardSet.open(f"{server.url}/train", patience=HASTY)) == good


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("404", r"the server answers 404 \(Not Found\); check the address$"),
        ("403", r"the server answers 403 \(Forbidden\); check the address$"),
        ("500", r"the server answers 500 \(Internal Server Error\), 3 times; check that the server runs"),
        ("dies", r"[\d,]+ bytes came instead of [\d,]+, 3 times|stopped in the middle .*, 3 times"),
        ("short", r"[\d,]+ bytes came instead of [\d,]+, 3 times"),
    ],
)
def test_a_broken_server_is_told_in_one_sentence(packed: Path, own_cache: Path, kind: str, reason: str) -> None:
    with serving(packed, Fault(kind, -1)) as server:
        shards = ShardSet.open(f"{server.url}/train", patience=HASTY)
        with pytest.raises(ConnectionError, match=rf"^cannot fetch {server.url}/train/shard-00000\.tar: .*{reason}"):
            shards.read(0)
    assert not [*own_cache.rglob("*.tar"), *own_cache.rglob("*.partial")]


def test_other_bytes_are_never_taken(packed: Path, good: list[tuple[bytes, int | None, str]]) -> None:
    """A copy that was damaged is fetched once more."""
    with serving(packed, Fault("other bytes", 1)) as server:
        assert everything(ShardSet.open(f"{server.url}/train", patience=HASTY)) == good


def test_a_server_with_damaged_shards_is_named(packed: Path, tmp_path: Path) -> None:
    with serving(packed, Fault("other bytes", -1)) as server:
        shards = ShardSet.open(f"{server.url}/train", cache=tmp_path / "fresh", patience=HASTY)
        with pytest.raises(ImageReadError, match=r"shard-00000\.tar/.* in http://.*CRC-32"):
            shards.read(0)
        assert Counter(server.asked)["train/shard-00000.tar"] == 2


def test_a_missing_server_and_a_missing_index(packed: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/train"
    with pytest.raises(ConnectionError, match=r"the server can't be reached \(Connection refused\), 3 times"):
        ShardSet.open(url, patience=HASTY)
    shutil.copy(packed / "train/shard-00000.tar", tmp_path)
    with (
        serving(tmp_path) as server,
        pytest.raises(ValueError, match=r"has no index\.json; .*internimage data pack --index_only FOLDER$"),
    ):
        ShardSet.open(server.url, patience=HASTY)


def test_a_server_that_goes_for_good(packed: Path, good: list[tuple[bytes, int | None, str]]) -> None:
    """What was fetched is there; the rest is refused."""
    with serving(packed) as server:
        shards = ShardSet.open(f"{server.url}/train", patience=HASTY)
        first = shards.shards[0].num_samples
        for index in range(first):
            shards.read(index)
    assert [shards.read(index) for index in range(first)] == [content for content, *_ in good[:first]]
    with pytest.raises(ConnectionError, match="can't be reached"):
        shards.read(first)


def test_the_cache_stays_within_its_bound(
    packed: Path, good: list[tuple[bytes, int | None, str]], own_cache: Path
) -> None:
    sizes = [shard.num_bytes for shard in ShardSet.open(packed / "train").shards]
    bound = 3 * max(sizes)
    with serving(packed) as server:
        shards = ShardSet.open(f"{server.url}/train", cache_gib=bound / 2**30, patience=HASTY)
        for index, (content, *_) in enumerate(good):
            assert shards.read(index) == content
            assert sum(path.stat().st_size for path in own_cache.rglob("*.tar")) <= bound
        kept = {path.name for path in own_cache.rglob("*.tar")}
        assert kept == {shard.file for shard in shards.shards[-len(kept) :]}, "the last used stay"
        with pytest.raises(ValueError, match=r"but one shard has .* GiB; raise cache_gib"):
            ShardSet.open(f"{server.url}/train", cache_gib=1000 / 2**30, cache=own_cache / "x", patience=HASTY).read(0)


def test_shards_are_fetched_ahead(packed: Path, own_cache: Path) -> None:
    with serving(packed) as server:
        shards = ShardSet.open(f"{server.url}/train", patience=HASTY)
        shards.fetch_ahead([2, 3])
        end = time.monotonic() + 20
        while len(list(own_cache.rglob("*.tar"))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert {path.name for path in own_cache.rglob("*.tar")} == {"shard-00002.tar", "shard-00003.tar"}


def test_threads_fetch_one_index_at_once(tmp_path: Path) -> None:
    """Whoever comes second neither meets half a file nor takes the first one's away."""
    path, content = tmp_path / "shard-00000.index.npz", bytes(range(256)) * 4096
    with ThreadPoolExecutor(8) as threads:
        for _ in range(30):
            list(threads.map(lambda _: write_whole(path, content), range(8)))
            assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
