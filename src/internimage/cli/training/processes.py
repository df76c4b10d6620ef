"""Several processes of one training: how long they wait for one another, how the loss of one ends, who speaks."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

# Seconds between two looks, for the first process to hear of a loss by itself, and for the others to end by themselves.
_LOOK, _HEARS, _ENDS = 0.5, 20.0, 5.0
# The status of a process that was asked to stop, and has.
_STOPPED = 130
# Seconds during which the same message is not said again by another process.
_FRESH = 120
_TRANSPORT = re.compile(r"gloo|NCCL|c10d|TCPStore|ProcessGroup", re.IGNORECASE)
_LATE = re.compile(r"timed? ?out", re.IGNORECASE)
_CLOSED = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|remote process exited", re.IGNORECASE)


class Launcher(_SubprocessScriptLauncher):
    """Lightning's, which kills the first process without a word when another one is lost; this one says which."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes and call the function here."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        self._call_children_scripts()
        threading.Thread(target=self._watch, args=(self.procs,), daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def lost(self) -> str | None:
        """Which process ended in another way than in order, or None; waits a moment for one that is just ending."""
        for _ in range(4):
            for number, process in enumerate(self.procs, 1):
                if (status := process.poll()) not in (None, 0, _STOPPED):
                    return f"process {number} of {self.num_processes} on this machine {_in_words(cast(int, status))}"
            time.sleep(_LOOK)
        return None

    def end(self) -> None:
        """After an error here: the others get a moment to end by themselves, and those that hang are killed."""
        for process in self.procs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS)
                continue
            process.kill()
            process.wait()

    def _watch(self, processes: list[Any]) -> None:
        while any(process.poll() is None for process in processes):
            time.sleep(_LOOK)
            if all(process.poll() in (None, 0, _STOPPED) for process in processes):
                continue
            # This process notices at the next sum over all, and ends in order; in a GPU's it may wait.
            time.sleep(_HEARS)
            os.write(2, f"internimage: {self.lost()}; go on with --resume\n".encode())
            for process in processes:
                process.kill()
            os._exit(1)


def supervise(trainer: Trainer, minutes: float) -> None:
    """Let no process wait longer than that for another one, and say in words which one is lost."""
    strategy: Any = trainer.strategy
    if hasattr(strategy, "_timeout"):
        # Of DDP, FSDP2 and DeepSpeed; the processes don't know of one another before the training begins.
        strategy._timeout = timedelta(minutes=minutes)
    own = strategy.launcher
    # Processes that torchrun, SLURM or Lightning have started start no others.
    if type(own) is _SubprocessScriptLauncher and not own.cluster_environment.creates_processes_externally:
        strategy._launcher = Launcher(own.cluster_environment, own.num_processes, own.num_nodes)


def end_others(trainer: Trainer) -> None:
    """After an error: nobody is left behind who hangs, neither a process of the training nor one that reads."""
    for reader in multiprocessing.active_children():
        reader.kill()
    launcher = trainer.strategy.launcher
    if isinstance(launcher, Launcher):
        launcher.end()


def as_loss(error: BaseException, trainer: Trainer, minutes: float) -> ConnectionError | None:
    """The error in words if it says that another process is gone or hangs, else None."""
    message = str(error)
    if trainer.world_size == 1 or not isinstance(error, RuntimeError) or not _TRANSPORT.search(message):
        return None
    launcher = trainer.strategy.launcher
    lost = launcher.lost() if isinstance(launcher, Launcher) else None
    if lost is None and _LATE.search(message):
        return ConnectionError(
            f"another process of this training gave no answer for {minutes:g} minutes: it hangs, or its machine is "
            "gone; go on with --resume, and raise --timeout_minutes if its work takes longer"
        )
    if lost is None and not _CLOSED.search(message):
        return None
    lost = lost or "another process of this training has ended: its own words, if it had any, say why"
    return ConnectionError(f"{lost}; go on with --resume")


def quieten_others() -> None:
    """What all processes would say, the first one says."""
    if cast(Any, rank_zero_only).rank:
        logging.getLogger("internimage").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def is_said(message: str) -> bool:
    """Whether another process of this training on this machine has just said the same; else this one does."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    if local is None:
        return False
    # Lightning's first process, which sets NODE_RANK, is the others' parent; those of torchrun and SLURM have one.
    first = os.getpid() if "NODE_RANK" in os.environ and local == "0" else os.getppid()
    digest = hashlib.sha256(f"{os.getuid()} {first} {message}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"internimage-said-{digest}"
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _FRESH:
            # Of another training.
            path.unlink()
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


def _in_words(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed ({signal.Signals(-status).name})"
    return f"ended with status {status}: its own words say why"
