"""`internimage data pack`, `check` of shards, and a training on them that is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from internimage.data.shards import ShardSet
from support.shards import serving

Program = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_SHARDS", str(tmp_path / "cache"))


def test_pack_says_what_it_wrote_and_what_to_type(program: Program, clothes: Path) -> None:
    outcome = program("data", "pack", clothes, "my shards", "--shard_mib", "0.02")
    assert outcome.status == 0
    assert "packed" not in outcome.out
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["written", "pictures", "shards", "classes", "MiB"]
    assert lines[1].split()[-4:-1] == ["40", "5", "10"]
    assert "look at it: internimage data check 'my shards'" in lines
    assert len(ShardSet.open("my shards/train")) == 40
    assert "my shards is not empty" in program("data", "pack", clothes, "my shards").refusal()
    checked = program("data", "check", "my shards")
    assert checked.status == 0
    assert "train       40 images in 5 shards, 10 classes, 4 to 4 images a class" in checked.out
    assert "nothing to mend by hand" in checked.out
    with serving(Path.cwd()) as server:
        assert program("data", "check", f"{server.url}/my%20shards").out.count(" images in ") == 2


def test_pack_names_what_cannot_be_read(program: Program, clothes: Path) -> None:
    folder = Path(shutil.copytree(clothes, "folder"))
    bad = sorted((folder / "train/Coat").iterdir())[1]
    bad.write_bytes(b"no picture")
    outcome = program("data", "pack", folder, "out")
    assert outcome.status == 1
    assert str(bad) in outcome.err
    assert "1 pictures can't be read; they were left out" in outcome.out
    assert len(ShardSet.open("out/train")) == 39
    assert "they were packed" in program("data", "pack", folder, "all", "--keep_unreadable").out
    assert len(ShardSet.open("all/train")) == 40
    checked = program("data", "check", "all")
    assert checked.status == 1
    assert f"Coat/{bad.name} in all/train" in checked.err
    assert "pictures that can't be read: 1" in checked.err


def test_check_names_every_damaged_sample(program: Program, clothes: Path) -> None:
    program("data", "pack", clothes, "out", "--shard_mib", "0.02")
    path = Path("out/train/shard-00002.tar")
    path.write_bytes(path.read_bytes()[:9000])
    Path("out/val/shard-00000.index.npz").write_bytes(b"")
    outcome = program("data", "check", "out", "--all")
    assert outcome.status == 1
    assert "shard-00002.tar/" in outcome.err
    assert "the shard was cut short" in outcome.err
    assert "shard-00000.index.npz is damaged" in outcome.err
    assert "shards whose index can't be read: 1" in outcome.err


def test_index_only(program: Program, clothes: Path) -> None:
    program("data", "pack", clothes, "out", "--shard_mib", "0.02")
    before = Path("out/train/index.json").read_text()
    for split in ("train", "val"):
        for path in (*Path("out", split).glob("*.npz"), Path("out", split, "index.json")):
            path.unlink()
    outcome = program("data", "pack", "--index_only", "out")
    assert outcome.status == 0
    assert Path("out/train/index.json").read_text() == before
    assert "leave out the output folder" in program("data", "pack", "--index_only", "out", "there").refusal()
    assert "say where the shards go" in program("data", "pack", clothes).refusal()
    Path("empty").mkdir()
    assert "empty holds no tar files" in program("data", "pack", "--index_only", "empty").refusal()


def fit(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "internimage", "fit", "--run", name, *arguments]
    return subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_and_resumed(program: Program, clothes: Path, tmp_path: Path) -> None:
    """The final weights are those of a training that nobody disturbed, to the last bit."""
    program("data", "pack", clothes, "out", "--shard_mib", "0.02")
    recipe = ["--config", "smoke/classification", "--data.init_args.root", "out", "--data.init_args.image_size", "28"]
    recipe += ["--data.init_args.batch_size", "4", "--trainer.limit_train_batches", "1.0", "--trainer.logger", "false"]
    recipe += ["--save_every_minutes", "0.002", "--data.init_args.num_workers", "1"]
    calm = fit(tmp_path, "calm", *recipe)
    assert calm.communicate()[1] is not None
    assert calm.returncode == 0
    killed, state = fit(tmp_path, "killed", *recipe), tmp_path / "killed/checkpoints/last.ckpt"
    end = time.monotonic() + 120
    while not state.exists() and killed.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -9, "it ended before anyone could disturb it"
    saved = torch.load(state, weights_only=True)
    assert 0 < saved["global_step"] < 20
    resumed = fit(tmp_path, "killed", "--resume")
    message = resumed.communicate()[1]
    assert resumed.returncode == 0, message
    one, other = load_file(tmp_path / "calm/model.safetensors"), load_file(tmp_path / "killed/model.safetensors")
    assert all(one[name].equal(other[name]) for name in one)
    final = [torch.load(tmp_path / f"{name}/checkpoints/last.ckpt", weights_only=True) for name in ("calm", "killed")]
    assert all(final[0]["state_dict"][name].equal(final[1]["state_dict"][name]) for name in final[0]["state_dict"])


def test_a_missing_server_is_one_sentence(program: Program) -> None:
    url = "http://127.0.0.1:9/set"
    started = time.monotonic()
    refusal = program("data", "check", url).refusal()
    assert f"cannot fetch {url}/index.json: the server can't be reached" in refusal
    assert time.monotonic() - started < 60
