"""Peak memory of one workload: on a CPU that of a fresh process, on a GPU that of its allocator."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.timing import Workload

# The second call finds what the first one left: an optimizer's state, packed weights.
_CALLS = 2
_MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Memory in MiB: when the workload stood ready, and at its peak.

    On a CPU both count the whole process with Python and its libraries, on a GPU this workload's tensors alone.
    """

    ready_mib: float
    peak_mib: float

    @property
    def added_mib(self) -> float:
        """What the call itself took: intermediate results and, in training, gradients and the optimizer's state."""
        return self.peak_mib - self.ready_mib


def peak_memory(rebuild: Callable[[], Workload], device: torch.device, threads: int) -> Memory:
    """Build a workload anew, call it twice and read the peak.

    Args:
        rebuild: makes the workload; can be pickled, since on a CPU another process calls it.
        device: where the workload runs.
        threads: of that process.
    """
    if device.type == "cuda":
        return _peak_on_gpu(rebuild, device)
    # A process of its own: a peak never goes down again, and a forked one would start with our memory.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of_this_process, rebuild, threads).result()


def _peak_on_gpu(rebuild: Callable[[], Workload], device: torch.device) -> Memory:
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    workload = rebuild()
    torch.cuda.reset_peak_memory_stats(device)
    ready = torch.cuda.memory_allocated(device)
    _call(workload)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    return Memory((ready - before) / _MIB, (peak - before) / _MIB)


def _peak_of_this_process(rebuild: Callable[[], Workload], threads: int) -> Memory:
    torch.set_num_threads(threads)
    workload = rebuild()
    _forget_peak()
    ready = process_peak_mib()
    _call(workload)
    return Memory(ready, process_peak_mib())


def _call(workload: Workload) -> None:
    for _ in range(_CALLS):
        workload()


def _forget_peak() -> None:
    """Let the peak start again from the present size, where the system can: building may have needed more."""
    if _CLEAR.is_file():
        # "5" is documented in proc(5); some sandboxes forbid it, and then the peak covers the building as well.
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5", encoding="ascii")


def process_peak_mib() -> float:
    """The most memory this process held at once, in MiB."""
    if _STATUS.is_file():
        # On Linux ru_maxrss starts at the size of the process that started this one; VmHWM starts at nothing.
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
