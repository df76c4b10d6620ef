"""What a training run leaves behind for people: metrics, curves, pictures and a page."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from internimage.tasks.strategies import local_part, unsharded
from internimage.visualization.curves import read_rows

log = logging.getLogger(__name__)
_MEASURED = (
    "val/loss",
    "val/accuracy",
    "val/accuracy_top5",
    "val/miou",
    "val/mean_accuracy",
    "val/pixel_accuracy",
    *(f"val/{kind}{name}" for kind in ("map", "mask_map") for name in ("", "50", "75", "_small", "_medium", "_large")),
    *(f"val/{kind}_{name}" for kind in ("map", "mask_map") for name in ("rare", "common", "frequent")),
    *(f"val/{name}" for name in ("voc", "voc07", "openimages", "miss_rate")),
)


class DivergedError(ValueError):
    """The weights or all losses have become NaN or infinite: no further step can mend that."""


class History(Callback):
    """One row per epoch in ``metrics.csv``; a resumed run goes on with the rows of its checkpoint.

    Before each validation and at the end of each epoch it ends a training that diverged, with `DivergedError`.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._started = time.monotonic()
        # Of the epoch so far: its batches, the sum and number of their finite losses, and what validation measured.
        self._batches = 0
        self._loss: Tensor | float = 0.0
        self._finite: Tensor | int = 0
        # The step since which no loss was finite, or 0.
        self._bad_since: Tensor | int = 0
        self._measured: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint."""
        seconds = self.seconds + time.monotonic() - self._started
        epoch = {"loss": float(self._loss), "batches": int(self._finite), "measured": self._measured}
        return {"rows": self.rows, "seconds": seconds, **epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that training resumes."""
        self.rows, self.seconds = list(state_dict["rows"]), float(state_dict["seconds"])
        self._loss = float(state_dict["loss"])
        self._finite = self._batches = int(state_dict["batches"])
        self._measured = dict(state_dict["measured"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a row; where a training resumes in the middle of an epoch, this is not called."""
        self._batches, self._loss, self._finite, self._bad_since, self._measured = 0, 0.0, 0, 0, {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch's loss, which Lightning has divided by the batches of a step."""
        if outputs is None:
            return
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches
        # All on the loss's device: a look at the numbers would wait for it in every step.
        is_finite = loss.isfinite()
        since = torch.as_tensor(self._bad_since, device=loss.device)
        self._bad_since = torch.where(is_finite, 0, torch.where(since > 0, since, trainer.global_step))
        self._loss = self._loss + torch.where(is_finite, loss, 0.0)
        self._finite = self._finite + is_finite
        self._batches += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is no sense in measuring a network without numbers."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._mean_loss(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was measured for the epoch's row."""
        if not trainer.sanity_checking:
            metrics = trainer.callback_metrics
            self._measured = {key: float(metrics[key]) for key in _MEASURED if key in metrics}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch's numbers and write them all."""
        row = {"epoch": float(trainer.current_epoch), "step": float(trainer.global_step)}
        row["lr"] = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        if (mean := self._mean_loss(trainer, pl_module)) is not None:
            row["train/loss"] = mean
        row |= self._measured
        row["seconds"] = round(self.seconds + time.monotonic() - self._started, 1)
        self.rows = [*(old for old in self.rows if old["epoch"] < row["epoch"]), row]
        if trainer.is_global_zero:
            write_rows(self.path, self.rows)
            log.info("%s", _in_words(row, trainer.max_epochs))

    def _mean_loss(self, trainer: Trainer, module: LightningModule) -> float | None:
        """Over the epoch so far and all processes; raises `DivergedError`.

        Loss scaling skips a step that overflows, so one infinite loss is no divergence, and is left out of the mean.
        """
        if not self._batches:
            return None
        total, count = (torch.as_tensor(value, device=module.device) for value in (self._loss, self._finite))
        are_numbers = torch.stack([local_part(parameter).isfinite().all() for parameter in module.parameters()]).all()
        mean = torch.where(are_numbers, total / count, torch.nan)
        # Every process comes to the same end.
        mean = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        if not math.isfinite(mean):
            step = int(self._bad_since) or trainer.global_step
            raise DivergedError(
                f"the loss is not finite at step {step}; lower optimizer.lr or clip gradients "
                "(trainer.gradient_clip_val)"
            )
        return mean

    def read(self) -> None:
        """Take the rows of an earlier training, to show them again."""
        self.rows = read_rows(self.path)


class MeasuredEnd(Callback):
    """The last state of a training is measured, also where steps end it in an epoch or few epochs are measured.

    Else the best epoch would be sought among those before, and the weights of the last steps never be exported.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the last epoch end with a validation."""
        if trainer.check_val_every_n_epoch is not None and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the epoch end here, and with a validation."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1


class Report(Callback):
    """Write the run's page after training and after a test.

    Args:
        write: makes the page from the trainer, the task and the history; task-specific.
        history: the run's `History`.
    """

    def __init__(self, write: Callable[[Trainer, LightningModule, History], Path], history: History) -> None:
        self.write = write
        self.history = history
        # Why the page of a measurement could not be written.
        self.error: OSError | None = None
        self._trained = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is something to report."""
        self._trained = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After training, with the validation images; a finished run that is resumed keeps its page."""
        if self._trained:
            self._write(trainer, pl_module)
        else:
            log.warning("the run is trained already; raise trainer.max_epochs to go on")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a validation of its own, not one within training."""
        if not trainer.training and not trainer.sanity_checking and trainer.state.fn == "validate":
            self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a test: with the test images."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The first process shows what the network makes of some pictures, and the others don't.
        with unsharded(pl_module):
            if trainer.is_global_zero:
                self._write_alone(trainer, pl_module)

    def _write_alone(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            log.debug("report: %s", self.write(trainer, pl_module, self.history))
        except OSError as error:
            if trainer.state.fn == "fit":
                raise
            # The numbers must not be lost with the page.
            self.error = error


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
    # Where steps end the training, nobody set a number of epochs.
    of_all = f"/{max_epochs}" if max_epochs is not None and max_epochs > 0 else f" (step {int(row['step'])})"
    parts = [f"epoch {int(row['epoch']) + 1}{of_all}"]
    parts += [
        f"{name} {row[key]:.3f}" for name, key in (("loss", "train/loss"), ("val loss", "val/loss")) if key in row
    ]
    percents = (
        ("val accuracy", "val/accuracy"),
        ("val AP", "val/map"),
        ("AP50", "val/map50"),
        ("mask AP", "val/mask_map"),
        ("val mIoU", "val/miou"),
        ("pixels right", "val/pixel_accuracy"),
    )
    parts += [f"{name} {100 * row[key]:.1f}%" for name, key in percents if key in row]
    return "  ".join([*parts, f"lr {row['lr']:.1e}", f"{row['seconds']:.0f} s"])
