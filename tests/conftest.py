"""Fixtures for every room."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
# Triton's interpreter; NVIDIA's assembler, which has nothing to do where Triton's cache knows the kernels; trainings,
# exports and pictures of the documentation.
LONGEST = ("test_dcnv3_triton.py", "test_dcnv3_aot.py", "test_commands.py", "test_docs.py")


# Tensors here are small: a second thread costs more than it gives, above all on a busy machine.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, spread over two processes: no process is left alone with one of them at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_logging() -> None:
    """The command line sets up logging for its process; every test starts from Python's defaults."""
    logger = logging.getLogger("internimage")
    logger.setLevel(logging.NOTSET)
    logger.handlers = []


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """No test leaves a handler behind: processes forked by later ones would not end when told to."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory is NaN, so a kernel that forgets a tile can't pass by luck."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors find an H100 to trace for: what Triton and PyTorch would say of one."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from internimage.ops import dispatch

    class Driver:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

    monkeypatch.setattr(triton.runtime.driver, "_active", Driver())
    monkeypatch.setattr(dispatch, "architecture", lambda _: "sm_90")
    monkeypatch.setattr(dispatch, "why_no_triton", lambda device: None if device.type == "cuda" else "no GPU")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the official code; tests that need them skip where the folder is missing."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden files of the official code are not here")
    return folder
