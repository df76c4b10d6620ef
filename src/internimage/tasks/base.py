"""What every training task shares: the optimizer, the schedule, and a checkpoint that says what it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from internimage.model import Card
from internimage.model.checkpoints.files import CARD_KEY
from internimage.model.variants import describe_variant
from internimage.structures import LabelMap
from internimage.training import WarmupCosine, param_groups

log = logging.getLogger(__name__)
# What may differ between the parts of one training: none of it changes a weight's meaning.
_FREE = {"num_classes", "drop_rate", "drop_path_rate", "drop_path_schedule", "gradient_checkpointing"}


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a linear warm-up and a cosine; the defaults are the released recipe for ImageNet-1K from scratch.

    Args:
        lr: peak learning rate at ``lr_batch_size`` images a step.
        weight_decay: of matrices and convolutions; biases and norms have none.
        betas: AdamW's.
        eps: AdamW's.
        layer_decay: factor per block towards the stem, in (0, 1]; 1 switches it off.
        offset_lr_scale: further factor for the layers that predict sampling offsets.
        warmup_epochs: may be a fraction.
        warmup_lr: learning rate of the first step.
        min_lr: learning rate at the end.
        lr_batch_size: the three rates are meant for this many images a step and scale with the real number;
            None takes them as they are.
    """

    lr: float = 5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    layer_decay: float = 1.0
    offset_lr_scale: float = 1.0
    warmup_epochs: float = 20.0
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    lr_batch_size: int | None = 512


class BaseTask(LightningModule):
    """A network in training. Subclasses set ``network`` and say with ``card`` what a weight file of it needs.

    Args:
        optimizer: see `OptimizerSettings`.
        depths: blocks per stage of the backbone, for layer decay.
    """

    # A subclass names its own class; a mutable attribute of nn.Module would forbid that.
    network: Any

    def __init__(self, optimizer: OptimizerSettings, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.optimizer_settings = optimizer
        self.depths = depths

    def card(self) -> Card:
        """Architecture, labels and preprocessing: what the weights alone don't say."""
        raise NotImplementedError

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
            regroup(saved, self._groups(1.0), {"betas": s.betas, "eps": s.eps})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over `param_groups`, a step-wise `WarmupCosine`."""
        s = self.optimizer_settings
        scale = 1.0 if s.lr_batch_size is None else self._images_per_step() / s.lr_batch_size
        # On a CPU PyTorch doesn't choose its fused step by itself; a small network's step takes a third of the time so.
        fused = True if self.device.type == "cpu" else None
        optimizer = torch.optim.AdamW(self._groups(scale), lr=s.lr * scale, betas=s.betas, eps=s.eps, fused=fused)
        steps, warmup = self._steps()
        schedule = WarmupCosine(steps, warmup, s.warmup_lr * scale, s.min_lr * scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule.attach(optimizer), "interval": "step"}}

    def _groups(self, scale: float) -> list[dict[str, Any]]:
        s = self.optimizer_settings
        return param_groups(
            self.network,
            lr=s.lr * scale,
            weight_decay=s.weight_decay,
            depths=self.depths,
            layer_decay=s.layer_decay,
            offset_lr_scale=s.offset_lr_scale,
        )

    def check_schedule(self, trainer: Trainer) -> None:
        """Raise ``ValueError`` if the warm-up is as long as the training, before anything is written.

        Where steps end the training, `configure_optimizers` notices, for it knows how many an epoch has.
        """
        warmup, epochs = self.optimizer_settings.warmup_epochs, trainer.max_epochs
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
        batches, accumulate = trainer.num_training_batches, trainer.accumulate_grad_batches
        # An epoch's last step takes the batches that are left.
        per_epoch = batches if math.isinf(batches) else math.ceil(batches / accumulate)
        # A trial of a few steps has no room for a warm-up.
        if getattr(trainer, "fast_dev_run", False):
            return int(total), 0
        if not 0 <= epochs * per_epoch < total:
            all_epochs = f"{total / per_epoch:g}" if per_epoch else "no"
            raise ValueError(
                f"optimizer.warmup_epochs must be less than the training's {all_epochs} epochs, got {epochs:g}"
            )
        return int(total), int(epochs * per_epoch)

    def _images_per_step(self) -> int:
        batch_size = int(getattr(getattr(self.trainer, "datamodule", None), "batch_size", 0))
        if not batch_size:
            raise ValueError("lr_batch_size needs data with a batch_size; set optimizer.lr_batch_size to null")
        return batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches


def regroup(saved: dict[str, Any], groups: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Change an AdamW's saved state so that it fits other groups and settings; every parameter keeps its moments.

    Args:
        saved: with ``state`` and ``param_groups``, whose ``names`` say which parameter has which number.
        groups: as `param_groups` makes them now. A state of other parameters stays as it is.
        settings: what all groups have in common now.
    """
    numbers = {
        name: (number, group)
        for group in saved["param_groups"]
        for name, number in zip(group.get("names", ()), group["params"], strict=False)
    }
    names = [name for group in groups for name in group["names"]]
    if set(names) != set(numbers):
        return
    state, regrouped, count = saved["state"], list[dict[str, Any]](), 0
    for group in groups:
        places = range(count, count := count + len(group["names"]))
        now = {"names": group["names"], "weight_decay": group["weight_decay"], "params": list(places)}
        # The rates are the old ones, until the schedule's state is loaded.
        regrouped.append({**numbers[group["names"][0]][1], **settings, **now})
    old = [numbers[name][0] for name in names]
    saved["state"] = {place: state[number] for place, number in enumerate(old) if number in state}
    saved["param_groups"] = regrouped


def check_same(theirs: Card, mine: Card, path: str) -> None:
    """Raise ``ValueError`` in words if a checkpoint's weights mean something else in this task's network.

    Args:
        theirs: of the checkpoint.
        mine: of the task.
        path: the checkpoint.
    """
    if theirs.labels != mine.labels:
        wanted, given = classes_in_words(theirs.labels), classes_in_words(mine.labels)
        raise ValueError(
            f"{path} was trained for {wanted}, but the data has {given}; "
            "give the data it was trained on, or train another run"
        )
    for name in ("channels", "depths", "groups"):
        if getattr(theirs.config, name) != getattr(mine.config, name):
            raise ValueError(
                f"{path} holds {describe_variant(theirs.config)}, but the run's settings say "
                f"{describe_variant(mine.config)}; set model.init_args.model as it was"
            )
    names = [field.name for field in fields(theirs.config) if field.name not in _FREE]
    differing = [name for name in names if getattr(theirs.config, name) != getattr(mine.config, name)]
    if differing:
        pairs = [f"{name}={getattr(theirs.config, name)!r}, not {getattr(mine.config, name)!r}" for name in differing]
        raise ValueError(f"{path} was trained with {'; '.join(pairs)}; set model.init_args.model_options as they were")


def classes_in_words(labels: LabelMap | None) -> str:
    """How many classes, and the first of their names."""
    if labels is None:
        return "no named classes"
    names = ", ".join(labels.names[:5]) + (", ..." if len(labels) > 5 else "")
    return f"{len(labels)} classes ({names})"
