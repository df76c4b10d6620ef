"""``internimage fit | validate | test``: LightningCLI with one folder per run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from internimage.cli.configs import flattened
from internimage.cli.training.groups import groups_table
from internimage.cli.training.processes import supervise
from internimage.cli.training.provenance import RunLog, describe_start
from internimage.cli.training.run_folder import (
    CHECKPOINTS,
    CONFIG_FILE,
    LOGS,
    METRICS_FILE,
    FolderClaim,
    check_folder,
    has_state,
)
from internimage.cli.training.wandb import RunWandb
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
from internimage.tasks.segmentation import SegmentationData, SegmentationTask
from internimage.tasks.segmentation.report import SegmentationReport
from internimage.tasks.stopping import Signals
from internimage.tasks.strategies import check_strategy

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

    def __init__(self, command: str, arguments: Sequence[str], typed: Sequence[str] = ()) -> None:
        self.command, self.typed = command, ["internimage", command, *(typed or arguments)]
        self.run_log = RunLog()
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
        parser.add_argument(
            "--print_groups", action="store_true", help="print what would learn how fast, and end there"
        )
        parser.add_argument("--wandb", type=str | None, default=None, help="also log to this project at wandb.ai")
        parser.add_argument(
            "--timeout_minutes",
            type=float,
            default=10.0,
            help="how long a process waits for the others, and for those that read pictures, before the training ends",
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
        if self.config["timeout_minutes"] <= 0:
            raise ValueError(f"--timeout_minutes must be positive, got {self.config['timeout_minutes']:g}")
        if self.command == "fit" and not self.config["print_groups"]:
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
        check_strategy(self.trainer)
        if isinstance(self.config_init["trainer"]["strategy"], str):
            supervise(self.trainer, self.config["timeout_minutes"])
        if isinstance(self.datamodule, BaseData):
            self.datamodule.timeout_minutes = self.config["timeout_minutes"]
        if self.command == "fit":
            if isinstance(self.datamodule, BaseData) and self.config["unreadable"]:
                self.datamodule.unreadable = Unreadable(self.run_folder / UNREADABLE, self.config["unreadable"])
            self.datamodule.setup("fit")
            cast(BaseTask, self.model).check_schedule(self.trainer)

    def groups(self) -> str:
        """What would learn how fast, as a table."""
        task = cast(BaseTask, self.model)
        task.freeze_stages()
        scale = task.rate_scale(self.trainer, self.datamodule)
        frozen = [(name, each.numel()) for name, each in task.named_parameters() if not each.requires_grad]
        return groups_table(task.groups(scale), frozen, task.optimizer_settings.lr * scale)

    def left_out(self) -> list[str]:
        """Training pictures that could not be read, and why."""
        noted = getattr(self.datamodule, "unreadable", None)
        return noted.read() if isinstance(noted, Unreadable) else []

    def keep_config(self) -> None:
        """Write down what was asked for, and of what code and machine."""
        self._typed["resume"] = self._typed["overwrite"] = self._typed["auto_resume"] = False
        target = str(self.run_folder / CONFIG_FILE)
        self.parser.save(self._typed, target, overwrite=True, skip_none=False, multifile=False)
        processes = self.trainer.world_size
        start = describe_start(self.typed, resumed=bool(self.config["resume"]), processes=processes)
        self.run_log.open(self.run_folder, start)
        for logger in self.trainer.loggers:
            if isinstance(logger, RunWandb):
                logger.begin(flattened(self._typed.as_dict()))

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
            if (project := self.config["wandb"]) is not None:
                more = [*more, RunWandb(project, self.run_folder, resume=self.config["resume"])]
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
