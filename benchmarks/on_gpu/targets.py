"""What a GPU run should show, each target met, missed or not measured, from the findings of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from benchmarks.comparison import Row
from benchmarks.on_gpu import kernels, network_suite, training_suite
from benchmarks.on_gpu.measuring import Finding

Status = Literal["met", "missed", "not measured"]
# The four stages of T and B.
SHAPES = 8


@dataclass(frozen=True)
class Verdict:
    """One row of the table of targets."""

    what: str
    target: str
    status: Status
    detail: str


def judge(findings: Sequence[Finding], *, quick: bool) -> list[Verdict]:
    """Every target; a quick run decides nothing."""
    found = [] if quick else findings
    float16, both_types = ("float16",), ("float16", "bfloat16")
    verdicts = [
        _speed(found, "forward vs official DCNv3 extension (fp16)", 2.5, kernels.OFFICIAL, "forward", float16),
        _speed(found, "forward + backward vs official (fp16)", 2.0, kernels.OFFICIAL, "both", float16),
        _speed(found, "forward vs DCNv4's kernel on the same work", 1.0, kernels.DCNV4, "forward", both_types),
        _share(found, 0.5, both_types),
        _training(found, 1.5, 0.8),
        _inference(found, 1.0, 0.9),
        _huge(found),
    ]
    if quick:
        return [Verdict(v.what, v.target, "not measured", "a quick run decides nothing") for v in verdicts]
    return verdicts


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """The verdicts as lines of Markdown."""
    lines = ["| what | target | | measured |", "| --- | --- | --- | --- |"]
    return lines + [f"| {v.what} | {v.target} | **{v.status}** | {v.detail} |" for v in verdicts]


def _speed(
    findings: Sequence[Finding], what: str, least: float, peer: str, passes: str, dtypes: tuple[str, ...]
) -> Verdict:
    """Every shape must reach it; the geometric mean is for information."""
    target = f">= {least:g}x on every shape"
    found = _operator(findings, passes, dtypes, "none" if peer == kernels.DCNV4 else "softmax")

    def ratio(finding: Finding) -> float | None:
        row = finding.row(peer)
        return row.ratio.median if row is not None and row.ratio is not None else None

    return _every_shape(found, what, target, least, ratio, _reason(findings, "operator", peer), len(dtypes))


def _share(findings: Sequence[Finding], least: float, dtypes: tuple[str, ...]) -> Verdict:
    what, target = "compulsory bytes / time over measured copy bandwidth, forward", f">= {100 * least:.0f} %"
    found = _operator(findings, "forward", dtypes, "softmax")
    reason = _reason(findings, "operator", kernels.OURS)
    return _every_shape(found, what, target, least, lambda f: f.shares.get(kernels.OURS), reason, len(dtypes))


def _every_shape(
    findings: Sequence[Finding],
    what: str,
    target: str,
    least: float,
    value: Callable[[Finding], float | None],
    reason: str,
    num_dtypes: int,
) -> Verdict:
    values = {_shape(finding): number for finding in findings if (number := value(finding)) is not None}
    if not values:
        return Verdict(what, target, "not measured", reason)
    worst = min(values, key=lambda shape: values[shape])
    mean = prod(values.values()) ** (1 / len(values))
    reached = sum(number >= least for number in values.values())
    expected = SHAPES * num_dtypes
    detail = f"{reached} of {len(values)} shapes reach it; smallest {values[worst]:.2f} ({worst}), mean {mean:.2f}"
    if reached < len(values):
        return Verdict(what, target, "missed", detail)
    if len(values) < expected:
        return Verdict(what, target, "not measured", f"{detail}; {expected - len(values)} of {expected} are missing")
    return Verdict(what, target, "met", detail)


def _training(findings: Sequence[Finding], speed: float, memory: float) -> Verdict:
    what = "InternImage-T training step, bf16, batch 128, 224"
    target = f">= {speed:g}x official throughput, <= {memory:g} of its memory"
    missing = Verdict(what, target, "not measured", _reason(findings, "training", network_suite.OFFICIAL))
    # The comparison with everybody comes last.
    for finding in reversed(findings):
        official = finding.row(network_suite.OFFICIAL) if finding.key.get("suite") == "training" else None
        if official is None or finding.key.get("variant") != "t":
            continue
        words: list[str] = []
        met = False
        for name in (network_suite.COMPILED, network_suite.EAGER):
            row = finding.row(name)
            if row is None or row.refused or _refused(official):
                continue
            faster = official.timing.median_ms / row.timing.median_ms
            if row.memory is None or official.memory is None:
                continue
            share = row.memory.peak_mib / official.memory.peak_mib
            words.append(f"{name}: {faster:.2f}x and {share:.2f} of its memory")
            met = met or (faster >= speed and share <= memory)
        if words:
            return Verdict(what, target, "met" if met else "missed", "; ".join(words))
        refused = _refused(official) or "no result of ours that counts"
        missing = Verdict(what, target, "not measured", refused)
    return missing


def _inference(findings: Sequence[Finding], flash: float, convnext: float) -> Verdict:
    what = "InternImage-B inference throughput, compiled"
    target = f">= {flash:g}x FlashInternImage-B, >= {convnext:g}x ConvNeXt-B"
    rivals = {
        flash: (network_suite.FLASH, network_suite.FLASH_COMPILED),
        convnext: (network_suite.CONVNEXT, network_suite.CONVNEXT_COMPILED),
    }
    words: list[str] = []
    statuses: list[bool] = []
    reasons: list[str] = []
    for finding in _last_compiled(findings):
        ours = finding.row(network_suite.COMPILED)
        if ours is None or ours.refused:
            reasons.append((ours.refused if ours else finding.why_missing(network_suite.COMPILED)) or "no compiled row")
            continue
        for least, names in rivals.items():
            rows = [row for name in names if (row := finding.row(name)) is not None]
            if not rows:
                reasons.append(f"{names[0]}: {finding.why_missing(names[0]) or 'no row'}")
                continue
            # Whoever was skipped has a reason.
            late = [name for name in names if finding.row(name) is None and finding.why_missing(name) is None]
            reasons += [f"{name} was not reached" for name in late]
            best = min(rows, key=lambda row: row.timing.median_ms)
            ratio = best.timing.median_ms / ours.timing.median_ms
            statuses.append(ratio >= least)
            words.append(f"{ratio:.2f}x {best.name} ({finding.key['dtype']})")
    if not all(statuses):
        return Verdict(what, target, "missed", "; ".join(words + reasons))
    if reasons or not statuses:
        ran = any(finding.key.get("suite") == "networks" for finding in findings)
        why = "; ".join(words + reasons) or f"the suite networks {'did not come to it' if ran else 'was not run'}"
        return Verdict(what, target, "not measured", why)
    return Verdict(what, target, "met", "; ".join(words))


def _last_compiled(findings: Sequence[Finding]) -> list[Finding]:
    """B's last comparison of each type that has ours compiled: the later one has more rivals."""
    found: dict[str, Finding] = {}
    for finding in findings:
        if not {"suite": "networks", "variant": "b"}.items() <= finding.key.items():
            continue
        if finding.key["mode"] == network_suite.AS_WRITTEN:
            continue
        if finding.row(network_suite.COMPILED) is not None or finding.key["dtype"] not in found:
            found[finding.key["dtype"]] = finding
    return list(found.values())


