"""The commands of a page: what a reader types, one after the other, in a shell and in Python.

Blocks of ``bash`` and of ``py`` need what the page made before, and `test_commands.py` runs them; blocks of ``python``
need nothing, and `tests/test_docs.py` runs them.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
# Pages whose commands a reader follows; those that README.md and docs/ bring in from elsewhere are among them.
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path
    for pattern in ("*.md", "docs/**/*.md", "src/**/*.md", "benchmarks/*.md", "examples/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
}
# What only a shell understands.
_SHELL = re.compile(r"&&|\|\||[|;<>`]|\$\(|\$\w|^\w+=")


@dataclass(frozen=True)
class Command:
    """One line of a page's ```bash block, its continuations joined, or a whole ```py block.

    Args:
        page: the file, relative to the repository.
        text: what is typed; of a shell's line without a comment behind it.
        is_python: whether it is for Python.
    """

    page: str
    text: str
    is_python: bool = False

    @property
    def needs_shell(self) -> bool:
        """Whether it is more than a program and its arguments."""
        return bool(_SHELL.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", self.text)))

    @property
    def made(self) -> str | None:
        """The folder that the command writes and must not find: a new run, or a set of pictures."""
        words = [] if self.is_python else shlex.split(self.text)
        if "fit" in words and "--run" in words and "--resume" not in words:
            return words[words.index("--run") + 1]
        is_conversion = words[1:3] in (["data", "coco"], ["data", "pack"]) and len(words) == 5
        return words[4] if is_conversion and not words[3].startswith("-") else None


def blocks(text: str, language: str) -> list[str]:
    """The contents of a page's code blocks of one language."""
    return [content for found, content in _blocks(text) if found == language]


def commands_of(page: str) -> list[Command]:
    """All commands of a page, from top to bottom."""
    found: list[Command] = []
    for language, block in _blocks(PAGES[page].read_text(encoding="utf-8")):
        if language == "py":
            found.append(Command(page, block, is_python=True))
        for line in block.replace("\\\n", " ").splitlines() if language == "bash" else ():
            if shlex.split(line, comments=True):
                found.append(Command(page, " ".join(_without_comment(line).split())))
    return found


def _blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def _without_comment(line: str) -> str:
    return re.sub(r"\s+#\s.*$", "", line)
