"""``internimage fit | validate | test``: run it, and say in words how it ended."""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from internimage.cli.training.arguments import complete
from internimage.cli.training.errors import in_short
from internimage.cli.training.processes import as_loss, end_others, is_said, quieten_others
from internimage.cli.training.program import TrainingCLI
from internimage.cli.training.run_folder import CHECKPOINTS, has_state
from internimage.tasks.checkpoints import BEST, LAST, WEIGHTS_FILE
from internimage.tasks.guards import UNREADABLE
from internimage.tasks.reports import REPORT_FILE
from internimage.tasks.stopping import requeue, signals_restored

log = logging.getLogger(__name__)


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one of `COMMANDS`; returns the exit status."""
    _quieten()
    quieten_others()
    try:
        cli = TrainingCLI(command, complete(command, list(arguments)), arguments)
        if cli.config["print_groups"]:
            print(cli.groups())
            return 0
        with signals_restored():
            return _fit(cli) if command == "fit" else _measure(cli)
    except (ArgumentError, MisconfigurationException, OSError, ValueError, MemoryError, RuntimeError) as error:
        short = in_short(error)
        if isinstance(short, OSError | ValueError) and is_said(str(short)):
            return 2
        if short is error:
            raise
        raise short from error


def _fit(cli: TrainingCLI) -> int:
    state = None if cli.state is None else str(cli.state)
    ours = logging.getLogger("internimage")
    ours.addHandler(cli.run_log)
    try:
        is_done = _run(
            cli,
            lambda: cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=state, weights_only=True),
        )
    except BaseException as error:
        cli.run_log.note(error)
        raise
    finally:
        ours.removeHandler(cli.run_log)
        cli.claim.withdraw()
    if not is_done:
        has_begun = state is not None or cli.claim.claimed
        if not has_begun or not has_state(cli.run_folder):
            print("stopped before the first step: nothing to resume", file=sys.stderr)
        else:
            again = shlex.join(["internimage", "fit", "--run", str(cli.run_folder), "--resume"])
            print(f"stopped; go on with: {again}", file=sys.stderr)
        if cli.signals.requeue and cli.trainer.is_global_zero:
            requeue()
        return 130
    if cli.trainer.is_global_zero and (left_out := cli.left_out()):
        log.warning(
            "training pictures that could not be read: %d, listed in %s", len(left_out), cli.run_folder / UNREADABLE
        )
    for what, name in (("weights:", WEIGHTS_FILE), ("report: ", REPORT_FILE)):
        if cli.trainer.is_global_zero and (cli.run_folder / name).is_file():
            print(what, cli.run_folder / name)
    return 0


def _measure(cli: TrainingCLI) -> int:
    run = cli.trainer.test if cli.command == "test" else cli.trainer.validate
    if cli.state is None:
        log.warning("%s has no %s/%s: the model is measured as it was built", cli.run_folder, CHECKPOINTS, BEST)
    elif cli.state.name == LAST:
        log.warning("%s has no %s/%s: the last state is measured", cli.run_folder, CHECKPOINTS, BEST)
    state = None if cli.state is None else str(cli.state)
    cli.run_folder.mkdir(parents=True, exist_ok=True)
    results: list[Any] = []
    if not _run(
        cli,
        lambda: results.extend(
            run(cli.model, datamodule=cli.datamodule, ckpt_path=state, weights_only=True, verbose=False)
        ),
    ):
        print("stopped", file=sys.stderr)
        return 130
    if cli.trainer.is_global_zero:
        for name, value in sorted(results[0].items()):
            print(f"{name:<22} {value:.4f}")
        if (error := cli.report.error) is not None:
            raise error
        print(f"report: {cli.run_folder / REPORT_FILE}")
    return 0


def _run(cli: TrainingCLI, work: Callable[[], None]) -> bool:
    """False if Ctrl-C or a termination signal stopped the work."""
    try:
        work()
    except SystemExit:
        # Lightning leaves this way when everything is saved and closed.
        return False
    except Exception as error:
        loss = as_loss(error, cli.trainer, cli.config["timeout_minutes"])
        end_others(cli.trainer)
        if loss is None:
            raise
        raise loss from error
    return True


def _quieten() -> None:
    """Lightning's tips and advice that don't apply to what is run here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*args parameter is intended to run from within Python.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*TypedStorage is deprecated.*",
        # Frozen stages.
        ".*module\\(s\\) in eval mode at the start of training.*",
        ".*Grad strides do not match bucket view strides.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*when using `ckpt_path`, callbacks used to create the checkpoint.*",
    ):
        warnings.filterwarnings("ignore", message=message)
