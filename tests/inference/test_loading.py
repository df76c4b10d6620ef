"""From any weight file to a network that is ready to predict, with names and preprocessing filled in."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from internimage import Classifier, LabelMap, Preprocess, create_model, save_checkpoint
from internimage.inference import load_classifier
from internimage.model.checkpoints.convert import to_official
from internimage.model.checkpoints.files import CARD_KEY, Card


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)


def official_file(model: nn.Module, path: Path) -> Path:
    torch.save({"model": to_official(model.state_dict()), "epoch": 299, "max_accuracy": 83.5}, path)
    return path


def training_checkpoint(model: nn.Module, path: Path, labels: LabelMap, preprocess: Preprocess) -> Path:
    """As a training with a moving average writes it: the average is the main entry."""
    average = {f"network.{key}": tensor for key, tensor in model.state_dict().items()}
    current = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in average.items()}
    card = Card(model.config, labels, preprocess).to_dict()
    torch.save({"state_dict": average, "current_model_state": current, CARD_KEY: card, "epoch": 1}, path)
    return path


def test_our_file_brings_names_and_preprocessing(weights: Path, labels: LabelMap, preprocess: Preprocess) -> None:
    classifier = Classifier(weights, device="cpu")
    assert classifier.labels == labels
    assert classifier.preprocess == preprocess
    assert classifier.device == torch.device("cpu")


def test_the_file_alone_is_enough(weights: Path, tmp_path: Path, labels: LabelMap, picture: np.ndarray) -> None:
    copy = tmp_path / "renamed.safetensors"
    copy.write_bytes(weights.read_bytes())
    assert Classifier(copy, device="cpu").labels == labels
    assert Classifier(copy, device="cpu")(picture) == Classifier(weights, device="cpu")(picture)


def test_a_run_folder_is_its_weights(network: nn.Module, tmp_path: Path, labels: LabelMap) -> None:
    run = tmp_path / "runs" / "my run"
    save_checkpoint(network, run / "model.safetensors", labels=labels, preprocess=Preprocess(64))
    assert Classifier(run, device="cpu").preprocess == Preprocess(64)
    assert Classifier(str(run), device="cpu").labels == labels


def test_a_training_checkpoint_predicts(
    network: nn.Module, tmp_path: Path, labels: LabelMap, preprocess: Preprocess, weights: Path, picture: np.ndarray
) -> None:
    path = training_checkpoint(network, tmp_path / "best.ckpt", labels, preprocess)
    classifier = Classifier(path, device="cpu")
    assert (classifier.labels, classifier.preprocess) == (labels, preprocess)
    assert classifier(picture) == Classifier(weights, device="cpu")(picture)
    # The average is the main entry, so it is also what ema=True asks for; the raw weights differ.
    assert Classifier(path, device="cpu", ema=True)(picture) == classifier(picture)
    weight = next(network.parameters())
    raw, _ = load_classifier(path, ema=False)
    torch.testing.assert_close(next(raw.parameters()), weight + 1)


def test_an_official_file_is_recognised(tmp_path: Path, caplog: pytest.LogCaptureFixture, picture: np.ndarray) -> None:
    model = create_model("internimage_pico", num_classes=7).eval()
    path = official_file(model, tmp_path / "somebody.pth")
    with caplog.at_level(logging.WARNING, "internimage"):
        classifier = Classifier(path, device="cpu")
    assert "does not say how images are prepared: the official evaluation at 224 pixels is used" in caplog.text
    assert str(path) in caplog.text
    assert classifier.model.config == model.config
    assert classifier.preprocess == Preprocess(224)
    assert classifier.labels.names == tuple(f"class {index}" for index in range(7))
    expected = create_and_ask(model, picture)
    assert classifier(picture).probabilities == pytest.approx(expected, abs=1e-5)


def create_and_ask(model: nn.Module, picture: np.ndarray) -> list[float]:
    from internimage.data import read_image, to_tensor

    with torch.inference_mode():
        return model(to_tensor(read_image(picture), Preprocess(224))[None]).softmax(-1)[0].tolist()


def test_a_released_files_name_says_its_image_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = create_model("internimage_femto", num_classes=7)
    path = official_file(model, tmp_path / "internimage_l_22kto1k_384.pth")
    assert Classifier(path, device="cpu").preprocess.size == 384
    assert not caplog.records


def test_a_thousand_classes_are_imagenets(tmp_path: Path) -> None:
    path = official_file(create_model("internimage_femto"), tmp_path / "internimage_t_1k_224.pth")
    labels = Classifier(path, device="cpu").labels
    assert len(labels) == 1000
    assert len(set(labels)) == 1000, "two classes have one name"
    assert labels[0] == "tench"
    assert labels[207] == "golden retriever"
    assert labels[134].startswith("crane")
    assert labels[999].startswith("toilet")


def test_a_backbone_cannot_name_classes(tmp_path: Path) -> None:
    backbone = create_model("internimage_femto", features_only=True)
    ours = save_checkpoint(backbone, tmp_path / "backbone.safetensors")
    state = {key: value for key, value in to_official(backbone.state_dict()).items() if "head" not in key}
    torch.save(state, tmp_path / "official.pth")
    for path in (ours, tmp_path / "official.pth"):
        with pytest.raises(ValueError, match=rf"{path.name} is a backbone without a classification head"):
            Classifier(path, device="cpu")


def test_a_description_that_contradicts_the_weights_is_refused(weights: Path, tmp_path: Path) -> None:
    """Names for other classes would be wrong answers, so they are an error."""
    model = create_model("internimage_femto", num_classes=5)
    state = {f"network.{key}": tensor for key, tensor in model.state_dict().items()}
    card = Card(model.config, LabelMap(("a", "b")), Preprocess(32)).to_dict()
    torch.save({"state_dict": state, CARD_KEY: card}, tmp_path / "two.ckpt")
    with pytest.raises(ValueError, match=r"two\.ckpt names 2 classes, but its network has 5 outputs"):
        Classifier(tmp_path / "two.ckpt", device="cpu")
    grey = save_checkpoint(create_model("internimage_femto", in_chans=1, num_classes=2), tmp_path / "grey.safetensors")
    with pytest.raises(ValueError, match="images of 1 channels and does not say how they are prepared"):
        Classifier(grey, device="cpu")


def test_what_is_not_there_or_damaged_is_named(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights at nowhere\.pth"):
        Classifier("nowhere.pth")
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        Classifier(tmp_path)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"damaged\.safetensors is not a readable safetensors file"):
        Classifier(damaged)
    with pytest.raises(ValueError, match="describes weights; name the weight file itself"):
        Classifier(weights.with_suffix(".json"))
    described = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    assert described["labels"] == ["ant", "bee", "cow", "dog", "elk"]
