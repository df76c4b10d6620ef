"""A tiny task on a tiny folder, trained in a second, with everything that a run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer, seed_everything

from internimage.data import export_samples
from internimage.data.augment import Augmentation
from internimage.structures import Preprocess
from internimage.tasks import ClassificationData, ClassificationTask, OptimizerSettings
from internimage.tasks.callbacks import History
from internimage.tasks.checkpoints import BEST, LAST, BestState, ExportWeights, LastState, MovingAverage

GREY = Preprocess(size=14, mean=(0.286,), std=(0.354,))
TINY = {"depths": [1, 1, 1, 1], "channels": 8, "groups": [1, 2, 4, 8], "stem_strides": [1, 1]}


@dataclass
class Run:
    """One way to train; `fit` may be called again to resume."""

    folder: Path
    root: Path
    epochs: int = 2
    ema: float | None = None
    monitor: str = "val/accuracy"
    callbacks: Sequence[Callback] = ()
    optimizer: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(init=False)
    task: ClassificationTask = field(init=False)
    datamodule: ClassificationData = field(init=False)
    history: History = field(init=False)

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / BEST

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / LAST

    def build(self, **trainer: Any) -> Run:
        seed_everything(0, workers=True, verbose=False)
        settings = {"preprocess": GREY, "augmentation": Augmentation.none(), "batch_size": 10, "num_workers": 0}
        self.datamodule = ClassificationData(str(self.root), **settings | self.data)
        rates = {"lr": 2e-3, "warmup_epochs": 0.5, "lr_batch_size": None, **self.optimizer}
        self.task = ClassificationTask(
            self.datamodule.labels,
            self.datamodule.preprocess,
            model="internimage_femto",
            model_options=TINY | self.options,
            optimizer=OptimizerSettings(**rates),
        )
        self.history = History(self.folder / "metrics.csv")
        average = [] if self.ema is None else [MovingAverage(self.ema)]
        own: list[Callback] = [
            *average,
            self.history,
            BestState(self.best, monitor=self.monitor),
            LastState(self.last),
        ]
        own += [ExportWeights(self.folder / "checkpoints", self.folder / "model.safetensors")]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(
            **{
                "accelerator": "cpu",
                "max_epochs": self.epochs,
                "callbacks": [*own, *self.callbacks],
                **quiet,
                **trainer,
            }
        )
        return self

    def fit(self, *, resume: bool = False, **trainer: Any) -> Run:
        self.build(**trainer)
        ckpt = str(self.last) if resume else None
        self.trainer.fit(self.task, datamodule=self.datamodule, ckpt_path=ckpt, weights_only=True)
        return self


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures of ten classes: 60 to train on, 30 to validate."""
    root = tmp_path_factory.mktemp("clothes")
    export_samples(root / "train", "train", 60)
    export_samples(root / "val", "test", 30)
    return root


@pytest.fixture
def run(images: Path, tmp_path: Path) -> Run:
    """A run in an empty folder; set what differs before `fit`."""
    return Run(tmp_path / "run", images)


@pytest.fixture(scope="session")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three epochs with a moving average and layer decay, for many tests to look at."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return Run(folder, images, epochs=3, ema=0.5, optimizer={"layer_decay": 0.8, "offset_lr_scale": 0.1}).fit()
