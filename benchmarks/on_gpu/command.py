"""The command line of the GPU benchmark, and the run: suite by suite, comparison by comparison, until time is up."""

from __future__ import annotations

import os
import signal
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

import torch

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.on_gpu import branch_suite, network_suite, operator_suite, training_suite, tune_suite
from benchmarks.on_gpu.checkouts import DCNV4, DEFORMOPS, OFFICIAL, check
from benchmarks.on_gpu.checkouts import describe as describe_checkout
from benchmarks.on_gpu.clock import copy_bandwidth, make_clock
from benchmarks.on_gpu.extensions import Missing, Peers
from benchmarks.on_gpu.measuring import DeviceLost, Finding, Setup, TimeUp, Trial, default_cache, measure
from benchmarks.on_gpu.page import Page, finding_lines
from benchmarks.on_gpu.targets import judge, table

SUITES: dict[str, Callable[[Setup], Iterator[Trial]]] = {
    "operator": operator_suite.trials,
    "branch": branch_suite.trials,
    "networks": network_suite.trials,
    "training": training_suite.trials,
    "huge": training_suite.huge_trials,
    "tune": tune_suite.trials,
}
# Tuning finds out what to write into a table; it is no part of a report.
_ALL = ("operator", "branch", "networks", "training", "huge")
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_PEERS = (OFFICIAL, DCNV4, DEFORMOPS)
_RESULTS = Path(__file__).resolve().parents[1] / "results"
# Writing the last page and leaving takes less.
_MARGIN_S = 5.0
# Between two rings of the alarm.
_AGAIN_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Run the suites: 0 if all results that should be equal are, 1 if not, 3 if the GPU was lost."""
    options = parse(arguments)
    peers = Peers(_paths(options), Path(options.cache), torch.device(options.device))
    if options.build:
        return build(peers, options.build)
    deadline = time.monotonic() + options.time_limit - _MARGIN_S if options.time_limit else None
    setup = make_setup(options, peers, deadline)
    facts = make_facts(options, setup, peers)
    name = "_".join(dict.fromkeys(options.suite))
    page = Page(Path(options.output), name, facts, quick=setup.quick or setup.on_cpu)
    print("\n".join(f"{key}: {fact}" for key, fact in facts.items()), flush=True)
    suites = list(dict.fromkeys(one for given in options.suite for one in (_ALL if given == "all" else (given,))))
    state, findings = run(suites, setup, page)
    print("\n".join(["", *tune_suite.summarize(findings)]))
    print("\n".join(["", "## Targets", "", *table(judge(findings, quick=setup.quick or setup.on_cpu)), ""]))
    print(f"{state}\nwrote {page.files[1]} and {page.files[0]}")
    if state.startswith("stopped: the GPU"):
        return 3
    return 0 if all(finding.agrees for finding in findings) else 1


def run(suites: Sequence[str], setup: Setup, page: Page) -> tuple[str, list[Finding]]:
    """Everything that can be done before the deadline; the files are up to date after each comparison."""
    findings: list[Finding] = []
    state = "not finished: the run goes on, or was killed"
    page.write(findings, state)
    try:
        with alarm(setup.deadline):
            for suite in suites:
                for trial in SUITES[suite](setup):
                    finding = measure(trial, setup)
                    findings.append(finding)
                    print("\n".join(["", *finding_lines(finding)]), flush=True)
                    page.write(findings, state)
        state = f"finished: {len(findings)} comparisons"
    except TimeUp:
        state = f"stopped: the time limit was near; {len(findings)} comparisons are complete"
    except DeviceLost as lost:
        state = f"stopped: the GPU no longer answers after {lost}; {len(findings)} comparisons are complete"
    page.write(findings, state)
    return state, findings


@contextmanager
def alarm(deadline: float | None) -> Iterator[None]:
    """Raises `TimeUp` inside the block at the deadline, a value of ``time.monotonic()``, or never.

    And again each second: Python prints and drops what is raised in a finalizer or a weak reference's callback.
    """
    if deadline is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise_time_up)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, deadline - time.monotonic()), _AGAIN_S)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            # Also if it rang just before it was cleared.
            signal.signal(signal.SIGALRM, before)


def _raise_time_up(number: int, frame: FrameType | None) -> None:
    raise TimeUp


def build(peers: Peers, architecture: str) -> int:
    """Compile the peers' extensions for an architecture, on any machine that has nvcc."""
    status = 0
    for peer in (OFFICIAL, DCNV4):
        try:
            print(f"{peer.option}: {peers.build(peer, architecture)}")
        except Missing as reason:
            status = status or int(peers.paths.get(peer.option) is not None)
            print(f"{peer.option}: skipped: {reason}")
    return status


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; whatever is wrong with them ends the program with one sentence."""
    parser = ArgumentParser(prog="python benchmarks/gpu.py", description=__doc__)
    add = parser.add_argument
    add("--suite", nargs="+", choices=["all", *SUITES], default=["all"], help="what to measure; all leaves out tune")
    add("--tune", action="store_true", help="the same as --suite tune")
    add("--variants", nargs="+", choices=["t", "b"], default=["t", "b"], help="sizes, except in training and huge")
    add(
        "--dtypes",
        nargs="+",
        choices=list(_DTYPES),
        default=["fp16", "bf16"],
        help="types, except in training and huge",
    )
    add("--official", type=Path, help="a checkout of OpenGVLab/InternImage or its bare git directory; it is executed")
    add("--dcnv4", type=Path, help="a checkout of OpenGVLab/DCNv4 or its bare git directory; it is executed")
    add("--deformops", type=Path, help="a folder that holds the Python package deformops, version 3; it is executed")
    add("--cache", type=Path, default=default_cache(), help="where their patched copies and builds stay")
    add("--build", metavar="ARCH", help="only compile the extensions, for example for 9.0, on any machine with nvcc")
    add("--device", default="cuda", help="cuda, or cpu for a dry run with --quick")
    add("--rounds", type=int, help="samples of each contender; 20 by default")
    add("--quick", action="store_true", help="small batches and few repeats: shows that it runs, measures nothing")
    add("--time-limit", type=float, metavar="SECONDS", help="stop before; completed comparisons are kept")
    add("--output", type=Path, default=_RESULTS, help="a folder, or a file that ends in .md; nothing is overwritten")
    options = parser.parse_args(list(arguments))
    if options.tune:
        options.suite = ["tune"]
    for peer in _PEERS:
        path = getattr(options, peer.option)
        try:
            setattr(options, peer.option, check(peer, path.resolve()) if path is not None else None)
        except ValueError as error:
            parser.error(str(error))
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.time_limit is not None and options.time_limit <= _MARGIN_S:
        parser.error(f"--time-limit must be more than {_MARGIN_S:g} seconds, got {options.time_limit:g}")
    kind = options.device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        parser.error(f"--device must be cuda or cpu, got {options.device}")
    if kind == "cpu" and not options.quick and not options.build:
        parser.error("--device cpu is a dry run of the GPU benchmark: add --quick, or take python -m benchmarks")
    if kind == "cuda" and not torch.cuda.is_available() and not options.build:
        parser.error("no GPU that PyTorch can use was found; --device cpu --quick shows that the benchmark runs")
    return options


def make_setup(options: Namespace, peers: Peers, deadline: float | None = None) -> Setup:
    """The clock is calibrated and the copy bandwidth measured here, on the GPU that was asked for."""
    device = torch.device(options.device)
    if device.type == "cuda" and device.index is not None:
        # Streams, events and graphs are the current device's, wherever the tensors lie.
        torch.cuda.set_device(device)
    clock = make_clock(device)
    rounds = options.rounds or (3 if options.quick else 20)
    dtypes = tuple(_DTYPES[name] for name in dict.fromkeys(options.dtypes))
    return Setup(
        device,
        peers,
        clock,
        copy_bandwidth(device, clock),
        quick=options.quick,
        rounds=rounds,
        deadline=deadline,
        variants=tuple(dict.fromkeys(options.variants)),
        dtypes=dtypes,
    )


def make_facts(options: Namespace, setup: Setup, peers: Peers) -> dict[str, str]:
    """What `benchmarks.machine` knows, this program's command, the GPU's bandwidth, and the peers' versions."""
    settings = Settings(None, setup.rounds, torch.get_num_threads(), setup.device, setup.quick)
    facts = describe(settings, "gpu") | {"command": command(options, setup)}
    facts["date"] = datetime.now().astimezone().isoformat(timespec="seconds")
    facts["copy bandwidth"] = f"{setup.copy_bytes_per_s / 1e9:.0f} GB/s read and written by copy_"
    if setup.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setup.device)
        facts["GPU memory"] = f"{properties.total_memory / 2**30:.1f} GiB"
    for peer in _PEERS:
        path = peers.paths.get(peer.option)
        facts[peer.option] = describe_checkout(peer, path) if path is not None else "no path given"
    return facts


def command(options: Namespace, setup: Setup) -> str:
    """The command line with every setting spelled out; where checkouts lie on this machine says nothing."""
    parts = ["python benchmarks/gpu.py", f"--suite {' '.join(options.suite)}", f"--device {options.device}"]
    parts += [f"--variants {' '.join(options.variants)}", f"--dtypes {' '.join(options.dtypes)}"]
    parts.append(f"--rounds {setup.rounds}")
    parts += [f"--{peer.option} PATH" for peer in _PEERS if getattr(options, peer.option) is not None]
    parts += ["--quick"] if options.quick else []
    parts += [f"--time-limit {options.time_limit:g}"] if options.time_limit else []
    return " ".join(parts)


def _paths(options: Namespace) -> dict[str, Path | None]:
    # Compilers of PyTorch and Triton warn about their own doings; the results are read, not the noise.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return {peer.option: getattr(options, peer.option) for peer in _PEERS}