def _huge(findings: Sequence[Finding]) -> Verdict:
    what, target = "H (1.08B) at 640 px", "trains on one 80 GB card with checkpointing"
    for finding in findings:
        row = finding.row(training_suite.HUGE) if finding.key.get("suite") == "huge" else None
        if row is not None and row.memory is not None:
            batch, memory = finding.key.get("batch", "?"), row.memory.peak_mib / 1024
            return Verdict(
                what, target, "met", f"batch {batch}, {memory:.1f} GiB, {row.timing.median_ms:.0f} ms a step"
            )
        if finding.key.get("suite") == "huge":
            reason = finding.why_missing(training_suite.HUGE) or "no row"
            return Verdict(what, target, "missed" if "memory" in reason else "not measured", reason)
    return Verdict(what, target, "not measured", "the suite huge was not run")


def _operator(findings: Sequence[Finding], passes: str, dtypes: tuple[str, ...], work: str) -> list[Finding]:
    wanted = {"suite": "operator", "passes": passes, "work": work}
    return [f for f in findings if wanted.items() <= f.key.items() and f.key.get("dtype") in dtypes]


def _shape(finding: Finding) -> str:
    key = finding.key
    return f"{key['variant'].upper()}'s stage {key['stage']}, {key['dtype']}"


def _refused(row: Row) -> str | None:
    return row.refused


def _reason(findings: Sequence[Finding], suite: str, name: str) -> str:
    """Why there is no number of somebody's: the suite did not run, it was skipped, or its results were wrong."""
    ran = [finding for finding in findings if finding.key.get("suite") == suite]
    if not ran:
        return f"the suite {suite} was not run"
    for finding in ran:
        if reason := finding.why_missing(name):
            return f"{name}: {reason}"
    refused = [row.refused for finding in ran if (row := finding.row(name)) is not None and row.refused]
    return refused[0] if refused else f"{name} was not reached"
