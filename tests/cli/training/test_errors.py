"""Errors of PyTorch and its workers in one sentence; real ones, where a machine without a GPU has them."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from internimage.cli.training.errors import in_short


def test_memory_of_the_machine() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    short = in_short(caught.value)
    assert isinstance(short, ValueError)
    assert str(short).startswith("memory ran out: lower data.init_args.batch_size and raise")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_memory_of_a_device(error: Exception) -> None:
    assert str(in_short(error)).startswith("memory ran out: ")


class Killed(Dataset[int]):
    """Its reader is killed, as by a system that runs out of memory."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_worker_that_was_killed() -> None:
    with pytest.raises(RuntimeError) as caught:
        next(iter(DataLoader(Killed(), num_workers=1)))
    short = str(in_short(caught.value))
    assert short.startswith("a process that reads pictures has died (DataLoader worker (pid")
    assert short.endswith("if memory ran out, lower data.init_args.num_workers, and go on with --resume")
    assert "\n" not in short


def test_others_stay_as_they_are() -> None:
    error = RuntimeError("something else")
    assert in_short(error) is error
