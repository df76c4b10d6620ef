"""What is changed for the tests of commands is still needed, and what is said to be elsewhere is there."""

from __future__ import annotations

import re

import pytest

from support.documentation.changes import (
    NOT_RUN,
    OWN_PROCESS,
    SHORTER,
    SLOW,
    SLOW_BLOCKS,
    Elsewhere,
    Shorter,
    listed,
    shortened,
)
from support.documentation.commands import PAGES, REPOSITORY, Command, blocks, commands_of

COMMANDS = [command for page in PAGES for command in commands_of(page)]


@pytest.mark.parametrize("row", [*SHORTER, *NOT_RUN, *OWN_PROCESS, *SLOW], ids=lambda row: row.pattern)
def test_every_row_is_needed(row: Shorter | Elsewhere) -> None:
    assert any(row.page in (None, command.page) and re.search(row.pattern, command.text) for command in COMMANDS)


@pytest.mark.parametrize("row", NOT_RUN, ids=lambda row: row.pattern)
def test_what_is_named_instead_is_there(row: Elsewhere) -> None:
    for name in re.findall(r"(?:tests|\.ci)/[\w./]*\w", row.why):
        assert (REPOSITORY / name).exists(), name


def test_every_page_with_slow_blocks_has_some() -> None:
    assert all(blocks(PAGES[page].read_text(encoding="utf-8"), "python") for page in SLOW_BLOCKS)


def test_the_gate_runs_the_quickstart_whole() -> None:
    assert "make demo" in (REPOSITORY / ".ci" / "run").read_text()
    demo = re.search(r"^demo:.*\n\t(.+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert demo is not None
    assert demo[1].endswith("internimage quickstart")


def test_most_commands_are_run() -> None:
    ours = [command for command in COMMANDS if command.text.startswith("internimage ")]
    left = [command.text for command in ours if listed(NOT_RUN, command)]
    assert len(left) < 0.15 * len(ours), left


def test_options_go_behind_and_nothing_else_changes() -> None:
    command = Command("docs/x.md", "internimage test --run runs/x")
    assert shortened(command).startswith(f"{command.text} --trainer.limit_test_batches 1 ")
    assert shortened(Command("docs/x.md", "internimage doctor")) == "internimage doctor"


@pytest.mark.parametrize(
    ("text", "needs_shell"),
    [
        ("internimage predict photo.jpg", False),
        ("internimage fit --data.init_args.size_steps '{0: 64, 40: 96}'", False),
        ("internimage models > models.txt", True),
        ("internimage doctor && internimage models", True),
        ("WANDB_MODE=offline internimage runs", True),
        ("internimage runs $FOLDER", True),
    ],
)
def test_what_only_a_shell_understands(text: str, needs_shell: bool) -> None:
    assert Command("docs/x.md", text).needs_shell is needs_shell
