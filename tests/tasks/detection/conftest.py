"""A tiny detector on tiny scenes, trained in seconds, with everything that a run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from internimage.data.detection.augment import DetectionAugmentation
from internimage.data.scenes import Scenes, export_coco
from internimage.tasks import OptimizerSettings
from internimage.tasks.callbacks import History
from internimage.tasks.checkpoints import BEST, LAST, BestState, ExportWeights, LastState, MovingAverage
from internimage.tasks.detection import DetectionData, DetectionTask

SIZE = (64, 96)
TINY = {"channels": 8, "groups": [1, 2, 4, 8], "depths": [1, 1, 1, 1]}
SMALL = {
    "fpn_channels": 16,
    "head_channels": 32,
    "finest_scale": 14,
    "proposals_per_level": 30,
    "proposals": 30,
    "samples": 16,
    "detections": 20,
}


class StillData(DetectionData):
    """The same batches in the same order in every epoch, so that two trainings can be compared number by number."""

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.dataset("train"), drop_last=True)


class SameChances(Callback):
    """The random numbers of a step (which boxes are sampled) do not depend on what came before it.

    Lightning fetches an epoch's first batch before or after the epoch's start, and fetching takes random numbers.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(1000 * self.seed + trainer.global_step)


@dataclass
class Run:
    """One way to train; `fit` may be called again to resume."""

    folder: Path
    root: Path
    epochs: int = 2
    ema: float | None = None
    seed: int = 0
    callbacks: Sequence[Callback] = ()
    optimizer: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(init=False)
    task: DetectionTask = field(init=False)
    datamodule: DetectionData = field(init=False)
    history: History = field(init=False)

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / BEST

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / LAST

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    def build(self, **trainer: Any) -> Run:
        seed_everything(self.seed, workers=True, verbose=False)
        settings = {"frame": SIZE, "augmentation": DetectionAugmentation(hflip=0), "batch_size": 2, "num_workers": 0}
        self.datamodule = StillData(str(self.root), **settings | self.data)
        rates = {"lr": 2e-3, "warmup_steps": 1, "lr_batch_size": None, **self.optimizer}
        made = {"model": "internimage_femto", "model_options": TINY, "detector_options": SMALL} | self.model
        self.task = DetectionTask(
            self.datamodule.labels,
            self.datamodule.preprocess,
            masks=self.datamodule.masks,
            optimizer=OptimizerSettings(**rates),
            **made,
        )
        self.history = History(self.folder / "metrics.csv")
        average = [] if self.ema is None else [MovingAverage(self.ema)]
        own: list[Callback] = [SameChances(self.seed), *average, self.history]
        own += [BestState(self.best, monitor=self.task.monitor), LastState(self.last)]
        own += [ExportWeights(self.folder / "checkpoints", self.weights)]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        settings = {"accelerator": "cpu", "max_epochs": self.epochs, "callbacks": [*own, *self.callbacks], **quiet}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(**settings | trainer)
        return self

    def fit(self, *, resume: bool = False, **trainer: Any) -> Run:
        self.build(**trainer)
        ckpt = str(self.last) if resume else None
        self.trainer.fit(self.task, datamodule=self.datamodule, ckpt_path=ckpt, weights_only=True)
        return self


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with boxes and masks: six to train on, five to validate."""
    root = tmp_path_factory.mktemp("scenes")
    export_coco(root, Scenes("train", 6, size=SIZE), Scenes("val", 5, size=SIZE))
    return root


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Run:
    """A run in an empty folder; set what differs before `fit`."""
    return Run(tmp_path / "run", scenes)


@pytest.fixture(scope="session")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs with a moving average and layer decay, for many tests to look at."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return Run(folder, scenes, ema=0.5, optimizer={"layer_decay": 0.8, "offset_lr_scale": 0.1}).fit()
