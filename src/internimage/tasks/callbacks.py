"""What a training run leaves behind for people: metrics, curves, pictures, a page, and a weight file that predicts."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from internimage.model import create_model, load_checkpoint, read_checkpoint, save_checkpoint

log = logging.getLogger(__name__)
WEIGHTS_FILE = "model.safetensors"
LAST, BEST = "last.ckpt", "best.ckpt"


class History(Callback):
    """One row per validated epoch in ``metrics.csv``; a resumed run goes on with the rows of its checkpoint.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint."""
        return {"rows": self.rows, "seconds": self.seconds + time.monotonic() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that training resumes."""
        self.rows, self.seconds = list(state_dict["rows"]), float(state_dict["seconds"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch's numbers and write them all."""
        row = {"epoch": float(trainer.current_epoch), "step": float(trainer.global_step)}
        row["lr"] = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        wanted = ("train/loss_epoch", "val/loss", "val/accuracy", "val/accuracy_top5")
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key in wanted}
        row |= {key.removesuffix("_epoch"): value for key, value in values.items()}
        row["seconds"] = round(self.seconds + time.monotonic() - self._started, 1)
        self.rows = [*(old for old in self.rows if old["epoch"] < row["epoch"]), row]
        if trainer.is_global_zero:
            write_rows(self.path, self.rows)
            log.info("%s", _in_words(row, trainer.max_epochs))

    def read(self) -> None:
        """Take the rows of an earlier training, to show them again."""
        self.rows = read_rows(self.path)


class SaveOnInterrupt(Callback):
    """On Ctrl-C or an error, save the state as ``last.ckpt``, so that the run can be resumed from there.

    Args:
        path: the checkpoint.
        average: the callback that keeps the moving average, or None.
    """

    def __init__(self, path: Path, average: Callback | None) -> None:
        self.path = path
        self.average = average

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save; during validation the moving average stands in for the weights and goes back first."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.global_step == 0:
            return
        if trainer.validating and self.average is not None:
            self.average.on_validation_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(self.path)


class ExportWeights(Callback):
    """After training, write the best checkpoint's weights as a file that predicts on its own.

    Args:
        path: the ``.safetensors`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the best checkpoint (the moving average where there is one) and save its network."""
        keeper = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
        source = Path(keeper.best_model_path) if keeper and keeper.best_model_path else None
        if source is None or not source.is_file() or not trainer.is_global_zero:
            return
        export_weights(source, self.path)


class Report(Callback):
    """Write the run's page after training and after a test.

    Args:
        write: makes the page from the trainer, the task and the history; task-specific.
        history: the run's `History`.
    """

    def __init__(self, write: Callable[[Trainer, LightningModule, History], Path], history: History) -> None:
        self.write = write
        self.history = history

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After training: with the validation images."""
        self._write(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a validation of its own, not one within training."""
        if not trainer.training and not trainer.sanity_checking and trainer.state.fn == "validate":
            self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a test: with the test images."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            log.debug("report: %s", self.write(trainer, pl_module, self.history))


def export_weights(checkpoint: Path, path: Path) -> Path:
    """The network of a training checkpoint as ``path`` (``.safetensors``) and its description beside it."""
    found = read_checkpoint(checkpoint)
    if found.card is None:
        raise ValueError(f"{checkpoint} does not say what it holds; it was not written by this package's training")
    model = create_model(found.card.config)
    load_checkpoint(model, found)
    return save_checkpoint(model, path, labels=found.card.labels, preprocess=found.card.preprocess, overwrite=True)  # pyright: ignore[reportArgumentType]


def write_rows(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Rows as CSV; whole or not at all, so that a reader never sees half a file."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _in_words(row: dict[str, float], max_epochs: int | None) -> str:
    parts = [f"epoch {int(row['epoch']) + 1}/{max_epochs}"]
    parts += [
        f"{name} {row[key]:.3f}" for name, key in (("loss", "train/loss"), ("val loss", "val/loss")) if key in row
    ]
    if "val/accuracy" in row:
        parts.append(f"val accuracy {100 * row['val/accuracy']:.1f}%")
    return "  ".join([*parts, f"lr {row['lr']:.1e}", f"{row['seconds']:.0f} s"])


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``; empty if there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
