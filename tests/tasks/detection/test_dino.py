"""DINO trains as every other family: on one backbone or two, from a classifier or from a detector of other classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from internimage import Detector, InternImageConfig, create_model, save_checkpoint

from .conftest import TINY

pytest.importorskip("transformers")
pytest.importorskip("scipy")
Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
OPTIONS: dict[str, Any] = {
    "queries": 20,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "channels": 32,
    "hidden_channels": 32,
    "heads": 2,
    "denoising_queries": 10,
    "detections": 30,
}
DINO: dict[str, Any] = {"family": "dino", "model_options": TINY, "detector_options": OPTIONS}


def test_a_composite_from_a_classifier_and_then_for_other_classes(run: Run, tmp_path: Path) -> None:
    classifier = create_model(InternImageConfig.from_variant("femto", num_classes=7, **TINY))
    path = save_checkpoint(classifier, tmp_path / "seven.safetensors")
    run.data = {"masks": False}
    run.model = DINO | {"pretrained": str(path), "detector_options": OPTIONS | {"composite": True}}
    mine, theirs = run.build().task.network.state_dict(), load_file(path)
    for part in ("assisting", "lead"):
        own = {key: each for key, each in mine.items() if key.startswith(f"backbone.{part}.stages")}
        pairs = [
            (each, theirs[key.replace(f".{part}", "", 1)]) for key, each in own.items() if "layer_scale" not in key
        ]
        assert pairs
        assert all(torch.equal(one, other) for one, other in pairs)
    run.fit(max_epochs=1)
    assert {"train/loss", "val/map"} <= run.history.rows[-1].keys()
    detector = Detector(run.weights, device="cpu")
    assert detector.labels == run.datamodule.labels
    assert detector.model.config.composite
    # Its weights begin another detector; with the same classes nothing is left behind.
    run.model = DINO | {"pretrained": str(run.weights), "detector_options": OPTIONS | {"composite": True}}
    again = run.build().task.network.state_dict()
    assert all(torch.equal(again[key], each) for key, each in detector.model.state_dict().items())


def test_a_federated_loss_knows_how_common_classes_are(run: Run) -> None:
    """Pictures of the training set that show each class, counted by hand; no file holds them."""
    run.data, run.model = {"masks": False}, DINO | {"detector_options": OPTIONS | {"federated_classes": 4}}
    run.fit(max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    source = run.datamodule.dataset("train").source
    shown = [set(source.read(index).labels.tolist()) for index in range(len(source))]
    counts = [sum(label in each for each in shown) for label in range(len(run.datamodule.labels))]
    assert len(set(counts)) > 1
    assert run.task.network.federated.frequencies.tolist() == counts
    assert not any("federated" in key for key in load_file(run.weights))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detector_options": {"fpn_channels": 16}}, r"unknown detector_options \['fpn_channels'\]; known are"),
        ({"detector_options": {"queries": 0}}, "queries must be at least 1"),
    ],
)
def test_wrong_options(run: Run, settings: dict[str, Any], message: str) -> None:
    run.data, run.model = {"masks": False}, DINO | settings
    with pytest.raises(ValueError, match=message):
        run.build()


def test_masks_are_refused(run: Run) -> None:
    run.model = DINO
    with pytest.raises(ValueError, match="dino finds boxes alone; set masks to false"):
        run.build()
