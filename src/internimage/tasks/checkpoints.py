"""The states that training resumes and predicts from: best, last, interrupted, averaged, and the exported weights."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from internimage.model import create_model, load_checkpoint, read_checkpoint, save_checkpoint
from internimage.model.checkpoints.detector_files import load_detector, save_detector
from internimage.model.checkpoints.files import DETECTION, SEGMENTATION
from internimage.model.checkpoints.segmenter_files import load_segmenter, save_segmenter
from internimage.tasks.callbacks import DivergedError
from internimage.tasks.durable import first_intact
from internimage.tasks.stopping import any_process, ends_step
from internimage.tasks.strategies import ShardedStrategy, reshard

log = logging.getLogger(__name__)
WEIGHTS_FILE = "model.safetensors"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class MovingAverage(EMAWeightAveraging):
    """An exponential moving average of the weights, which validation measures and checkpoints hold as the main entry.

    Args:
        decay: share of the old average that each step keeps, in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema must be a decay in [0, 1), such as 0.999, got {decay}")
        super().__init__(decay=decay)
        self._stands_in = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the network; in the machine's memory if it will be shared out."""
        self._device = torch.device("cpu") if isinstance(trainer.strategy, ShardedStrategy) else None
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Each process keeps the average of its own parts."""
        if isinstance(trainer.strategy, ShardedStrategy):
            trainer.strategy.shard(cast(Any, self._average_model).module.network)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average, or begin one where there was none."""
        if "current_model_state" not in checkpoint and trainer.is_global_zero:
            log.info("the moving average begins with the resumed weights")
        with warnings.catch_warnings():
            # Lightning says the same, with a path and a line number.
            warnings.filterwarnings("ignore", message=".*was not created with WeightAveraging.*")
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average stands in for the weights."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._stands_in = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The weights come back."""
        if self._stands_in:
            self._stands_in = False
            super().on_validation_epoch_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The weights come back before anyone saves them."""
        reshard(pl_module)
        self.on_validation_epoch_end(trainer, pl_module)


class BestState(ModelCheckpoint):
    """The complete state after the epoch with the highest value, in a folder that may move before it is resumed.

    Args:
        path: the checkpoint.
        monitor: name of the value.
    """

    def __init__(self, path: Path, monitor: str) -> None:
        how: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        super().__init__(path.parent, filename=path.stem, monitor=monitor, mode="max", **how)
        # Lightning would follow a link, which may be gone when the folder's older run is replaced.
        self.dirpath = str(path.parent.absolute())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare; an epoch that was not validated is no candidate."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning would forget the best value in a folder that moved."""
        folder = Path(str(self.dirpath))
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: str(folder / Path(state_dict[key]).name) if state_dict[key] else "" for key in paths}
        models = {str(folder / Path(key).name): value for key, value in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": models, "dirpath": self.dirpath})


class LastState(Checkpoint):
    """The complete state after every epoch, between two steps of one after an error: what `--resume` takes.

    Put it after `BestState`, whose memory it holds.

    Args:
        path: the checkpoint.
        every_minutes: also saved in the middle of an epoch, so often; by default only after each.
    """

    def __init__(self, path: Path, every_minutes: float | None = None) -> None:
        if every_minutes is not None and every_minutes <= 0:
            raise ValueError(f"minutes between two states must be positive, got {every_minutes}")
        self.path, self.every_minutes = path, every_minutes
        # The optimizer step of the state on disk; None before training.
        self._step: int | None = None
        self._saved_at = 0.0
        # While a step is under way: how many came before it, and what its forward passes change besides the weights.
        self._before: tuple[int, list[Tensor]] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed state is on disk; a new training has nothing to save before its first step."""
        self._step, self._saved_at, self._before = trainer.global_step, time.monotonic(), None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember running statistics: an error may come between them and the weights."""
        if self._before is None:
            self._before = trainer.global_step, [buffer.clone() for buffer in pl_module.buffers()]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time."""
        if not ends_step(trainer, batch_idx):
            return
        self._before = None
        if self.every_minutes is None or trainer.is_last_batch:
            return
        if any_process(trainer, time.monotonic() - self._saved_at > 60 * self.every_minutes):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; later the moving average may replace the weights, which is no state to resume."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, unless nothing was learned since, or other processes don't know of the error and would not join in.

        Nor what has diverged: the state on disk is the last good one.
        """
        if isinstance(exception, DivergedError):
            return
        everywhere = isinstance(exception, KeyboardInterrupt | SIGTERMException) or trainer.world_size == 1
        if self._step in (None, trainer.global_step) or not everywhere:
            return
        if self._before is not None and self._before[0] == trainer.global_step:
            _back_to_the_last_step(trainer, pl_module, self._before[1])
        _begin_validation_anew(trainer)
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path)
        self._step, self._saved_at = trainer.global_step, time.monotonic()


