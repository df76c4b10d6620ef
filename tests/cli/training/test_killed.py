"""kill -9 at any moment: what was trained is not lost, and the end is that of a training nobody disturbed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

# Imports once, for both runs, and starts every attempt as a copy of itself, so that it is trained and not imported when
# it dies; every third one dies while it writes a state.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import internimage.cli.training.command
from internimage.cli.main import main
sys.path.insert(0, sys.argv[1])
from support.pictures import small_pictures

kills, seed, *arguments = sys.argv[2:]
dice = random.Random(int(seed))
left, states, run = 0, Path("calm/checkpoints"), "calm"
while True:
    child = os.fork()
    if not child:
        with small_pictures(drawn=False):
            os._exit(main(["fit", "--run", run, "--auto_resume", *arguments]))
    if left:
        end = time.monotonic() + dice.uniform(0.3, 4)
        while time.monotonic() < end and not (left % 3 == 0 and any(states.glob("*.partial"))):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        print(run, os.WEXITSTATUS(status), int(kills) - left)
        if run == "killed":
            break
        left, states, run = int(kills), Path("killed/checkpoints"), "killed"
    else:
        left -= 1
"""
ARGUMENTS = ["--config", "smoke/classification", "--trainer.max_epochs", "14", "--save_every_minutes", "0.004"]
ARGUMENTS += ["--trainer.logger", "false"]
TESTS = Path(__file__).resolve().parents[2]


def train(folder: Path, kills: int, seed: int = 0) -> tuple[Path, Path]:
    """The runs of a training that nobody disturbs, and of one that is killed as often."""
    command = [sys.executable, "-c", KILLER, str(TESTS), str(kills), str(seed), *ARGUMENTS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (calm, killed) = (line.split() for line in done.stdout.splitlines() if line.startswith(("calm ", "killed ")))
    assert (calm[1], killed[1]) == ("0", "0"), done.stderr
    assert int(killed[2]) >= min(kills, 2), "it ended before anyone could disturb it"
    assert "Traceback" not in done.stderr
    return folder / "calm", folder / "killed"


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_killed_again_and_again_nothing_changes(tmp_path: Path, kills: int) -> None:
    calm, killed = train(tmp_path, kills)
    assert rows(killed) == rows(calm)
    one, other = load_file(calm / "model.safetensors"), load_file(killed / "model.safetensors")
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert {path.name for path in (killed / "checkpoints").iterdir()} <= {"best.ckpt", "last.ckpt", "previous.ckpt"}
