"""The documentation runs: its Python blocks, its commands, its links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from internimage.cli.configs import find_config
from internimage.cli.main import _COMMANDS
from support.documentation.changes import SLOW_BLOCKS
from support.documentation.commands import PAGES, REPOSITORY, blocks

IDS = {"ids": lambda path: str(path.relative_to(REPOSITORY))}
WITH_BLOCKS = [
    pytest.param(path, marks=[pytest.mark.slow] if page in SLOW_BLOCKS else [])
    for page, path in PAGES.items()
    if blocks(path.read_text(encoding="utf-8"), "python")
]


@pytest.mark.parametrize("path", WITH_BLOCKS, **IDS)
def test_python_blocks_run_from_top_to_bottom(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks(path.read_text(encoding="utf-8"), "python"):
        capsys.readouterr()
        exec(compile(block, str(path), "exec"), names)
        printed = capsys.readouterr().out.strip()
        # A comment after a print, or under it, is what it prints.
        expected = re.findall(r"^(?: *print\(.*\)\s+)?# (.+)$", block, re.MULTILINE)
        assert all(text in printed for text in expected), f"printed {printed!r}, the page says {expected}"


@pytest.mark.parametrize("path", PAGES.values(), **IDS)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES.values(), **IDS)
def test_commands_and_configurations_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(internimage [^`]+)`", text)
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["internimage"]:
            assert words[1] in _COMMANDS, line
            if "--config" in words:
                find_config(words[words.index("--config") + 1])
        elif words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), line
