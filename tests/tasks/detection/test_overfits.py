"""A detector that starts from nothing learns eight pictures by heart: their boxes, their masks and their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from internimage.data.detection.dataset import Raw
from internimage.data.scenes import Scenes, export_coco

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
# Two objects each, none of them small, thin or mostly hidden: of pullovers, T-shirts, bags and boots.
CHOSEN = (35, 82, 190, 470, 615, 655, 891, 925)


class Chosen(Scenes):
    """A few scenes of many."""

    def __len__(self) -> int:
        return len(CHOSEN)

    def read(self, index: int) -> Raw:
        return super().read(CHOSEN[index])


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eight")
    export_coco(root, Chosen("train", 1000, size=(64, 64)))
    return root


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_eight_pictures_by_heart(run: Run, eight: Path, seed: int) -> None:
    """Measured on the same pictures, through the evaluation that every validation goes through."""
    pair = ["annotations/train.json", "images/train"]
    run.root, run.epochs, run.seed = eight, 60, seed
    run.data = {"files": {"train": pair, "val": pair}, "frame": (64, 64)}
    run.optimizer = {"lr": 3e-3, "warmup_steps": 10, "min_lr": 1e-5, "weight_decay": 0.0}
    run.model = {
        "detector_options": {
            "fpn_channels": 32,
            "head_channels": 64,
            "finest_scale": 14,
            "samples": 24,
            "proposals_per_level": 300,
            "proposals": 24,
        }
    }
    run.fit(check_val_every_n_epoch=run.epochs, gradient_clip_val=5.0)
    measured = run.history.rows[-1]
    assert measured["train/loss"] < 0.5 * run.history.rows[0]["train/loss"]
    assert measured["val/map50"] >= 0.95
    assert measured["val/mask_map50"] >= 0.9
