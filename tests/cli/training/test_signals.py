"""Signals of a scheduler: a real process, with a scheduler's environment and a program in place of its `scontrol`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SLURM = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
SLURM |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1"}
FIT = [sys.executable, "-m", "internimage", "fit", "--config", "smoke/classification", "--run", "run", "--auto_resume"]


@pytest.mark.slow
def test_slurm_gets_its_job_back(tmp_path: Path) -> None:
    """Warned, it saves and asks to be queued again; started again by the same command, it goes on."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n', encoding="utf-8")
    (programs / "scontrol").chmod(0o755)
    environment = os.environ | SLURM | {"OMP_NUM_THREADS": "1", "PATH": f"{programs}:{os.environ['PATH']}"}
    given = {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*FIT, "--trainer.max_epochs", "500"], **given)
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "run/metrics.csv").is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "SIGUSR1: ending after this step" in err
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "requeue 77\n"
    done = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert not list(tmp_path.rglob("hpc_ckpt*")), "Lightning's own state would be taken instead of ours"
    epochs = str(done // 3 + 2)
    again = subprocess.run([*FIT, "--trainer.max_epochs", epochs], **given, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3 * int(epochs)
