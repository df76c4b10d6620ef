"""The norms of gradients, step by step: against gradients by hand, through clipping and a resumed training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from internimage.tasks.gradients import GradientNorms, read_gradient_norms

# Of y = w x with the loss (y - 0)^2 / 2: the gradient is w x^2, a step of size 0.1 leaves w (1 - 0.1 x^2).
INPUTS = (1.0, 2.0, 0.5)


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.unused = nn.Parameter(torch.tensor(1.0))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return ((self.weight * batch) ** 2 / 2).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, epochs: int, state: Path | None = None, **more: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=[GradientNorms()],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    data = DataLoader(cast(Any, torch.tensor(INPUTS)), batch_size=1)
    trainer.fit(Line(), data, ckpt_path=None if state is None else str(state), weights_only=True)
    return trainer


def by_hand(epochs: int) -> list[float]:
    norms, weight = [], 3.0
    for x in INPUTS * epochs:
        norms.append(weight * x**2)
        weight -= 0.1 * norms[-1]
    return norms


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
def test_norms_by_hand_and_again_after_a_stop(tmp_path: Path) -> None:
    trainer = fit(tmp_path, 2)
    np.testing.assert_allclose(read_gradient_norms(tmp_path), by_hand(2), rtol=1e-6)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    (tmp_path / "gradient_norms.npy").unlink()
    fit(tmp_path, 3, tmp_path / "state.ckpt")
    np.testing.assert_allclose(read_gradient_norms(tmp_path), by_hand(3), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
def test_what_is_clipped_is_measured_whole(tmp_path: Path) -> None:
    fit(tmp_path, 1, gradient_clip_val=1.0)
    norms = read_gradient_norms(tmp_path)
    # The step is 0.1 at most, for the norm is 1 when it is taken.
    np.testing.assert_allclose(norms, [3.0, 2.9 * 4, 2.8 * 0.25], rtol=1e-6)


def test_several_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="for trainings in one process, and this one has 2"):
        GradientNorms().setup(cast(Any, SimpleNamespace(world_size=2)), cast(Any, None), "fit")
