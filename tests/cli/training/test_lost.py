"""A process that is killed or hangs ends the training with its reason, in bounded time, and leaves nobody behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from internimage.cli.training.errors import in_short
from internimage.cli.training.processes import as_loss, is_said
from internimage.data import export_samples

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
FOREVER = ["--config", "smoke/classification", "--trainer.max_epochs", "1000", "--trainer.logger", "false"]


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def strike(folder: Path, number: signal.Signals, *arguments: str) -> tuple[int, str, float]:
    """Train, send a signal to the first child after the first epoch; the exit status, what was said, seconds."""
    command = [sys.executable, "-m", "internimage", "fit", "--run", "run", *FOREVER, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (folder / "run/checkpoints/last.ckpt").exists():
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.1)
            victim, start = children(process.pid)[0], time.monotonic()
            os.kill(victim, number)
            said = process.communicate(timeout=200)[1]
        finally:
            process.kill()
    assert not Path(f"/proc/{victim}").exists(), "it was left behind"
    return process.returncode, said, time.monotonic() - start


TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp")


def test_a_killed_process_is_named(tmp_path: Path) -> None:
    status, said, _ = strike(tmp_path, signal.SIGKILL, *TWO)
    assert status not in (0, None)
    sentences = [line for line in said.splitlines() if line.startswith("internimage: ")]
    assert sentences == [
        "internimage: process 1 of 2 on this machine was killed (SIGKILL); go on with --resume",
    ]
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    status, said, seconds = strike(tmp_path, signal.SIGSTOP, *TWO, "--timeout_minutes", "0.3")
    assert status not in (0, None)
    assert "gave no answer for 0.3 minutes" in said
    assert "Traceback" not in said
    assert seconds < 150


@pytest.mark.slow
def test_a_reader_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """As with a file system that is gone: to open a pipe that nobody writes to takes for ever."""
    for split in ("train", "test"):
        export_samples(tmp_path / "clothes" / {"test": "val"}.get(split, split), split, 40)
    victim = sorted((tmp_path / "clothes" / "train").rglob("*.png"))[7]
    victim.unlink()
    os.mkfifo(victim)
    command = [sys.executable, "-m", "internimage", "fit", "--run", "run", *FOREVER, "--timeout_minutes", "0.2"]
    command += ["--data.init_args.root", "clothes", "--data.init_args.num_workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode not in (0, None)
    assert "the processes that read pictures gave nothing for" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:9", "has ended"),
        ("[enforce fail at gloo/transport/tcp/unbound_buffer.cc] Timed out waiting 600000ms for recv", "no answer"),
        ("a matrix is singular", None),
    ],
)
def test_only_what_the_transport_says_is_a_loss(message: str, words: str | None) -> None:
    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(launcher=None))
    found = as_loss(RuntimeError(message), trainer, 10)
    assert (found is None) if words is None else re.search(rf"{words}.*go on with --resume", str(found))


def test_slow_readers_are_a_sentence() -> None:
    assert "gave nothing for 540 seconds" in str(in_short(RuntimeError("DataLoader timed out after 540 seconds")))


def test_one_of_several_processes_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert [is_said("it is full"), is_said("it is full")] == [False, False]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [is_said("it is full"), is_said("it is full"), is_said("it is empty")] == [False, True, False]
