"""Every example runs, keeps the promise that it asserts, and is in the table."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from internimage.data import sample_photo

FOLDER = Path(__file__).resolve().parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    if path.stem.startswith("serve"):
        return
    result = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_the_table_has_every_example() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((\w+\.py)\)", table)) == [path.name for path in EXAMPLES]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The server of the example, at a port that is free."""
    command = [sys.executable, str(FOLDER / "serve_with_onnxruntime.py"), "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.kill()


def test_the_server_answers_pictures_and_nothing_else(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    with urlopen(address, data=sample_photo().read_bytes()) as answer:
        classes = json.loads(answer.read())
    assert next(iter(classes)) == "cat"
    assert len(classes) == 3
    assert 0.5 < classes["cat"] < 1
    for data, status in ((b"no picture", 400), (b"", 413)):
        with pytest.raises(HTTPError) as refused:
            urlopen(address, data=data)
        with refused.value as answer:
            assert answer.code == status
            assert "error" in json.loads(answer.read())
