"""The program, called as a person would, and one finished run for many tests to look at."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from internimage.cli.main import main
from internimage.data import export_samples
from support.pictures import small_pictures


@dataclass(frozen=True)
class Outcome:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one sentence of a command that refused its input."""
        assert self.status == 2, self
        assert self.err.startswith("internimage: "), self.err
        assert self.err.count("\n") == 1, f"not one line: {self.err}"
        assert "Traceback" not in self.err
        return self.err


def call(*arguments: object) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 1
        finally:
            # Lightning switches Ctrl-C off when it has seen it once.
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return Outcome(status, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def quick_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures of pages are empty sheets, but for those of the runs that many tests look at, which are whole."""
    with nullcontext() if "whole_pictures" in request.fixturenames else small_pictures(drawn=False):
        yield


@pytest.fixture
def whole_pictures() -> None:
    """For tests that look at what they draw."""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    """The program in an empty folder."""
    with chdir(tmp_path):
        yield call


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The smoke recipe's run, in a folder whose name has a space, and what was printed."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    outcome = call("fit", "--config", "smoke/classification", "--run", folder)
    assert outcome.status == 0, outcome
    return folder, outcome


@pytest.fixture(scope="session")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures of ten classes in train and val."""
    root = tmp_path_factory.mktemp("clothes") / "folder"
    export_samples(root / "train", "train", 40)
    export_samples(root / "val", "test", 20)
    return root
