"""Our own files: one file is enough to rebuild a network with its labels and preprocessing, exactly as it was."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
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
from internimage.model.checkpoints.convert import to_huggingface

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


SETTINGS = {"num_classes": 2, "stem_strides": (2, 1), "in_chans": 1, "activation": "relu", "head_ratio": 2.0}


@pytest.fixture
def femto(tmp_path: Path) -> Path:
    """A small variant trained with settings of its own."""
    return save_checkpoint(create_model("internimage_femto", **SETTINGS), tmp_path / "femto.safetensors")


@pytest.mark.parametrize("features_only", [False, True])
def test_a_name_and_a_file_give_the_file_s_settings(femto: Path, features_only: bool) -> None:
    model = create_model("internimage_femto", pretrained=femto, features_only=features_only)
    assert model.config == InternImageConfig.from_variant("femto", **SETTINGS)


def test_a_hugging_face_description_counts_too(tmp_path: Path) -> None:
    trained = create_model("internimage_femto", num_classes=2, activation="silu", layer_scale=0.5)
    save_file(to_huggingface(trained.state_dict()), tmp_path / "model.safetensors")
    description = trained.config.to_official() | {"model_type": "internimage"}
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert create_model("internimage_femto", pretrained=tmp_path).config == trained.config


def test_explicit_settings_win_over_the_file_s(femto: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = create_model("internimage_femto", pretrained=femto, num_classes=5, in_chans=3, drop_path_rate=0.1)
    settings = SETTINGS | {"num_classes": 5, "in_chans": 3, "drop_path_rate": 0.1}
    assert model.config == InternImageConfig.from_variant("femto", **settings)
    with pytest.raises(ValueError, match="made with activation='relu' instead of 'gelu'"):
        create_model("internimage_femto", pretrained=femto, activation="gelu")


def test_strides_that_contradict_the_file_are_used_with_a_warning(femto: Path) -> None:
    note = r"femto\.safetensors: the file was made with stem_strides=\(2, 1\) instead of \(2, 2\)"
    with pytest.warns(UserWarning, match=note):
        model = create_model("internimage_femto", pretrained=femto, stem_strides=(2, 2))
    assert model.config.stem_strides == (2, 2)


def test_a_file_of_another_variant_is_still_refused(femto: Path) -> None:
    with pytest.raises(ValueError, match=r"holds InternImage-femto .* but the model is InternImage-pico"):
        create_model("internimage_pico", pretrained=femto)


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


def test_a_description_that_contradicts_itself(network: InternImageClassifier, tmp_path: Path) -> None:
    """Another program, or an older version of this one, may have written it."""
    path = save_checkpoint(network, tmp_path / "a.safetensors", preprocess=PREPROCESS)
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["internimage"])
    card["preprocess"] |= {"mean": [0.5], "std": [0.5]}
    save_file(network.state_dict(), path, metadata={"internimage": json.dumps(card)})
    with pytest.raises(ValueError, match=r"a\.safetensors has .*preprocess makes images of 1 channel, .* takes 3"):
        read_checkpoint(path)


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
    classifier = create_model(network.config, pretrained=path, num_classes=10)
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
    with pytest.raises(ValueError, match="preprocess makes images of 1 channel, but the model takes 3"):
        save_checkpoint(network, tmp_path / "a.safetensors", preprocess=Preprocess(mean=(0.5,), std=(0.5,)))
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