def _back_to_the_last_step(trainer: Trainer, module: LightningModule, buffers: Sequence[Tensor]) -> None:
    """As if the step under way had not begun: gradients of its first batches would be lost."""
    with torch.no_grad():
        for buffer, before in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(before)
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    current: Any = progress.current
    lost = current.processed % trainer.accumulate_grad_batches
    # A batch that has just been processed is not yet counted as completed.
    uncounted = current.processed - current.completed
    for counts in (current, progress.total):
        counts.processed -= lost
        counts.completed -= max(lost - uncounted, 0)


def _begin_validation_anew(trainer: Trainer) -> None:
    """Resumed after an epoch's last step, Lightning would validate the remaining images only, or none of them."""
    loop = trainer.fit_loop.epoch_loop
    batches: Any = loop.batch_progress
    epochs: Any = trainer.fit_loop.epoch_progress
    is_ending = epochs.current.processed > epochs.current.completed
    is_trained = batches.is_last_batch and batches.current.processed == batches.current.ready
    if not (trainer.validating or is_ending or is_trained):
        return
    uncounted = batches.current.processed - batches.current.completed
    for epoch, batch in ((epochs.current, batches.current), (epochs.total, batches.total)):
        epoch.processed -= int(is_ending)
        batch.completed += uncounted
    validation = loop.val_loop.batch_progress
    validation.reset()
    validation.increment_ready()
    validation.increment_started()


class ExportWeights(Callback):
    """After training, write the best checkpoint's weights as a file that predicts on its own.

    Args:
        folder: the checkpoints; where nothing was validated and none is best, the last one is taken.
        path: the ``.safetensors`` file.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the checkpoint (the moving average where there is one) and save its network."""
        if not trainer.is_global_zero:
            return
        found, problems = first_intact([self.folder / name for name in (BEST, LAST)])
        for problem in problems:
            log.warning("%s: the exported weights are those of %s", problem, found)
        if found is not None and found.is_dir():
            log.warning("%s is a folder of DeepSpeed's: zero_to_fp32.py in it makes one file of its weights", found)
        elif found is not None:
            export_weights(found, self.path)


def export_weights(checkpoint: Path, path: Path) -> Path:
    """The network of a training checkpoint as ``path`` (``.safetensors``) and its description beside it."""
    found = read_checkpoint(checkpoint)
    if found.card is None:
        raise ValueError(f"{checkpoint} does not say what it holds; it was not written by this package's training")
    if found.card.task == DETECTION:
        detector = load_detector(found)
        return save_detector(detector.model, path, labels=detector.labels, framing=detector.framing, overwrite=True)
    if found.card.task == SEGMENTATION:
        said = load_segmenter(found)
        more = {"labels": said.labels, "palette": said.palette, "viewing": said.viewing}
        return save_segmenter(said.model, path, **more, overwrite=True)
    model = create_model(found.card.config)
    load_checkpoint(model, found)
    return save_checkpoint(model, path, labels=found.card.labels, preprocess=found.card.preprocess, overwrite=True)
