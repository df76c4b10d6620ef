"""Our own files: one file is enough to rebuild a network with its labels and preprocessing, exactly as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from internimage import (
    InternImageClassifier,
    InternImageConfig,
    LabelMap,
    Preprocess,
    create_model,
    load_checkpoint,
    save_checkpoint,
)
from internimage.model import Card, infer_config, read_checkpoint

LABELS = LabelMap(tuple(f"Käfer {index}" for index in range(10)))
PREPROCESS = Preprocess(size=96, crop_ratio=0.875, interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))


def test_a_file_alone_is_enough(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "runs" / "best.safetensors", labels=LABELS, preprocess=PREPROCESS)
    moved = path.rename(tmp_path / "elsewhere.safetensors")
    found = read_checkpoint(moved)
    assert found.card == Card(network.config, LABELS, PREPROCESS)
    assert (found.origin, found.foreign) == ("ours", ())
    assert infer_config(found) == network.config
    model = create_model(infer_config(found), pretrained=moved).eval()
    image = torch.rand(2, 3, 40, 33)
    assert torch.equal(model(image), network(image))


def test_every_form_and_setting_comes_back(form: InternImageConfig, tmp_path: Path) -> None:
    config = replace(form, in_chans=2, stem_strides=(2, 1), head_ratio=2.0, drop_path_rate=0.25)
    model = create_model(config).eval()
    found = read_checkpoint(save_checkpoint(model, tmp_path / "a.safetensors"))
    assert found.card == Card(config)
    restored = create_model(found.card.config, pretrained=found.path).eval()
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), restored.state_dict().values(), strict=True)
    )


def test_the_file_is_as_readable_as_any_other(network: InternImageClassifier, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    path = save_checkpoint(network, tmp_path / "a.safetensors")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_description_lies_beside_the_weights(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "internimage_t.in1k_224.safetensors", labels=LABELS)
    beside = tmp_path / "internimage_t.in1k_224.json"
    assert sorted(tmp_path.iterdir()) == sorted([path, beside])
    description = json.loads(beside.read_text(encoding="utf-8"))
    assert Card.from_dict(description) == Card(network.config, LABELS)
    assert description["labels"][3] == "Käfer 3"
    assert "Käfer" in beside.read_text(encoding="utf-8")
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["internimage"]) == description
        assert file.metadata()["format"] == "pt"


def test_a_folder_with_one_file_of_ours(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "best.safetensors", labels=LABELS)
    assert read_checkpoint(tmp_path).path == path
    model = create_model(network.config)
    load_checkpoint(model, tmp_path)
    assert torch.equal(model.head.fc.bias, network.head.fc.bias)


def test_training_checkpoints_may_carry_a_description(network: InternImageClassifier, tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in network.state_dict().items()}
    card = Card(network.config, LABELS, PREPROCESS)
    torch.save({"state_dict": state, "epoch": 3, "internimage": card.to_dict()}, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt").card == card


def test_16_bit_and_shared_memory_are_saved_as_they_are(network: InternImageClassifier, tmp_path: Path) -> None:
    network.bfloat16().to(memory_format=torch.channels_last)
    path = save_checkpoint(network, tmp_path / "low.safetensors")
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("backbone.stem.conv1.weight").dtype == torch.bfloat16
    assert read_checkpoint(path).state["backbone.stem.conv1.weight"].dtype == torch.float32


def test_a_backbone_is_saved_too(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network.backbone, tmp_path / "backbone.safetensors")
    restored = create_model(network.config, features_only=True, pretrained=path)
    assert torch.equal(restored.stages[3].norm.weight, network.backbone.stages[3].norm.weight)
    classifier = create_model(network.config, pretrained=path)
    assert torch.equal(classifier.backbone.stem.norm1.bias, network.backbone.stem.norm1.bias)
    with pytest.raises(ValueError, match="10 class names for a model of 0 classes"):
        save_checkpoint(network.backbone, tmp_path / "b.safetensors", labels=LABELS)


def test_a_model_without_classes(network: InternImageClassifier, tmp_path: Path) -> None:
    network.reset_classifier(0)
    path = save_checkpoint(network, tmp_path / "bare.safetensors")
    image = torch.rand(1, 3, 32, 32)
    bare = create_model(network.config, pretrained=path).eval()
    assert torch.equal(bare(image), network(image))
    # With classes again, the rest of the head comes from the file and the last layer is new.
    fresh = create_model(network.config, pretrained=path, num_classes=4).eval()
    assert torch.equal(fresh.forward_head(fresh.forward_features(image), pre_logits=True), network(image))
    assert fresh(image).shape == (1, 4)


def test_nothing_is_overwritten_unasked(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "a.safetensors")
    before = path.read_bytes()
    with torch.no_grad():
        network.head.fc.bias.add_(1.0)
    with pytest.raises(FileExistsError, match=r"a\.safetensors exists; choose another name or pass overwrite=True"):
        save_checkpoint(network, path)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(FileExistsError, match=r"a\.json exists"):
        save_checkpoint(network, path)
    assert not path.exists()
    save_checkpoint(network, path, labels=LABELS, overwrite=True)
    assert read_checkpoint(path).card.labels == LABELS
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", ["a.pth", "a", "a.safetensors.bak", "a.ckpt"])
def test_another_suffix(name: str, network: InternImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights are saved as \.safetensors, got "):
        save_checkpoint(network, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved(network: InternImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 class names for a model of 10 classes"):
        save_checkpoint(network, tmp_path / "a.safetensors", labels=LabelMap(("cat", "dog")))
    with pytest.raises(ValueError, match="InternImage backbone or classifier, got Linear"):
        save_checkpoint(nn.Linear(2, 2), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_half_one(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "a.safetensors")
    before = path.read_bytes()
    with torch.device("meta"):
        hollow = create_model(network.config)
    with pytest.raises(NotImplementedError):
        save_checkpoint(hollow, path, overwrite=True)
    assert path.read_bytes() == before
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OSError, match="directory"):
        save_checkpoint(network, tmp_path / "folder.safetensors", overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json", "a.safetensors", "folder.safetensors"]
