"""Segmenters that start from nothing learn four pictures by heart; what they find then is right, and so is the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internimage import Segmenter
from internimage.data.scenes import Scenes, export_coco
from internimage.data.segmentation.augment import SegmentationAugmentation
from internimage.data.segmentation.sources import SceneMaps
from internimage.data.segmentation.writing import export_scene_maps
from internimage.tasks.segmentation.report import SegmentationReport

Run = Any
SIZE = (64, 64)
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists and is not empty:UserWarning"),
]


# Two objects each, none of them small, thin or mostly hidden.
CHOSEN = (35, 82, 190, 470)
HEADS = {
    "segformer": {"channels": 64, "dropout": 0.0},
    "upernet": {"channels": 32, "auxiliary_channels": 16, "dropout": 0.0},
    "mask2former": {
        "channels": 64,
        "queries": 10,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "heads": 4,
        "encoder_feedforward": 32,
        "decoder_feedforward": 32,
        "points": 256,
    },
}


class Chosen(Scenes):
    """A few scenes of many."""

    def __len__(self) -> int:
        return len(CHOSEN)

    def _compose(self, index: int) -> Any:
        return super()._compose(CHOSEN[index])


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, scenes = tmp_path_factory.mktemp("four"), Chosen("train", 1000, size=SIZE)
    export_coco(root, scenes)
    export_scene_maps(root, SceneMaps(scenes))
    return root


def by_heart(run: Run, head: str, channels: int) -> Run:
    """Trained on all pictures, and measured once on the same ones, as every validation measures."""
    pair = ["images/train", "labels/train"]
    still = SegmentationAugmentation((1.0, 1.0), SIZE, most_of_one_class=1.0, hflip=0, photometric=False)
    run.data = {"files": {"train": pair, "val": pair}, "frame": SIZE, "batch_size": 4, "augmentation": still}
    run.optimizer = {"lr": 1e-2, "warmup_steps": 5, "weight_decay": 0.0}
    blocks = {"channels": channels, "groups": [1, 2, 4, 8], "depths": [1, 1, 1, 1], "drop_path_rate": 0.0}
    run.model = {"head": head, "head_options": HEADS[head], "model_options": blocks}
    return run.fit(check_val_every_n_epoch=run.epochs, gradient_clip_val=5.0)


@pytest.fixture(scope="module")
def learned(four: Path, finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = type(finished)(tmp_path_factory.mktemp("learned") / "run", four, epochs=120)
    return by_heart(run, "segformer", channels=16)


def test_four_pictures_by_heart(learned: Run) -> None:
    assert learned.history.rows[-1]["val/pixel_accuracy"] >= 0.98
    assert learned.history.rows[-1]["val/miou"] >= 0.9


def test_what_it_finds_is_the_truth(learned: Run) -> None:
    """Through the file, from the path of a picture."""
    segmenter = Segmenter(learned.weights, device="cpu")
    source = learned.datamodule.dataset("val").source
    for index in range(4):
        picture, _ = source.pairs[index]
        found, truth = segmenter(picture), source.read(index).labels
        assert found.source == str(picture)
        assert (found.labels == truth).mean() >= 0.97
        names = {learned.task.labels[int(value)] for value in np.unique(truth)}
        assert names <= set(found.shares())


@pytest.mark.parametrize("head", ["upernet", "mask2former"])
def test_the_other_heads_learn_too(head: str, run: Run, four: Path) -> None:
    run.root, run.epochs = four, 40
    by_heart(run, head, channels=8)
    first, last = run.history.rows[0], run.history.rows[-1]
    assert last["train/loss"] < 0.35 * first["train/loss"]
    assert last["val/miou"] > 0.3


def test_the_page_says_what_was_measured(learned: Run) -> None:
    folder = learned.folder
    page = SegmentationReport(folder)(learned.trainer, learned.task, learned.history).read_text(encoding="utf-8")
    row = learned.history.rows[-1]
    for value, words in (
        (row["val/miou"], "Validation mean IoU"),
        (row["val/pixel_accuracy"], "Validation pixels right"),
    ):
        assert re.search(rf"{words}.{{0,80}}?{100 * value:.1f}%|{100 * value:.1f}%.{{0,80}}?{words}", page, re.DOTALL)
    for name in ("curves", "predictions", "classes", "confusion_matrix"):
        assert (folder / f"{name}.png").is_file()
    assert all(
        name in page for name in learned.task.labels if learned.task.confusion[learned.task.labels.index(name)].sum()
    )
