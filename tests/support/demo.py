"""``internimage demo`` as a person would start it, and what a test looks at in the browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Server:
    """A running ``internimage demo``."""

    url: str
    process: subprocess.Popen[str]
    folder: Path
    files: Path

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; its exit status and what it printed since it was up."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@contextmanager
def running(folder: Path, *options: object, proxy: str = "") -> Iterator[Server]:
    """The program in a folder of its own; its files lie in the folder ``temporary`` there."""
    temporary, work = folder / "temporary", folder / "work"
    temporary.mkdir(parents=True)
    work.mkdir()
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    outside = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy) if proxy else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "internimage", "demo", "--device", "cpu", *map(str, options)],
        cwd=work,
        env={**given, **outside, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if line.startswith("http://"):
                break
        else:
            raise AssertionError(f"the server ended: {''.join(lines)}")
        (files,) = temporary.glob("internimage_demo_*")
        yield Server(lines[-1].split()[0], process, work, files)
    finally:
        process.kill()
        process.communicate()


def points_of(page: Any) -> str:
    """Where the picture with the points lies now; every drawing has a place of its own."""
    return str(page.get_attribute("#view img", "src"))


def wait_for_other_points(page: Any, before: str) -> str:
    """The place of the next drawing."""
    page.wait_for_function(
        "before => { const seen = document.querySelector('#view img'); "
        "return seen && seen.complete && seen.getAttribute('src') !== before; }",
        arg=before,
    )
    return points_of(page)


def until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait; fails when nothing happens."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
