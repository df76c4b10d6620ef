"""What every training task shares: the optimizer, the schedule, and a checkpoint that says what it is."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from internimage.model import Card
from internimage.model.checkpoints.files import CARD_KEY
from internimage.tasks.resuming import check_same, regroup
from internimage.training import WarmupCosine, WarmupPower, WarmupSteps, first_stages, freeze, param_groups

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a linear warm-up and a cosine, falls or a power; the defaults are the released recipe for ImageNet-1K.

    Args:
        lr: peak learning rate at ``lr_batch_size`` images a step.
        weight_decay: of matrices and convolutions; biases and norms have none.
        betas: AdamW's.
        eps: AdamW's.
        layer_decay: factor per block towards the stem, in (0, 1]; 1 switches it off. In a detector all that is no
            backbone learns at the full rate, and the last block one factor slower, as in the released recipes.
        offset_lr_scale: further factor for the layers of DCNv3 and DCNv4 that predict sampling offsets.
        lr_scales: further factors by parts of names, such as ``backbone`` or ``sampling_offsets`` (those of deformable
            attention).
        warmup_epochs: may be a fraction.
        warmup_lr: learning rate of the first step.
        min_lr: learning rate at the end.
        lr_batch_size: the three rates are meant for this many images a step and scale with the real number;
            None takes them as they are.
        lr_falls: epochs after which the rate falls to a tenth, such as 8, 11, in place of the cosine; ``min_lr`` then
            has no part.
        warmup_steps: optimizer steps of warm-up in place of ``warmup_epochs``.
        lr_power: the rate falls to ``min_lr`` with this power of the share of steps that is left, in place of the
            cosine; 1 is a straight line.
        frozen_stages: how many stages of the backbone keep their weights, 1 to 4, after the stem, which is the first
            to do so (0); None lets everything learn. Frozen parts drop nothing, either.
    """

    lr: float = 5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    layer_decay: float = 1.0
    offset_lr_scale: float = 1.0
    lr_scales: dict[str, float] = field(default_factory=dict[str, float])
    warmup_epochs: float = 20.0
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    lr_batch_size: int | None = 512
    lr_falls: tuple[int, ...] = ()
    warmup_steps: int | None = None
    lr_power: float | None = None
    frozen_stages: int | None = None

    def __post_init__(self) -> None:
        if list(self.lr_falls) != sorted(set(self.lr_falls)) or min(self.lr_falls, default=1) < 1:
            raise ValueError(
                f"optimizer.lr_falls must be rising epochs from 1 on, such as [8, 11]; got {self.lr_falls}"
            )
        if self.lr_power is not None and (self.lr_power <= 0 or self.lr_falls):
            raise ValueError(f"optimizer.lr_power must be positive, without lr_falls; got {self.lr_power}")


