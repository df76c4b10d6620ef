"""``internimage fit | validate | test``: LightningCLI with one folder per run."""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentError
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from internimage.cli.configs import resolve_config_names, settings_in
from internimage.cli.errors import in_short
from internimage.cli.run_folder import (
    CHECKPOINTS,
    CONFIG_FILE,
    LOGS,
    METRICS_FILE,
    FolderClaim,
    check_folder,
    has_state,
)
from internimage.tasks import BaseTask, ClassificationData, ClassificationTask
from internimage.tasks.base_data import BaseData
from internimage.tasks.callbacks import History, MeasuredEnd, Report
from internimage.tasks.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    WEIGHTS_FILE,
    BestState,
    ExportWeights,
    LastState,
    MovingAverage,
)
from internimage.tasks.classification.report import ClassificationReport
from internimage.tasks.detection import DetectionData, DetectionTask
from internimage.tasks.detection.report import DetectionReport
from internimage.tasks.durable import DurableCheckpointIO, first_intact
from internimage.tasks.guards import (
    BAD_STEPS,
    UNREADABLE,
    FiniteLoss,
    Unreadable,
)
from internimage.tasks.reports import REPORT_FILE
from internimage.tasks.segmentation import SegmentationData, SegmentationTask
from internimage.tasks.segmentation.report import SegmentationReport
from internimage.tasks.stopping import Signals, requeue

log = logging.getLogger(__name__)
COMMANDS = {
    "fit": "Train; everything the run makes goes into one folder.",
    "validate": "Measure a run's best weights on its validation images.",
    "test": "Measure a run's best weights on its test images.",
}
# Naming the classes here makes their short names known in configuration files.
_KNOWN = (
    ClassificationTask,
    ClassificationData,
    DetectionTask,
    DetectionData,
    SegmentationTask,
    SegmentationData,
)
# Of other tasks than classification.
_REPORTS = {DetectionTask: DetectionReport, SegmentationTask: SegmentationReport}


