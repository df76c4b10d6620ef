"""Whoever starts the processes, torchrun, its agents on several nodes or SLURM: one training, written and said once."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from internimage.cli.training.provenance import read_starts

FIT = ["fit", "--config", "smoke/classification", "--run", "run", "--trainer.accelerator", "cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start(command: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def check(processes: list[subprocess.Popen[str]], folder: Path, count: int = 2) -> None:
    """All have ended well, and what they wrote and said is that of one training of two epochs."""
    said = [process.communicate(timeout=280) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    out, err = ("".join(parts) for parts in zip(*said, strict=True))
    assert out.count("weights: run/model.safetensors") == 1, out
    assert sum(line.startswith("epoch ") for line in err.splitlines()) == 2, err
    with (folder / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert [float(row["epoch"]) for row in csv.DictReader(file)] == [0, 1]
    (began,) = read_starts(folder / "run")
    assert began["machine"]["processes"] == count
    assert (folder / "run" / "model.safetensors").is_file()


def test_torchrun(tmp_path: Path) -> None:
    agent = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "--", "internimage", *FIT]
    check([start([*agent, "--trainer.devices", "2", "--trainer.strategy", "ddp"], tmp_path)], tmp_path)


@pytest.mark.slow
def test_two_nodes(tmp_path: Path) -> None:
    """An agent each, which find each other at an address, with one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", address]
    agent = [*TORCHRUN, *meeting, "--rdzv-id", "clothes", "--local-addr", "127.0.0.1", "-m", "--", "internimage", *FIT]
    trainer = ["--trainer.devices", "1", "--trainer.num_nodes", "2", "--trainer.strategy", "fsdp2"]
    check([start([*agent, *trainer], tmp_path) for _ in range(2)], tmp_path)


@pytest.mark.slow
def test_slurm(tmp_path: Path) -> None:
    """Two tasks with the variables that `srun` would set."""
    job = {"SLURM_JOB_ID": "11", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost"}
    command = [sys.executable, "-m", "internimage", *FIT, "--auto_resume", "--trainer.devices", "2"]
    tasks = [{**job, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(2)]
    check([start([*command, "--trainer.strategy", "ddp"], tmp_path, **task) for task in tasks], tmp_path)
