"""Files of detectors: ours and a training's; and what is no detector's file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from internimage import Classifier, InternImageConfig, LabelMap, create_model, save_checkpoint
from internimage.inference import load_classifier
from internimage.model import read_checkpoint
from internimage.model.checkpoints.detector_files import (
    build_detector,
    detector_card,
    holds_detector,
    load_detector,
    save_detector,
)
from internimage.model.checkpoints.files import CARD_KEY
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.structures import Framing
from support.mmdetection import CONFIG, text_of, write_pth

LABELS, FRAMING = LabelMap(("ant", "bee", "cow")), Framing((96, 160), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
CONFIGURED = DetectorConfig(
    InternImageConfig.from_variant("femto", num_classes=0),
    num_classes=3,
    fpn_channels=16,
    head_channels=32,
    finest_scale=28,
    proposals=50,
    score_threshold=0.1,
)


@pytest.fixture(scope="module")
def detector() -> InternImageDetector:
    torch.manual_seed(0)
    return InternImageDetector(CONFIGURED)


@pytest.fixture(scope="module")
def file(detector: InternImageDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "insects.safetensors"
    return save_detector(detector, path, labels=LABELS, framing=FRAMING)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


class TestOurs:
    def test_all_comes_back(self, detector: InternImageDetector, file: Path) -> None:
        loaded = load_detector(file)
        assert same(loaded.model.state_dict(), detector.state_dict())
        assert loaded.model.config == CONFIGURED
        assert (loaded.labels, loaded.framing, loaded.path) == (LABELS, FRAMING, file)
        assert not any(module.training for module in loaded.model.modules())

    def test_a_cascade(self, tmp_path: Path) -> None:
        """Also what is no parameter: the statistics of its batch normalisation."""
        cascade = InternImageDetector(replace(CONFIGURED, stages=3, head_convs=2, head_layers=1, masks=False))
        cascade.roi_heads.box_heads[1].convs[0].norm.running_mean.fill_(3.0)
        loaded = load_detector(save_detector(cascade, tmp_path / "cascade.safetensors"))
        assert same(loaded.model.state_dict(), cascade.state_dict())
        assert (loaded.model.config, loaded.labels, loaded.framing) == (cascade.config, None, Framing())

    def test_the_description_lies_beside_it(self, file: Path) -> None:
        values = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert (values["task"], values["labels"]) == ("detection", ["ant", "bee", "cow"])
        assert values["settings"]["framing"] == {"frame": [96, 160], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
        assert (values["settings"]["kind"], values["settings"]["proposals"]) == ("rcnn", 50)
        with safe_open(file, "pt") as weights:
            assert json.loads(weights.metadata()[CARD_KEY]) == values

    def test_the_file_alone_is_enough(self, file: Path, tmp_path: Path) -> None:
        alone = tmp_path / "renamed.safetensors"
        alone.write_bytes(file.read_bytes())
        assert (load_detector(alone).labels, load_detector(str(tmp_path)).framing) == (LABELS, FRAMING)

    def test_others_may_read_it_as_the_users_umask_says(self, detector: InternImageDetector, tmp_path: Path) -> None:
        before = os.umask(0o022)
        try:
            path = save_detector(detector, tmp_path / "new folder" / "x.safetensors")
        finally:
            os.umask(before)
        assert {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {
            "x.safetensors": 0o644,
            "x.json": 0o644,
        }

    @pytest.mark.parametrize("name", ["x.safetensors", "x.json"])
    def test_nothing_is_overwritten_unasked(self, detector: InternImageDetector, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match=rf"{name} exists; choose another name or pass overwrite=True"):
            save_detector(detector, tmp_path / "x.safetensors")
        assert [each.name for each in tmp_path.iterdir()] == [name]
        assert load_detector(save_detector(detector, tmp_path / "x.safetensors", overwrite=True)).labels is None

    def test_what_makes_no_file(self, detector: InternImageDetector, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="2 class names for a detector of 3 classes"):
            save_detector(detector, tmp_path / "x.safetensors", labels=LabelMap(("ant", "bee")))
        with pytest.raises(ValueError, match=r"saved as \.safetensors, got .*x\.pth"):
            save_detector(detector, tmp_path / "x.pth")
        assert not list(tmp_path.iterdir())


@pytest.fixture
def checkpoint(detector: InternImageDetector, tmp_path: Path) -> Path:
    """As a training with a moving average writes it, with a weight of the training's own."""
    average = {f"network.{key}": tensor for key, tensor in detector.state_dict().items()}
    current = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in average.items()}
    contents = {
        "state_dict": average | {"loss.weight": torch.ones(3)},
        "current_model_state": current,
        CARD_KEY: detector_card(CONFIGURED, LABELS, FRAMING).to_dict(),
    }
    torch.save(contents, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_a_training_checkpoint(detector: InternImageDetector, checkpoint: Path) -> None:
    for ema in (None, True):
        loaded = load_detector(checkpoint, ema=ema)
        assert same(loaded.model.state_dict(), detector.state_dict())
        assert (loaded.labels, loaded.framing) == (LABELS, FRAMING)
    raw = load_detector(checkpoint, ema=False).model.state_dict()
    assert all(torch.equal(raw[key], tensor + 1) for key, tensor in detector.state_dict().items() if tensor.ndim)
    found = read_checkpoint(checkpoint, ema=False)
    assert same(load_detector(found).model.state_dict(), raw)
    with pytest.raises(ValueError, match="ema is chosen when the file is read"):
        load_detector(found, ema=True)


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("rpn.head.cls_logits.bias"), r"it lacks rpn\.head\.cls_logits\.bias$"),
            (lambda state: state.update(extra=torch.ones(2)), r"it also has extra$"),
            (
                lambda state: state.update({"rpn.head.cls_logits.bias": torch.ones(7)}),
                r"it has in another shape rpn\.head\.cls",
            ),
            (lambda state: [state.pop(k) for k in list(state) if "mask" in k], r"it lacks .* and \d\d more$"),
        ],
    )
    def test_tensors_are_named(self, file: Path, tmp_path: Path, change: Callable[..., Any], message: str) -> None:
        state, path = load_file(file), tmp_path / "x.safetensors"
        change(state)
        with safe_open(file, "pt") as weights:
            save_file(state, path, metadata=weights.metadata())
        with pytest.raises(ValueError, match=rf"x\.safetensors does not fit the detector it describes: {message}"):
            load_detector(path)

    def test_limits_that_it_does_not_have(self, file: Path) -> None:
        assert load_detector(file, limits={"score_threshold": 0.7, "detections": 5}).model.config == replace(
            CONFIGURED, score_threshold=0.7, detections=5
        )
        with pytest.raises(ValueError, match=r"insects\.safetensors holds a detector without num_queries; leave that"):
            load_detector(file, limits={"num_queries": 0.7})

    def test_a_description_that_lies(self, file: Path, tmp_path: Path) -> None:
        card = detector_card(CONFIGURED, LABELS, FRAMING)
        for changes, message in (
            ({"labels": LabelMap(("ant",))}, r"x\.safetensors names 1 classes, but its network has 3 of them"),
            ({"settings": {**card.settings, "stages": 2}}, r"x\.safetensors: stages must be 1 .* or 3"),
            ({"settings": {**card.settings, "newer": 2}}, r"x\.safetensors: a detector's description .* read: .*newer"),
        ):
            values = json.dumps(replace(card, **changes).to_dict())
            save_file(load_file(file), tmp_path / "x.safetensors", metadata={CARD_KEY: values})
            with pytest.raises(ValueError, match=message):
                load_detector(tmp_path / "x.safetensors")
        assert build_detector(card).config == CONFIGURED

    def test_weights_without_a_description(self, detector: InternImageDetector, tmp_path: Path) -> None:
        torch.save(detector.state_dict(), tmp_path / "x.pth")
        with pytest.raises(ValueError, match=r"x\.pth holds a detector's weights without their description"):
            load_detector(tmp_path / "x.pth")

    def test_a_classifier(self, tmp_path: Path) -> None:
        model = create_model("internimage_femto", num_classes=3)
        ours = save_checkpoint(model, tmp_path / "ours.safetensors", labels=LABELS)
        with pytest.raises(ValueError, match=r"ours\.safetensors holds a network for classification, not a detector"):
            load_detector(ours)
        torch.save({"state_dict": model.state_dict()}, tmp_path / "theirs.pth")
        with pytest.raises(ValueError, match=r"theirs\.pth: these weights hold no region proposal network"):
            load_detector(tmp_path / "theirs.pth")
        assert not holds_detector(read_checkpoint(ours))

    def test_a_detector_is_no_classifier(
        self, detector: InternImageDetector, file: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        for path in (file, checkpoint, write_pth(detector, tmp_path / "x.pth", config=text_of(CONFIG))):
            assert holds_detector(read_checkpoint(path))
            for load in (load_classifier, Classifier):
                with pytest.raises(ValueError, match=rf"{path.name} is a detector: .* load it as a Detector"):
                    load(path)
