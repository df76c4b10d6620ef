"""The files of a run, written anew after every comparison: a run that is killed keeps what it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.on_gpu.measuring import Finding
from benchmarks.on_gpu.targets import judge, table
from benchmarks.on_gpu.tune_suite import summarize
from benchmarks.report import as_json, free_names, section

_QUICK = "**A quick run: it shows that everything runs; its numbers mean nothing.**"


class Page:
    """A Markdown page and its JSON under names that nobody had.

    Args:
        output: a folder, for files called ``<date>_gpu_<suite>``, or a file name that ends in .md or .json.
        suite: of the name.
        facts: about the machine and the command; ``date`` begins with the day.
        quick: the page says so, and no target is judged.
    """

    def __init__(self, output: Path, suite: str, facts: Mapping[str, str], *, quick: bool) -> None:
        folder, stem = place(output, facts["date"][:10], suite)
        folder.mkdir(parents=True, exist_ok=True)
        json_file, page_file = free_names(folder, stem)
        self.files = (json_file, page_file)
        for file in self.files:
            # Taken at once, so that a second run at the same time gets other names.
            file.touch(exist_ok=False)
        self._suite, self._facts, self._quick = suite, dict(facts), quick

    def write(self, findings: Sequence[Finding], state: str) -> None:
        """Replace both files by what is known now; ``state`` says whether the run goes on."""
        for file, text in zip(self.files, (self._json(findings, state), self._page(findings, state)), strict=True):
            draft = file.with_name(file.name + ".part")
            draft.write_text(text, encoding="utf-8")
            draft.replace(file)

    def _json(self, findings: Sequence[Finding], state: str) -> str:
        content = json.loads(as_json(self._suite, self._facts, findings))
        content["state"] = state
        content["targets"] = [asdict(verdict) for verdict in judge(findings, quick=self._quick)]
        for plain, finding in zip(content["results"], findings, strict=True):
            plain["key"], plain["notes"] = dict(finding.key), list(finding.notes)
            for row in plain["rows"]:
                row["launch_us"] = round(finding.readings[row["name"]].launch_us, 2)
                row["share_of_copy_bandwidth"] = finding.shares.get(row["name"])
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _page(self, findings: Sequence[Finding], state: str) -> str:
        lines = [f"# On a GPU: {self._suite}, {self._facts['date'][:10]}", ""]
        lines += [_QUICK, ""] if self._quick else []
        lines += [f"- {name}: {f'`{fact}`' if name == 'command' else fact}" for name, fact in self._facts.items()]
        lines += [f"- state: {state}", "", "How to read this: benchmarks/README.md.", ""]
        for finding in findings:
            lines += [*finding_lines(finding), ""]
        if best := summarize(findings):
            lines += ["## Best configurations", "", *best, ""]
        lines += ["## Targets", "", *table(judge(findings, quick=self._quick)), ""]
        return "\n".join(lines)


def place(output: Path, day: str, suite: str) -> tuple[Path, str]:
    """Folder and name without ending: a path that ends in ``.md`` or ``.json`` is a file, any other a folder.

    >>> place(Path("runs/first.md"), "2030-01-31", "operator")[1], place(Path("runs"), "2030-01-31", "operator")[1]
    ('first', '2030-01-31_gpu_operator')
    """
    if output.suffix in (".md", ".json"):
        return output.parent, output.stem
    return output, f"{day}_gpu_{suite}"


def finding_lines(finding: Finding) -> list[str]:
    """One comparison in Markdown: table, checks, refusals, who is missing, and the notes of a GPU's comparison."""
    if not finding.rows:
        missing = [f"- Not here: {name}: {reason}." for name, reason in finding.skipped]
        return [f"## {finding.title}", "", "Nobody could be measured.", "", *missing]
    refused = dict.fromkeys(f"- **{row.refused}**." for row in finding.rows if row.refused)
    return [*section(finding), *refused, *finding.notes]
