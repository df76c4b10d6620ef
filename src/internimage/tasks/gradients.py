"""How large the gradients were, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

GRADIENTS_FILE = "gradient_norms.npy"


class GradientNorms(Callback):
    """Keeps the 2-norm of all gradients at every step, before they are clipped, in ``gradient_norms.npy`` of the run.

    For trainings in one process (``--trainer.callbacks+=GradientNorms``); a resumed run goes on with its state's.
    """

    def __init__(self) -> None:
        self._norms: list[float] = []
        # Of the epoch so far, on the device: a look at the numbers would wait for it in every step.
        self._new: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what would give parts of a norm."""
        if trainer.world_size > 1:
            raise ValueError(f"GradientNorms is for trainings in one process, and this one has {trainer.world_size}")

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint."""
        self._collect()
        return {"norms": self._norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that training resumes."""
        self._norms, self._new = list(state_dict["norms"]), []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure; under 16-bit precision the gradients are unscaled here."""
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        self._new.append(get_total_norm(gradients).detach())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is."""
        self._collect()
        if trainer.is_global_zero:
            np.save(Path(trainer.default_root_dir) / GRADIENTS_FILE, np.asarray(self._norms, np.float32))

    def _collect(self) -> None:
        if self._new:
            self._norms += torch.stack(self._new).tolist()
            self._new = []


def read_gradient_norms(run: Path) -> NDArray[np.float32]:
    """The norms of a run, one per step, (S,); raises ``OSError`` if it kept none."""
    return np.load(run / GRADIENTS_FILE, allow_pickle=False)