class BaseTask(LightningModule):
    """A network in training. Subclasses set ``network`` and say with ``card`` what a weight file of it needs.

    Args:
        optimizer: see `OptimizerSettings`.
        depths: blocks per stage of the backbone, for layer decay.
    """

    # A subclass names its own class; a mutable attribute of nn.Module would forbid that.
    network: Any
    # What says which epoch was best, and whose rule of layer decay holds.
    monitor: ClassVar[str] = "val/accuracy"
    is_dense: ClassVar[bool] = False

    def __init__(self, optimizer: OptimizerSettings, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.optimizer_settings = optimizer
        self.depths = depths

    def card(self) -> Card:
        """Architecture, labels and preprocessing: what the weights alone don't say."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Before gradients are shared and parameters grouped: freeze what is not to learn."""
        if stage == "fit":
            self.freeze_stages()

    def freeze_stages(self) -> None:
        """Let the frozen stages learn nothing."""
        freeze(self._frozen())

    def train(self, mode: bool = True) -> BaseTask:
        """Frozen parts stay as in evaluation."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        count = self.optimizer_settings.frozen_stages
        return [] if count is None else first_stages(self.network, count)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make every training checkpoint a file that can predict."""
        checkpoint[CARD_KEY] = self.card().to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a state of other classes or another network, in words; a training goes on with these settings."""
        if CARD_KEY in checkpoint:
            check_same(Card.from_dict(checkpoint[CARD_KEY]), self.card(), str(self.trainer.ckpt_path))
        if self.trainer.state.fn != "fit":
            return
        averages = any(isinstance(callback, WeightAveraging) for callback in cast(Any, self.trainer).callbacks)
        if "current_model_state" in checkpoint and not averages:
            # The optimizer's moments are those of the raw weights.
            checkpoint["state_dict"] = checkpoint.pop("current_model_state")
            if self.trainer.is_global_zero:
                log.info("the moving average is switched off: training goes on from the raw weights")
        s = self.optimizer_settings
        for saved in checkpoint.get("optimizer_states", ()):
            regroup(saved, self.groups(1.0), {"betas": s.betas, "eps": s.eps})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over `param_groups`, a step-wise `WarmupCosine`."""
        s = self.optimizer_settings
        scale = self.rate_scale(self.trainer, getattr(self.trainer, "datamodule", None))
        # On a CPU PyTorch doesn't choose its fused step by itself; a small network's step takes a third of the time so.
        fused = True if self.device.type == "cpu" else None
        optimizer = torch.optim.AdamW(self.groups(scale), lr=s.lr * scale, betas=s.betas, eps=s.eps, fused=fused)
        if fused:
            # Lightning takes it that a fused step divides by the loss's scale, and then clips nothing. In bf16, the
            # one mixed precision of a CPU, nothing is scaled.
            cast(Any, optimizer)._step_supports_amp_scaling = False
        schedule = self._schedule(scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule.attach(optimizer), "interval": "step"}}

    def _schedule(self, scale: float) -> WarmupCosine | WarmupPower | WarmupSteps:
        s = self.optimizer_settings
        steps, warmup = self._steps()
        share = min(s.warmup_lr / s.lr, 1.0) if s.lr else 0.0
        if s.lr_power is not None:
            return WarmupPower(steps, s.lr_power, s.min_lr * scale, warmup, share)
        if not s.lr_falls:
            return WarmupCosine(steps, warmup, s.warmup_lr * scale, s.min_lr * scale)
        per_epoch = self._steps_per_epoch()
        if isinstance(per_epoch, float):
            raise ValueError("optimizer.lr_falls counts epochs, but the data has no end; take the cosine instead")
        falls = tuple(epoch * per_epoch for epoch in s.lr_falls)
        return WarmupSteps(falls, warmup_steps=warmup, warmup_share=share)

    def groups(self, scale: float) -> list[dict[str, Any]]:
        """What learns how fast at the peak, as `param_groups`, at rates times ``scale``."""
        s = self.optimizer_settings
        return param_groups(
            self.network,
            lr=s.lr * scale,
            weight_decay=s.weight_decay,
            depths=self.depths,
            layer_decay=s.layer_decay,
            offset_lr_scale=s.offset_lr_scale,
            lr_scales=s.lr_scales,
            dense=self.is_dense,
        )

    def check_schedule(self, trainer: Trainer) -> None:
        """Raise ``ValueError`` if the warm-up is as long as the training, before anything is written.

        Where steps end the training, `configure_optimizers` notices, for it knows how many an epoch has.
        """
        warmup, epochs = self.optimizer_settings.warmup_epochs, trainer.max_epochs
        if self.optimizer_settings.warmup_steps is not None:
            return
        if epochs is not None and 0 <= epochs <= warmup and not getattr(trainer, "fast_dev_run", False):
            raise ValueError(
                f"optimizer.warmup_epochs must be less than the training's {epochs} epochs, got {warmup:g}"
            )

    def _steps(self) -> tuple[int, int]:
        """Optimizer steps of the whole training and of its warm-up."""
        trainer, epochs = self.trainer, self.optimizer_settings.warmup_epochs
        trainer.fit_loop.setup_data()
        total = trainer.estimated_stepping_batches
        if math.isinf(total):
            raise ValueError("the training would never end; set trainer.max_epochs or trainer.max_steps")
        per_epoch = self._steps_per_epoch()
        # A trial of a few steps has no room for a warm-up.
        if getattr(trainer, "fast_dev_run", False):
            return int(total), 0
        if (warmup := self.optimizer_settings.warmup_steps) is not None:
            # A short training of a recipe for a long one has less room for it.
            room = int(total) // 2
            if warmup > room and trainer.is_global_zero:
                log.warning("the warm-up of %d steps is cut to %d, half of the training", warmup, room)
            return int(total), min(warmup, room)
        if not 0 <= epochs * per_epoch < total:
            all_epochs = f"{total / per_epoch:g}" if per_epoch else "no"
            raise ValueError(
                f"optimizer.warmup_epochs must be less than the training's {all_epochs} epochs, got {epochs:g}"
            )
        return int(total), int(epochs * per_epoch)

    def _steps_per_epoch(self) -> int | float:
        batches = self.trainer.num_training_batches
        # An epoch's last step takes the batches that are left.
        return batches if math.isinf(batches) else math.ceil(batches / self.trainer.accumulate_grad_batches)

    def rate_scale(self, trainer: Trainer, data: Any) -> float:
        """What the rates are multiplied by: the images of a step over the number that the rates are meant for."""
        meant = self.optimizer_settings.lr_batch_size
        if meant is None:
            return 1.0
        batch_size = int(getattr(data, "batch_size", 0))
        if not batch_size:
            raise ValueError("lr_batch_size needs data with a batch_size; set optimizer.lr_batch_size to null")
        return batch_size * trainer.world_size * trainer.accumulate_grad_batches / meant