class TrainingCLI(LightningCLI):
    """Reads the configuration, links data and model, and gives the trainer its run folder."""

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        self.command = command
        super().__init__(
            BaseTask,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            auto_configure_optimizers=False,
            # Our checkpoints describe themselves.
            load_from_checkpoint_support=False,
            run=False,
            args=list(arguments),
            seed_everything_default=0,
            # Errors then come as exceptions, without fifty lines of usage.
            parser_kwargs={
                "prog": f"internimage {command}",
                "description": COMMANDS[command],
                "exit_on_error": False,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Ours beside Lightning's: the folder, the moving average, and what to do with an existing run."""
        parser.add_argument("--run", type=str, default="runs/run", help="the run's folder")
        parser.add_argument("--resume", action="store_true", help="go on from the run's last state")
        parser.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a run")
        parser.add_argument(
            "--auto_resume", action="store_true", help="go on where the folder holds a state, begin where it does not"
        )
        parser.add_argument(
            "--save_every_minutes",
            type=float | None,
            default=None,
            help="save the state so often within an epoch, too; always after each epoch",
        )
        parser.add_argument(
            "--unreadable",
            type=float,
            default=0.01,
            help="share of the training pictures that is left out and listed where it can't be read; 0 for none",
        )
        parser.add_argument(
            "--skip_bad_steps", action="store_true", help="leave out steps whose loss is not finite, instead of ending"
        )
        parser.add_argument("--ema", type=float | None, default=None, help="decay of a moving average of the weights")
        parser.link_arguments("data.labels", "model.init_args.labels", apply_on="instantiate")
        parser.link_arguments("data.preprocess", "model.init_args.preprocess", apply_on="instantiate")
        parser.link_arguments("data.masks", "model.init_args.masks", apply_on="instantiate")
        parser.link_arguments("data.palette", "model.init_args.palette", apply_on="instantiate")

    @property
    def run_folder(self) -> Path:
        """Where this run's files go."""
        return Path(self.config["run"])

    @cached_property
    def state(self) -> Path | None:
        """The checkpoint that this command starts from, if there is one.

        Raises:
            ValueError: there are some, but all are damaged.
        """
        if self.command == "fit" and not self.config["resume"]:
            return None
        folder = self.run_folder / CHECKPOINTS
        # Without validation, no epoch is the best one. What is measured is never another one in silence.
        measured = (BEST,) if (folder / BEST).is_file() else (LAST,)
        names = (LAST, PREVIOUS) if self.command == "fit" else measured
        found, problems = first_intact([folder / name for name in names])
        if found is None and problems:
            raise ValueError(f"{'; '.join(problems)}; put an intact copy there, or train another run")
        for problem in problems:
            log.warning("%s: going on from the state before, %s", problem, found)
        return found

    def before_instantiate_classes(self) -> None:
        """Look at the folder before anything is built, and fetch no weights that a checkpoint replaces."""
        overwrite = self.config["overwrite"]
        if self.config["auto_resume"]:
            self.config["resume"] = self.config["resume"] or has_state(self.run_folder)
            # A training that died before its first state has left nothing worth keeping.
            overwrite = overwrite or not (self.run_folder / WEIGHTS_FILE).exists()
        if self.command == "fit":
            # Of several processes, the first one alone prepares the folder.
            check = rank_zero_only(check_folder)
            check(self.run_folder, resume=self.config["resume"], overwrite=overwrite)
        self._typed = self.config.clone()
        if self.state is None:
            return
        if "model.init_args.pretrained" in self.config:
            self.config["model.init_args.pretrained"] = False

    def after_instantiate_classes(self) -> None:
        """Everything is built: look at what can be wrong before a trainer starts."""
        if self.command == "fit":
            if isinstance(self.datamodule, BaseData) and self.config["unreadable"]:
                self.datamodule.unreadable = Unreadable(self.run_folder / UNREADABLE, self.config["unreadable"])
            self.datamodule.setup("fit")
            cast(BaseTask, self.model).check_schedule(self.trainer)

    def left_out(self) -> list[str]:
        """Training pictures that could not be read, and why."""
        noted = getattr(self.datamodule, "unreadable", None)
        return noted.read() if isinstance(noted, Unreadable) else []

    def keep_config(self) -> None:
        """Write down what was asked for."""
        self._typed["resume"] = self._typed["overwrite"] = self._typed["auto_resume"] = False
        target = str(self.run_folder / CONFIG_FILE)
        self.parser.save(self._typed, target, overwrite=True, skip_none=False, multifile=False)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Checkpoints, metrics, TensorBoard and the page all go to the run's folder."""
        trainer = cast(dict[str, Any], self.config_init["trainer"])
        own = trainer["callbacks"] or []
        kwargs["callbacks"] = [*(own if isinstance(own, list) else [own]), *self._callbacks()]
        logger = trainer["logger"]
        if self.command != "fit":
            kwargs["logger"] = False
        elif logger is not False:
            more = [] if logger in (None, True) else logger if isinstance(logger, list) else [logger]
            kwargs["logger"] = [TensorBoardLogger(self.run_folder, name="", version=LOGS), *more]
        plugins = trainer["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(each, CheckpointIO) for each in plugins):
            kwargs["plugins"] = [*plugins, DurableCheckpointIO({LAST: PREVIOUS})]
        if trainer["default_root_dir"] is not None:
            log.warning("trainer.default_root_dir is ignored: everything goes to the folder of --run")
        kwargs["default_root_dir"] = str(self.run_folder)
        if trainer["enable_progress_bar"] is None:
            # Each epoch has its line in the log; a bar helps only who watches.
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        return super().instantiate_trainer(enable_model_summary=False, **kwargs)

    def _callbacks(self) -> list[Callback]:
        run = self.run_folder
        history = History(run / METRICS_FILE)
        write = next((page for task, page in _REPORTS.items() if isinstance(self.model, task)), ClassificationReport)(
            run
        )
        self.report = report = Report(write, history)
        if self.command != "fit":
            history.read()
            return [report]
        states = run / CHECKPOINTS
        average = [] if self.config["ema"] is None else [MovingAverage(self.config["ema"])]
        # It refuses to run where there is no logger.
        rates = [] if self.config_init["trainer"]["logger"] is False else [LearningRateMonitor("step")]
        self.signals = Signals()
        self.claim = FolderClaim(run, self.keep_config, resume=self.config["resume"])
        return [
            self.claim,
            # The first to hear of an interruption, so that the weights are back when they are saved.
            *average,
            FiniteLoss(run / BAD_STEPS, skip=self.config["skip_bad_steps"]),
            history,
            *rates,
            MeasuredEnd(),
            BestState(states / BEST, monitor=cast(BaseTask, self.model).monitor),
            LastState(states / LAST, self.config["save_every_minutes"]),
            ExportWeights(states, run / WEIGHTS_FILE),
            report,
            self.signals,
        ]


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one of `COMMANDS`; returns the exit status."""
    _quieten()
    try:
        cli = TrainingCLI(command, complete(command, list(arguments)))
        return _fit(cli) if command == "fit" else _measure(cli)
    except (ArgumentError, MisconfigurationException, ValueError, MemoryError, RuntimeError) as error:
        short = in_short(error)
        if short is error:
            raise
        raise short from error


def _fit(cli: TrainingCLI) -> int:
    state = None if cli.state is None else str(cli.state)
    try:
        is_done = _run(
            lambda: cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=state, weights_only=True)
        )
    finally:
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
        lambda: results.extend(
            run(cli.model, datamodule=cli.datamodule, ckpt_path=state, weights_only=True, verbose=False)
        )
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


def _run(work: Callable[[], None]) -> bool:
    """False if Ctrl-C or a termination signal stopped the work."""
    try:
        work()
    except SystemExit:
        # Lightning leaves this way when everything is saved and closed.
        return False
    return True


def complete(command: str, arguments: list[str]) -> list[str]:
    """Fill in what the arguments imply: a shipped configuration's path, a run's own configuration, a run's folder.

    Raises:
        ValueError: no such configuration, or there is no run where one is needed.
    """
    arguments = resolve_config_names(arguments)
    configs = _values(arguments, "--config", "-c")
    run, config = next(iter(_values(arguments, "--run")), None), next(iter(configs), None)
    if run is not None and config is None:
        own = Path(run) / CONFIG_FILE
        if own.is_file():
            # The folder may have moved since: what was typed wins over what the configuration says.
            return ["--config", str(own), *arguments]
        if "--resume" in arguments or (command != "fit" and not any(text.startswith("--model") for text in arguments)):
            raise ValueError(f"{run} holds no run: there is no {CONFIG_FILE} in it; give the folder of a run")
    is_named = any(Path(path).name == CONFIG_FILE or "run" in settings_in(path) for path in configs)
    if run is None and config is not None and not is_named:
        return [*arguments, "--run", f"runs/{Path(config).stem}"]
    return arguments


def _values(arguments: Sequence[str], *names: str) -> list[str]:
    """All values of an option that has these names."""
    found: list[str] = []
    for position, argument in enumerate(arguments):
        if argument in names and position + 1 < len(arguments):
            found.append(arguments[position + 1])
        name, equals, value = argument.partition("=")
        if equals and name in names:
            found.append(value)
    return found


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
        ".*Grad strides do not match bucket view strides.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*when using `ckpt_path`, callbacks used to create the checkpoint.*",
    ):
        warnings.filterwarnings("ignore", message=message)
