"""``internimage fit | validate | test``: LightningCLI with one folder per run."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from internimage.cli.configs import resolve_config_names
from internimage.tasks import BaseTask, ClassificationData, ClassificationTask
from internimage.tasks.callbacks import BEST, LAST, WEIGHTS_FILE, ExportWeights, History, Report, SaveOnInterrupt
from internimage.tasks.classification_report import REPORT_FILE, ClassificationReport

log = logging.getLogger(__name__)
CONFIG_FILE = "config.yaml"
COMMANDS = {
    "fit": "Train; everything the run makes goes into one folder.",
    "validate": "Measure a run's best weights on its validation images.",
    "test": "Measure a run's best weights on its test images.",
}
# Naming the classes here makes their short names known in configuration files.
_KNOWN = (ClassificationTask, ClassificationData)


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
            run=False,
            args=list(arguments),
            seed_everything_default=0,
            parser_kwargs={"prog": f"internimage {command}", "description": COMMANDS[command]},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Ours beside Lightning's: the folder, the moving average, and what to do with an existing run."""
        parser.add_argument("--run", type=str, default="runs/run", help="the run's folder")
        parser.add_argument("--resume", action="store_true", help="go on from the run's last state")
        parser.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a run")
        parser.add_argument("--ema", type=float | None, default=None, help="decay of a moving average of the weights")
        parser.link_arguments("data.labels", "model.init_args.labels", apply_on="instantiate")
        parser.link_arguments("data.preprocess", "model.init_args.preprocess", apply_on="instantiate")

    @property
    def run_folder(self) -> Path:
        """Where this run's files go."""
        return Path(self.config["run"])

    def before_instantiate_classes(self) -> None:
        """Look at the folder before anything is built, and keep the configuration in it."""
        if self.command != "fit":
            return
        prepare_folder(self.run_folder, resume=self.config["resume"], overwrite=self.config["overwrite"])
        config = self.config.clone()
        config["resume"] = config["overwrite"] = False
        self.parser.save(config, str(self.run_folder / CONFIG_FILE), overwrite=True, skip_none=False)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Checkpoints, metrics, TensorBoard and the page all go to the run's folder."""
        trainer = cast(dict[str, Any], self.config_init["trainer"])
        own = trainer["callbacks"] or []
        kwargs["callbacks"] = [*(own if isinstance(own, list) else [own]), *self._callbacks()]
        if self.command == "fit":
            kwargs["logger"] = TensorBoardLogger(self.run_folder, name="", version="tensorboard")
        else:
            kwargs["logger"] = False
        kwargs["default_root_dir"] = str(self.run_folder)
        if trainer["enable_progress_bar"] is None:
            # Each epoch has its line in the log; a bar helps only who watches.
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        return super().instantiate_trainer(enable_model_summary=False, **kwargs)

    def _callbacks(self) -> list[Callback]:
        run = self.run_folder
        history = History(run / "metrics.csv")
        report = Report(ClassificationReport(run), history)
        if self.command != "fit":
            history.read()
            return [report]
        keeper = ModelCheckpoint(
            run / "checkpoints",
            filename=Path(BEST).stem,
            monitor="val/accuracy",
            mode="max",
            save_last=True,
            enable_version_counter=False,
        )
        decay = self.config["ema"]
        average = None if decay is None else EMAWeightAveraging(decay=decay)
        rescue = SaveOnInterrupt(run / "checkpoints" / LAST, average)
        ours = [rescue, history, LearningRateMonitor("step"), keeper, ExportWeights(run / WEIGHTS_FILE), report]
        return ours if average is None else [average, *ours]


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one of `COMMANDS`; returns the exit status."""
    _quieten()
    cli = TrainingCLI(command, complete(list(arguments)))
    checkpoints = cli.run_folder / "checkpoints"
    if command == "fit":
        return _fit(cli, checkpoints)
    best = checkpoints / BEST
    run = cli.trainer.test if command == "test" else cli.trainer.validate
    if not best.is_file():
        log.warning("%s is not there: the model is measured as it was built", best)
    cli.run_folder.mkdir(parents=True, exist_ok=True)
    found = str(best) if best.is_file() else None
    results = run(cli.model, cli.datamodule, ckpt_path=found, weights_only=True, verbose=False)
    for name, value in sorted(results[0].items()):
        print(f"{name:<22} {value:.4f}")
    print(f"report: {cli.run_folder / REPORT_FILE}")
    return 0


def _fit(cli: TrainingCLI, checkpoints: Path) -> int:
    last = str(checkpoints / LAST) if cli.config["resume"] else None
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last, weights_only=True)
    except SystemExit:
        # Lightning leaves this way after Ctrl-C, when everything is saved and closed.
        if not (checkpoints / LAST).is_file():
            print("stopped before the first step: nothing to resume", file=sys.stderr)
        else:
            print(f"stopped; go on with: internimage fit --run {cli.run_folder} --resume", file=sys.stderr)
        return 130
    print(f"weights: {cli.run_folder / WEIGHTS_FILE}\nreport:  {cli.run_folder / REPORT_FILE}")
    return 0


def complete(arguments: list[str]) -> list[str]:
    """Fill in what the arguments imply: a shipped configuration's path, a run's own configuration, a run's folder."""
    arguments = resolve_config_names(arguments)
    run, config = _value(arguments, "--run"), _value(arguments, "--config")
    if run is not None and config is None and (Path(run) / CONFIG_FILE).is_file():
        # The folder may have moved since: what was typed wins over what the configuration says.
        return ["--config", str(Path(run) / CONFIG_FILE), *arguments]
    if run is None and config is not None and Path(config).name != CONFIG_FILE:
        return [*arguments, "--run", f"runs/{Path(config).stem}"]
    return arguments


def prepare_folder(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the run's folder; never start anew over a run unless asked to.

    Raises:
        ValueError: the folder holds a run already, or there is nothing to resume.
    """
    holds_run = (run / CONFIG_FILE).exists() or (run / "checkpoints").exists()
    if resume:
        if not (run / "checkpoints" / LAST).is_file():
            raise ValueError(f"{run} has no checkpoints/{LAST}: there is nothing to resume; leave out --resume")
        return
    if holds_run and overwrite:
        shutil.rmtree(run)
    elif holds_run:
        raise ValueError(f"{run} holds a run already; choose another --run, go on with --resume, or pass --overwrite")
    elif run.is_dir() and any(run.iterdir()):
        raise ValueError(f"{run} holds other files; choose an empty or a new folder for --run")
    run.mkdir(parents=True, exist_ok=True)


def _value(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


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
        ".*when using `ckpt_path`, callbacks used to create the checkpoint.*",
    ):
        warnings.filterwarnings("ignore", message=message)
