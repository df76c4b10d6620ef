"""The results of a question: a page for people, a file for programs, a figure, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internimage.cli.design.options import markdown_table
from internimage.cli.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


def results_page(
    title: str, facts: Mapping[str, str], notes: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """Facts, notes and a table in Markdown.

    Args:
        title: the day is added.
        facts: of `options.describe_run`.
        notes: sentences between facts and table.
        header: of the table.
        rows: of the table.
    """
    lines = [f"# {title}, {facts['date'][:10]}", ""]
    lines += [f"- {name}: {f'`{fact}`' if name == 'command' else fact}" for name, fact in facts.items()]
    return "\n".join([*lines, "", *notes, "", markdown_table(header, rows), ""])


def write_results(files: Sequence[Path], page: str, content: Mapping[str, Any], figure: Figure) -> None:
    """Write the page (.md), the content (.json) and the figure (.png), and say where."""
    files[0].write_text(page, encoding="utf-8")
    files[1].write_text(json.dumps(content) + "\n", encoding="utf-8")
    figure.savefig(files[2], dpi=_DPI, facecolor="white")
    print("\n".join(map(str, ("", *files))))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """The same table and notes on the terminal."""
    print("\n".join(["", *table(header, rows), "", *notes]))
