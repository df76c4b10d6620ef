"""The folder of a run: what lies in it, when it may be used, and how a new run replaces an old one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from internimage.cli.training.provenance import LOG_FILE, STARTS_FILE
from internimage.cli.training.wandb import WANDB_FILE, WANDB_FOLDER
from internimage.tasks.checkpoints import LAST, PREVIOUS, WEIGHTS_FILE
from internimage.tasks.detection.report import RESULTS_FILE
from internimage.tasks.gradients import GRADIENTS_FILE
from internimage.tasks.guards import BAD_STEPS, UNREADABLE
from internimage.tasks.reports import REPORT_FILE
from internimage.visualization.curves import METRICS_FILE
from internimage.visualization.evaluation import EVALUATION_FILE

CONFIG_FILE, CHECKPOINTS, LOGS = "config.yaml", "checkpoints", "tensorboard"
_PICTURES = (
    "curves.png",
    "predictions.png",
    "mistakes.png",
    "confusion_matrix.png",
    "worst.png",
    "precision_recall.png",
    "classes.png",
)
# All that a run writes; whatever else lies in its folder belongs to the user. The configuration comes last: where
# clearing is cut short, the folder can still be recognised.
_MADE = (
    METRICS_FILE,
    GRADIENTS_FILE,
    CHECKPOINTS,
    LOGS,
    WEIGHTS_FILE,
    "model.json",
    REPORT_FILE,
    RESULTS_FILE,
    EVALUATION_FILE,
    UNREADABLE,
    BAD_STEPS,
    STARTS_FILE,
    LOG_FILE,
    WANDB_FOLDER,
    WANDB_FILE,
    *_PICTURES,
    CONFIG_FILE,
)
# What a trial run, a test or a run that failed before its first epoch may leave: nothing that was learned.
_WORTHLESS = set(_MADE) - {CHECKPOINTS, WEIGHTS_FILE}


def check_folder(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the run's folder, and see that nothing of value would be lost in it.

    Raises:
        ValueError: the folder holds a run already or other files, can't be written, or there is nothing to resume.
    """
    if resume:
        if not has_state(run):
            raise ValueError(f"{run} has no {CHECKPOINTS}/{LAST}: there is nothing to resume; leave out --resume")
        _check_writable(run)
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in run.iterdir()}
    except OSError as error:
        raise ValueError(f"{run} can't be made a folder ({error.strerror}); choose another --run") from None
    _check_writable(run)
    states = run / CHECKPOINTS
    if states.is_dir() and not any(states.iterdir()):
        there.discard(CHECKPOINTS)
    if CONFIG_FILE in there and there & {CHECKPOINTS, WEIGHTS_FILE}:
        if not overwrite:
            raise ValueError(
                f"{run} holds a run already; choose another --run, go on with --resume, or pass --overwrite"
            )
    # Beside a run may lie what is not its own: to overwrite removes only what is.
    elif there - _WORTHLESS and not (overwrite and CONFIG_FILE in there):
        raise ValueError(f"{run} holds other files; choose an empty or a new folder for --run")


def has_state(run: Path) -> bool:
    """Whether there is something to go on from. A crash may have left the state before the last one alone."""
    return any((run / CHECKPOINTS / name).exists() for name in (LAST, PREVIOUS))


def _check_writable(run: Path) -> None:
    if not os.access(run, os.W_OK):
        raise ValueError(f"{run} can't be written to; choose another --run, or change its permissions")


def clear_folder(run: Path) -> None:
    """Remove what an earlier run left in the folder; files that no run writes stay, and what links lead to."""
    for name in _MADE:
        _remove(run / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class FolderClaim(Callback):
    """Replaces an older run, and keeps the configuration, when training really begins: till then nothing is lost.

    By then all settings have proved right and a state to resume has been loaded.

    Args:
        run: the folder.
        keep_config: writes the configuration.
        resume: the run in the folder goes on.
    """

    def __init__(self, run: Path, keep_config: Callable[[], None], *, resume: bool) -> None:
        self.run, self.keep_config, self.resume = run, keep_config, resume
        self.claimed = False
        self._old_logs = self._logs()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The folder is this run's now."""
        self.claimed = True
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                # It has begun a file among the old run's; closed, it begins another one when it is used.
                if isinstance(logger, TensorBoardLogger) and not self.resume:
                    logger.experiment.close()
            if not self.resume:
                # A linked folder stays where it is, without the file that has just been begun there.
                self._withdraw_logs()
                clear_folder(self.run)
            self.keep_config()

    @rank_zero_only
    def withdraw(self) -> None:
        """After an error: leave the folder as it was, if training has not begun."""
        if not self.claimed:
            self._withdraw_logs()

    def _withdraw_logs(self) -> None:
        for path in self._logs() - self._old_logs:
            _remove(path)
        logs = self.run / LOGS
        if not self._old_logs and logs.is_dir() and not logs.is_symlink() and not any(logs.iterdir()):
            logs.rmdir()

    def _logs(self) -> set[Path]:
        return set((self.run / LOGS).iterdir()) if (self.run / LOGS).is_dir() else set()
