"""Findings as files: JSON with every sample for programs, a Markdown page of tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.comparison import Agreement, Result, Row
from benchmarks.timing import Timing

# Half of the samples spread over more than this share of the median: the machine was not quiet.
_NOISY = 0.2
_QUICK = "**A quick run: it shows that everything runs; its numbers mean nothing.**"
_HEAD = (
    "",
    "median ms",
    "fastest",
    "middle half",
    "times as long as the first",
    "images/s",
    "peak MiB (added by the call)",
)


def write(
    folder: Path,
    suite: str,
    device: str,
    facts: Mapping[str, str],
    results: Sequence[Result],
    summary: Sequence[str] = (),
) -> list[Path]:
    """Write ``<date>_<suite>_<cpu or gpu>.json`` and ``.md`` side by side; earlier files stay, a number is appended.

    Args:
        folder: made if missing.
        suite: of the name.
        device: a device type; ``cuda`` is called gpu.
        facts: from `benchmarks.machine`; ``date`` begins with the day.
        results: from `benchmarks.comparison.measure`.
        summary: lines that stand before the tables.
    """
    stem = f"{facts['date'][:10]}_{suite}_{'gpu' if device == 'cuda' else device}"
    return keep(folder, stem, as_json(suite, facts, results), as_markdown(suite, facts, results, summary))


def keep(folder: Path, stem: str, *texts: str) -> list[Path]:
    """Write the JSON and the Markdown text under a name that is free; the folder is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = free_names(folder, stem)
    for file, text in zip(files, texts, strict=True):
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    return files


def one_table(title: str, facts: Mapping[str, str], head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A page in Markdown: the facts, then a table whose first column holds names and the others numbers."""
    lines = [f"# {title}, {facts['date'][:10]}", "", *(f"- {name}: {fact}" for name, fact in facts.items())]
    lines += ["", f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def free_names(folder: Path, stem: str) -> list[Path]:
    """The two files' paths under the first name that neither has taken."""
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}_{number}"
        files = [folder / f"{name}.json", folder / f"{name}.md"]
        if not any(file.exists() for file in files):
            return files
        number += 1


def as_json(suite: str, facts: Mapping[str, str], results: Sequence[Result]) -> str:
    """Everything, with all samples in milliseconds."""
    content = {"suite": suite, "facts": dict(facts), "results": [_plain(result) for result in results]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(result: Result) -> dict[str, object]:
    rows = [asdict(row) | {"timing": _plain_timing(row.timing)} for row in result.rows]
    agreements = [
        # JSON has no infinity.
        asdict(agreement) | {"error": f"{agreement.error:.3e}", "holds": agreement.holds}
        for agreement in result.agreements
    ]
    skipped = [{"name": name, "reason": reason} for name, reason in result.skipped]
    return {"title": result.title, "rows": rows, "agreements": agreements, "skipped": skipped}


def _plain_timing(timing: Timing) -> dict[str, object]:
    low, high = timing.quartiles_ms
    return {
        "median_ms": timing.median_ms,
        "min_ms": timing.min_ms,
        "quartiles_ms": [low, high],
        "calls_per_sample": timing.calls_per_sample,
        "samples_ms": [round(sample, 5) for sample in timing.samples_ms],
    }


def as_markdown(suite: str, facts: Mapping[str, str], results: Sequence[Result], summary: Sequence[str] = ()) -> str:
    """A page: the facts, what they come to, then one table per comparison with its checks and who is missing."""
    lines = [f"# {suite}, {facts['date'][:10]}", ""]
    if "--quick" in facts["command"]:
        lines += [_QUICK, ""]
    lines += [f"- {name}: {f'`{fact}`' if name == 'command' else fact}" for name, fact in facts.items()]
    lines += ["", "How to read this: benchmarks/README.md.", ""]
    lines += ["## In short", "", *summary, ""] if summary else []
    for result in results:
        lines += [*section(result), ""]
    return "\n".join(lines)


def section(result: Result) -> list[str]:
    """One comparison as Markdown lines: its table, its checks, and who is missing."""
    rows = [_cells(row, row is result.rows[0]) for row in result.rows]
    # A column without a number in it is left out.
    kept = [index for index in range(len(_HEAD)) if index == 0 or any(row[index] for row in rows)]
    lines = [f"## {result.title}", "", _line([_HEAD[index] for index in kept])]
    lines.append(_line(["---", *["---:"] * (len(kept) - 1)]))
    lines += [_line([row[index] for index in kept]) for row in rows]
    rounds = len(result.rows[0].timing.samples_ms)
    notes = (
        [f"- Rounds: {rounds}."]
        + _checks(result.agreements)
        + [f"- Not here: {name}: {reason}." for name, reason in result.skipped]
    )
    return [*lines, "", *notes]


def _cells(row: Row, is_baseline: bool) -> list[str]:
    timing, (low, high) = row.timing, row.timing.quartiles_ms
    noisy = " (noisy)" if high - low > _NOISY * timing.median_ms else ""
    ratio = ""
    if row.refused:
        ratio = "refused: results differ"
    elif row.ratio and not is_baseline:
        ratio = f"{row.ratio.median:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})"
    return [
        row.name,
        _milliseconds(timing.median_ms) + noisy,
        _milliseconds(timing.min_ms),
        f"{_milliseconds(low)} to {_milliseconds(high)}",
        ratio,
        "" if row.images_per_second is None else f"{row.images_per_second:.1f}",
        "" if row.memory is None else f"{row.memory.peak_mib:.0f} ({row.memory.added_mib:.0f})",
    ]


def _checks(agreements: Sequence[Agreement]) -> list[str]:
    """Failures one by one, and one line for all that holds."""
    failed = [
        f"- **Refused**: {agreement.name}: {agreement.what} differs by a relative RMS of {agreement.error:.1e}, "
        f"allowed {agreement.limit:.1e}."
        for agreement in agreements
        if not agreement.holds
    ]
    held = [agreement for agreement in agreements if agreement.holds]
    if held:
        closest = max(held, key=lambda agreement: agreement.error / agreement.limit)
        failed.append(
            f"- Results agree in {len(held)} of {len(agreements)} checks; the closest to its limit: "
            f"{closest.name}: {closest.what} differs by {closest.error:.1e}, allowed {closest.limit:.1e}."
        )
    return failed


def _milliseconds(value: float) -> str:
    """Three significant digits, without an exponent.

    >>> [_milliseconds(value) for value in (1234.5, 98.76, 7.654, 0.04321)]
    ['1234', '98.8', '7.65', '0.0432']
    """
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 4}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
