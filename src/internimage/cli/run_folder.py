"""The folder of a run: what lies in it, when it may be used, and how a new run replaces an old one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from internimage.tasks.checkpoints import LAST, WEIGHTS_FILE
from internimage.tasks.classification_report import REPORT_FILE

CONFIG_FILE, METRICS_FILE, CHECKPOINTS, LOGS = "config.yaml", "metrics.csv", "checkpoints", "tensorboard"
_PICTURES = ("curves.png", "predictions.png", "mistakes.png", "confusion_matrix.png")
# All that a run writes; whatever else lies in its folder belongs to the user.
_MADE = (CONFIG_FILE, METRICS_FILE, CHECKPOINTS, LOGS, WEIGHTS_FILE, "model.json", REPORT_FILE, *_PICTURES)
# A run that failed before its first epoch leaves no more than these.
_WORTHLESS = {CONFIG_FILE, LOGS}


def check_folder(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the run's folder, and see that nothing of value would be lost in it.

    Raises:
        ValueError: the folder holds a run already or other files, can't be written, or there is nothing to resume.
    """
    if resume:
        if not (run / CHECKPOINTS / LAST).is_file():
            raise ValueError(f"{run} has no {CHECKPOINTS}/{LAST}: there is nothing to resume; leave out --resume")
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in run.iterdir()}
    except OSError as error:
        raise ValueError(f"{run} can't be made a folder ({error.strerror}); choose another --run") from None
    if not os.access(run, os.W_OK):
        raise ValueError(f"{run} can't be written to; choose another --run, or change its permissions")
    if {CONFIG_FILE, CHECKPOINTS} <= there:
        if not overwrite:
            raise ValueError(
                f"{run} holds a run already; choose another --run, go on with --resume, or pass --overwrite"
            )
    elif there - _WORTHLESS:
        raise ValueError(f"{run} holds other files; choose an empty or a new folder for --run")


def clear_folder(run: Path) -> None:
    """Remove what an earlier run left in the folder; files that no run writes stay."""
    for name in _MADE:
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        else:
            (run / name).unlink(missing_ok=True)
