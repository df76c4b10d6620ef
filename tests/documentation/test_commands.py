"""Every command of README.md and the other pages is run, as a reader would run it, or says here why it is not."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

import internimage
from cli.conftest import call
from internimage.model.checkpoints.hub import FOLDER_VARIABLE
from support.documentation.changes import NOT_RUN, OWN_PROCESS, SLOW, listed, shortened
from support.documentation.commands import PAGES, Command, commands_of
from support.documentation.stand_ins import prepare
from support.pictures import small_pictures

pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
WITH_COMMANDS = [page for page in PAGES if commands_of(page)]
WITH_SLOW_ONES = [page for page in PAGES if any(listed(SLOW, command) for command in commands_of(page))]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, one for weights that were placed by hand, and small pictures."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "placed"))
    with chdir(tmp_path), small_pictures():
        yield


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_run_from_top_to_bottom(page: str) -> None:
    follow(page, slow_too=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SLOW_ONES)
def test_all_commands_run_from_top_to_bottom(page: str) -> None:
    follow(page, slow_too=True)


def follow(page: str, *, slow_too: bool) -> None:
    """Run a page's commands in this folder; what one made, the next ones find."""
    names: dict[str, object] = {"internimage": internimage}
    for command in commands_of(page):
        if listed(NOT_RUN, command) or (listed(SLOW, command) and not slow_too):
            continue
        prepare(Path(), shortened(command), command.made)
        if command.is_python:
            exec(compile(command.text, page, "exec"), names)
        else:
            run(command)


def run(command: Command) -> None:
    """One line, in this process where that is the same."""
    text = shortened(command)
    if text.startswith("internimage ") and not command.needs_shell and not listed(OWN_PROCESS, command):
        outcome = call(*shlex.split(text)[1:])
        assert outcome.status == 0, f"{text}\n{outcome.out}{outcome.err}"
    else:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env={**os.environ, "PATH": path})
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    for option in ("--run", "--output"):
        if option in (words := shlex.split(text)):
            assert Path(words[words.index(option) + 1]).exists(), f"{text} did not write what it says"
