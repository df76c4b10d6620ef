"""States on disk: whole or not at all, damage is found, and the state before is there."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage.tasks.durable import DurableCheckpointIO, damage, first_intact

IO = DurableCheckpointIO({"last.ckpt": "previous.ckpt"})


def state(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    weights = {f"layer.{index}": torch.randn(40, 30, generator=generator) for index in range(6)}
    return {"state_dict": weights, "global_step": number, "rows": [{"loss": 0.5}], "name": "größer"}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return bool(one == other)


def read(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_the_state_before_stays(tmp_path: Path) -> None:
    last, best = tmp_path / "states/last.ckpt", tmp_path / "states/best.ckpt"
    for number in range(3):
        IO.save_checkpoint(state(number), last)
        IO.save_checkpoint(state(10 + number), best)
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert same(read(last), state(2))
    assert same(read(last.with_name("previous.ckpt")), state(1))
    assert same(read(best), state(12))
    assert damage(last) is damage(best) is None


@pytest.mark.parametrize("number", range(200))
def test_damaged_is_found_or_harmless(tmp_path: Path, number: int) -> None:
    """Cut short, bits flipped, stretches zeroed: what counts as intact holds every number it was given."""
    path, dice = tmp_path / "last.ckpt", random.Random(number)
    IO.save_checkpoint(state(1), path)
    content = bytearray(path.read_bytes())
    place = dice.randrange(len(content))
    kind = number % 4
    if kind == 0:
        del content[place:]
    elif kind == 1:
        content[place] ^= 1 << dice.randrange(8)
    elif kind == 2:
        content[place : place + dice.randrange(1, 4096)] = b""
    else:
        end = min(place + dice.randrange(1, 4096), len(content))
        content[place:end] = bytes(end - place)
    path.write_bytes(content)
    if (found := damage(path)) is None:
        assert same(read(path), state(1))
    else:
        assert found.startswith("is damaged")


def test_a_flipped_bit_of_a_weight_is_found(tmp_path: Path) -> None:
    """The test above would pass if nothing were ever intact, or all flips fell into padding."""
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(state(1), path)
    content = bytearray(path.read_bytes())
    place = content.index(state(1)["state_dict"]["layer.3"].numpy().tobytes()[:64])
    content[place + 5] ^= 4
    path.write_bytes(content)
    assert not same(read(path), state(1)), "PyTorch itself would not notice"
    found = damage(path)
    assert found is not None
    assert "checksum" in found


def test_the_first_that_is_whole(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    assert first_intact([last, previous]) == (None, [])
    IO.save_checkpoint(state(1), last)
    IO.save_checkpoint(state(2), last)
    assert first_intact([last, previous]) == (last, [])
    last.write_bytes(last.read_bytes()[:-9])
    path, (problem,) = first_intact([last, previous])
    assert path == previous
    assert problem.startswith(f"{last} is damaged or cut short")
    last.unlink()
    assert first_intact([last, previous]) == (previous, [])
    previous.write_bytes(b"")
    path, (problem,) = first_intact([last, previous])
    assert path is None


def test_what_training_came_from_stays_until_the_next_is_whole(tmp_path: Path) -> None:
    """The last one was damaged; it must not push out the one before, which is all there is."""
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    writer = DurableCheckpointIO({"last.ckpt": "previous.ckpt"})
    writer.save_checkpoint(state(1), previous)
    last.write_bytes(b"damaged")
    writer.load_checkpoint(previous, weights_only=True)
    writer.save_checkpoint(state(2), last)
    assert same(read(previous), state(1))
    assert same(read(last), state(2))
    writer.save_checkpoint(state(3), last)
    assert same(read(previous), state(2))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "last.ckpt"
    IO.save_checkpoint(state(1), last)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"last\.ckpt could not be written, the disk is full; the state before is kept"):
        IO.save_checkpoint(state(2), last)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert same(read(last), state(1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_disk_that_fills_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="could not be written, the disk is full; mend that"):
        IO.save_checkpoint(state(1), tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_what_is_no_fault_of_the_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        IO.save_checkpoint({"callback": lambda: None}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())
