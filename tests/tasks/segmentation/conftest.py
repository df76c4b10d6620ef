"""A tiny segmenter on tiny scenes, trained in seconds, with everything that a run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader

from internimage.data.scenes import Scenes, export_coco
from internimage.data.segmentation.augment import SegmentationAugmentation
from internimage.data.segmentation.sources import SceneMaps
from internimage.data.segmentation.writing import export_scene_maps
from internimage.tasks import OptimizerSettings
from internimage.tasks.callbacks import History, MeasuredEnd
from internimage.tasks.checkpoints import BEST, LAST, BestState, ExportWeights, LastState, MovingAverage
from internimage.tasks.segmentation import SegmentationData, SegmentationTask

SIZE = (64, 96)
TINY = {"channels": 8, "groups": [1, 2, 4, 8], "depths": [1, 1, 1, 1]}
STILL = SegmentationAugmentation((1.0, 1.0), SIZE, most_of_one_class=1.0, hflip=0, photometric=False)


class StillData(SegmentationData):
    """The same batches in the same order in every epoch, so that two trainings can be compared number by number."""

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.dataset("train"), drop_last=True)


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
    task: SegmentationTask = field(init=False)
    datamodule: SegmentationData = field(init=False)
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
        settings = {"frame": SIZE, "augmentation": STILL, "batch_size": 2, "num_workers": 0}
        self.datamodule = StillData(str(self.root), **settings | self.data)
        rates = {"lr": 2e-3, "warmup_steps": 1, "lr_batch_size": None, "lr_power": 1.0, **self.optimizer}
        head = {"head": "segformer", "head_options": {"channels": 16, "dropout": 0.0}}
        made = {"model": "internimage_femto", "model_options": TINY} | head | self.model
        self.task = SegmentationTask(
            self.datamodule.labels,
            self.datamodule.preprocess,
            self.datamodule.palette,
            optimizer=OptimizerSettings(**rates),
            **made,
        )
        self.history = History(self.folder / "metrics.csv")
        average = [] if self.ema is None else [MovingAverage(self.ema)]
        own: list[Callback] = [*average, self.history, MeasuredEnd()]
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
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with label maps: six to train on, five to validate."""
    root, scenes = tmp_path_factory.mktemp("maps"), (Scenes("train", 6, size=SIZE), Scenes("val", 5, size=SIZE))
    export_coco(root, *scenes)
    export_scene_maps(root, *map(SceneMaps, scenes))
    return root


@pytest.fixture
def run(maps: Path, tmp_path: Path) -> Run:
    """A run in an empty folder; set what differs before `fit`."""
    return Run(tmp_path / "run", maps)


@pytest.fixture(scope="session")
def finished(maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs with a moving average and layer decay, for many tests to look at."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return Run(folder, maps, ema=0.5, optimizer={"layer_decay": 0.8, "offset_lr_scale": 0.1}).fit()
