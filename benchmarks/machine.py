"""On what, with what, from which sources and by which command the numbers were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import internimage
from benchmarks.comparison import Settings
from benchmarks.official import describe_checkout

_PACKAGES = ("torchvision", "timm", "triton", "numpy", "onnxruntime", "openvino", "nncf")
_REPOSITORY = Path(__file__).resolve().parent.parent


def describe(settings: Settings, suite: str) -> dict[str, str]:
    """Facts about this run, by their names, in the order in which a person asks for them."""
    facts = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command(settings, suite),
        "source": f"internimage {internimage.__version__}, commit {_commit()}",
    }
    if settings.official is not None:
        facts["official code"] = describe_checkout(settings.official)
    facts["processor"] = f"{_processor()}, {os.cpu_count()} cores, {_usable_cores()} usable"
    facts["memory"] = f"{_memory_gib():.0f} GiB"
    facts["threads"] = f"{torch.get_num_threads()} of PyTorch"
    if settings.device.type == "cuda":
        facts["GPU"] = f"{torch.cuda.get_device_name(settings.device)}, CUDA {torch.version.cuda}"
        facts["TF32"] = (
            f"matrix products {_on_off(torch.backends.cuda.matmul.allow_tf32)}, "
            f"convolutions {_on_off(torch.backends.cudnn.allow_tf32)}"
        )
    facts["load before"] = _load()
    facts["system"] = platform.platform(terse=True)
    others = [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    # PyTorch's own version says which build it is, the package's does not.
    facts["versions"] = ", ".join([f"Python {platform.python_version()}", f"torch {torch.__version__}", *others])
    return facts


def command(settings: Settings, suite: str) -> str:
    """The command line with every setting spelled out; the checkout's place on this machine says nothing."""
    parts = ["python -m benchmarks", f"--suite {suite}", f"--rounds {settings.rounds}", f"--threads {settings.threads}"]
    parts.append(f"--device {settings.device}")
    parts += ["--official PATH"] if settings.official is not None else []
    parts += ["--quick"] if settings.quick else []
    return " ".join(parts)


def _commit() -> str:
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git here)"
    return f"{commit} with uncommitted changes" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _load() -> str:
    """Programs that wanted a core in the last minute: much above 0 before a run means a noisy machine."""
    return f"{os.getloadavg()[0]:.1f} programs wanted a core in the last minute"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _on_off(value: object) -> str:
    return "on" if value else "off"
