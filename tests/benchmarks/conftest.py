"""The benchmarks lie beside the package, not in it: put the repository's root on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REPOSITORY = str(Path(__file__).resolve().parents[2])
if REPOSITORY not in sys.path:
    sys.path.insert(0, REPOSITORY)


@pytest.fixture(autouse=True)
def same_threads_after() -> Iterator[None]:
    """The command line sets PyTorch's threads; other tests keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
