"""Memory stays flat: ten times as many images take no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LayOut = Callable[[Path, int], list[Path]]
# Runs alone: other tests' memory would hide what is measured.
SCRIPT = """
import json, sys
from functools import partial
from pathlib import Path
from internimage import Classifier
from internimage.data.inputs import ImageInputs
from internimage.inference.bulk import ClassRows, Place, Task, run

weights, images, output, format = sys.argv[1:]
resident = {}

def report(counts):
    if counts.images in (300, 3000):
        status = Path("/proc/self/status").read_text()
        resident[counts.images] = int(status.split("VmRSS:")[1].split()[0]) / 1024

task = Task(partial(Classifier, weights, device="cpu"), ClassRows(), 10, 2, {})
Path(output).mkdir()
run(task, ImageInputs([images]), Place(Path(output), format, rows_per_file=100), report=report)
print(json.dumps(resident))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory is resident")
@pytest.mark.parametrize("format", ["parquet", pytest.param("jsonl", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_images(lay_out: LayOut, classifier: Path, tmp_path: Path, format: str) -> None:
    lay_out(tmp_path / "in", 3000)
    command = [sys.executable, "-c", SCRIPT, str(classifier), str(tmp_path / "in"), str(tmp_path / "out"), format]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    resident_mib = json.loads(done.stdout)
    # 2,700 rows take about 7 MiB, prepared pictures 32.
    assert resident_mib["3000"] - resident_mib["300"] < 3
