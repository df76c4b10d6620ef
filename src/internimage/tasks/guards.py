"""What a long training survives, and tells of: pictures that can't be read, steps whose loss is no number."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from internimage.data import ImageReadError
from internimage.tasks.callbacks import DivergedError
from internimage.tasks.stopping import any_process

log = logging.getLogger(__name__)
UNREADABLE, BAD_STEPS = "unreadable.jsonl", "bad_steps.jsonl"


@dataclass(frozen=True)
class Unreadable:
    """Training pictures that could not be read: a line of JSON for each, which all processes and workers add to.

    Args:
        path: the file.
        most: the largest share of the set that may be left out, in (0, 1].
    """

    path: Path
    most: float

    def __post_init__(self) -> None:
        if not 0 < self.most <= 1:
            raise ValueError(f"the share of pictures that may be left out must be in (0, 1], got {self.most}")

    def read(self) -> list[str]:
        """Which they are and what is wrong with each, in the order in which they were met."""
        found: dict[str, None] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else ():
            # The last line may have been cut short with the process that wrote it.
            with contextlib.suppress(json.JSONDecodeError):
                found[json.loads(line)["error"]] = None
        return list(found)

    def note(self, error: ImageReadError, count: int) -> None:
        """Add one of ``count`` pictures, which ``error`` names; raises it where that are too many."""
        known = self.read()
        if str(error) not in known:
            known.append(str(error))
            _add_line(self.path, {"error": str(error)})
        if len(known) > self.most * count or len(known) == count:
            raise ImageReadError(
                f"{error}; with it {len(known)} of {count} training pictures can't be read, more than the share of "
                f"{self.most:g} that may be left out"
            )


class FiniteLoss(Callback):
    """Looks at the loss before each step of the optimizer, so that NaN never reaches the weights.

    Such a step ends the training with `DivergedError`, or is left out; its pictures are noted.

    Args:
        path: a line of JSON for each such step.
        skip: go on without the step.
    """

    def __init__(self, path: Path, *, skip: bool) -> None:
        self.path, self.skip = path, skip
        self.skipped = 0
        self._bad: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that training resumes."""
        self.skipped = int(state_dict["skipped"])

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember; asking now would wait for the device once more."""
        bad = loss.detach().isfinite().logical_not()
        self._bad = bad if self._bad is None else self._bad | bad

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """End the training, or leave the step out in all processes."""
        bad, self._bad = self._bad, None
        # Loss scaling of 16 bits has infinite losses now and then, and leaves their steps out by itself.
        if bad is None or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        mine = bool(bad)
        if not any_process(trainer, mine):
            return
        if mine:
            names = cast(Any, trainer).datamodule.step_names()
            _add_line(self.path, {"step": trainer.global_step, "process": trainer.global_rank, "pictures": names})
        if not self.skip:
            raise DivergedError(
                f"the loss is not finite at step {trainer.global_step}; lower optimizer.lr or clip gradients "
                f"(trainer.gradient_clip_val); the pictures of that step are listed in {self.path}"
            )
        self.skipped += 1
        # AdamW leaves parameters without a gradient as they are.
        for parameter in pl_module.parameters():
            parameter.grad = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how many."""
        if self.skipped and trainer.is_global_zero:
            log.warning("%d steps whose loss was not finite were left out: see %s", self.skipped, self.path)


def _add_line(path: Path, row: dict[str, Any]) -> None:
    """In one write at the end of the file: several processes may do so at once."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode("utf-8", errors="backslashreplace"))
    finally:
        os.close(handle)
