"""Where a run's numbers come from: the command, the code's commit, the machine and the versions; and its log."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import traceback
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import internimage

STARTS_FILE, LOG_FILE = "starts.jsonl", "log.txt"
_PACKAGES = ("torch", "triton", "lightning", "torchvision", "timm", "transformers", "torchmetrics", "numpy", "pillow")
# What changes speed or results from outside the configuration; nothing here holds a secret.
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
_PREFIXES = ("INTERNIMAGE_", "NCCL_", "TORCH_", "SLURM_JOB_ID", "SLURM_NNODES", "SLURM_NTASKS")


def describe_start(command: Sequence[str], *, resumed: bool, processes: int) -> dict[str, Any]:
    """All that a start of a training depends on besides its configuration.

    Args:
        command: as it was typed.
        resumed: it goes on from a state.
        processes: that train together.
    """
    shown = {name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_PREFIXES)}
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "resumed": resumed,
        "folder": str(Path.cwd()),
        "internimage": internimage.__version__,
        "code": git_state(Path(internimage.__file__).parent),
        "project": git_state(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "machine": {
            "system": platform.platform(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
            "processes": processes,
        },
        "environment": dict(sorted(shown.items())),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of the checkout that holds ``folder``, and whether tracked files differ; None outside of one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class RunLog(logging.Handler):
    """Keeps what is said until the run has its folder, then adds it to ``log.txt`` there."""

    def __init__(self) -> None:
        super().__init__()
        self._early: list[str] = []
        self._path: Path | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or remember it."""
        when = datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S")
        self._write(f"{when} {record.levelname.lower()} {record.getMessage()}\n")

    def open(self, run: Path, start: dict[str, Any]) -> None:
        """Begin to write in a folder, with a line of ``starts.jsonl`` for this start."""
        with (run / STARTS_FILE).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(start, ensure_ascii=False) + "\n")
        self._path = run / LOG_FILE
        early, self._early = self._early, []
        self._write(f"{start['time']} {start['command']}\n" + "".join(early))

    def note(self, error: BaseException) -> None:
        """Write down why the training ended, with the places in the code that the program doesn't show."""
        if self._path is not None:
            self._write("".join(traceback.format_exception(error)))

    def _write(self, text: str) -> None:
        if self._path is None:
            self._early.append(text)
            return
        try:
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            # A full disk must not end a training that could still be saved elsewhere.
            self.handleError(logging.makeLogRecord({"msg": text}))


def read_starts(run: Path) -> list[dict[str, Any]]:
    """The starts of a run, first to last; a last line that was cut short is left out."""
    found: list[dict[str, Any]] = []
    path = run / STARTS_FILE
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
