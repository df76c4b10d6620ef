"""``python -m benchmarks``: measure, print the tables, and leave them in a dated file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import dcnv3, exported, models, training
from benchmarks.comparison import Comparison, Result, Settings, measure
from benchmarks.machine import describe
from benchmarks.official import check_checkout
from benchmarks.report import section, write

try:
    from jsonargparse import ArgumentParser
except ImportError:
    # A rented GPU often has PyTorch and little else; these arguments mean the same to both parsers.
    from argparse import ArgumentParser

SUITES: dict[str, Callable[[Settings], Iterator[Comparison]]] = {
    "dcnv3": dcnv3.comparisons,
    "models": models.comparisons,
    "training": training.comparisons,
    "export": exported.comparisons,
}
SUMMARIES: dict[str, Callable[[Sequence[Result]], list[str]]] = {
    "dcnv3": dcnv3.summarize,
    "export": exported.summarize,
}
RESULTS = Path(__file__).resolve().parent / "results"
_QUICK_ROUNDS = 3


def main(arguments: Sequence[str]) -> int:
    """Run the suites; 0 if all results that should be equal are, 1 otherwise."""
    suite, output, settings = parse(arguments)
    started = time.monotonic()
    agree = True
    for name in SUITES if suite == "all" else (suite,):
        agree = run(name, settings, output) and agree
    print(f"{time.monotonic() - started:.0f} s")
    if not agree:
        print("Some results differ where they must be equal: no ratio is reported for those.", file=sys.stderr)
    return 0 if agree else 1


def parse(arguments: Sequence[str]) -> tuple[str, Path, Settings]:
    """(suite, folder for the results, settings); a wrong argument ends the program with one sentence."""
    parser = ArgumentParser(prog="python -m benchmarks", description="Measure the operator, networks and training.")
    parser.add_argument("--suite", choices=["all", *SUITES], default="all", help="what to measure")
    parser.add_argument(
        "--official", type=str, default=None, help="a checkout of OpenGVLab/InternImage; it is executed"
    )
    parser.add_argument("--rounds", type=int, default=None, help="samples of each contender; 10 by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of PyTorch")
    parser.add_argument("--device", type=str, default=None, help="cpu or cuda; cuda by default where there is one")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: shows that it runs, measures nothing")
    options = parser.parse_args(list(arguments))
    rounds = options.rounds if options.rounds is not None else (_QUICK_ROUNDS if options.quick else 10)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    official = Path(options.official).resolve() if options.official is not None else None
    if rounds < 1 or options.threads < 1:
        parser.error(f"--rounds and --threads must be at least 1, got {rounds} and {options.threads}")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        parser.error(f"--device {device} is not available; use cpu, or cuda on a machine that has it")
    if official is not None:
        try:
            check_checkout(official)
        except ValueError as error:
            parser.error(str(error))
    settings = Settings(official, rounds, options.threads, torch.device(device), options.quick)
    return options.suite, Path(options.output), settings


def run(suite: str, settings: Settings, output: Path) -> bool:
    """Measure one suite and write its files; whether all checks hold."""
    torch.set_num_threads(settings.threads)
    facts = describe(settings, suite)
    results: list[Result] = []
    for comparison in SUITES[suite](settings):
        results.append(measure(comparison, settings))
        print("\n".join(section(results[-1])), end="\n\n", flush=True)
    summary = SUMMARIES[suite](results) if suite in SUMMARIES else []
    print("\n".join(summary))
    for file in write(output, suite, settings.device.type, facts, results, summary):
        print(f"wrote {file}")
    return all(result.agrees for result in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
