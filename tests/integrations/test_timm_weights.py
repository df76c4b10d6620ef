"""Real files of every format through timm's doors: pretrained, an overlay's file, checkpoint_path, a saved folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import internimage
from internimage import InternImageClassifier, create_model, load_checkpoint, save_checkpoint
from internimage.model.checkpoints.convert import to_huggingface, to_official
from internimage.model.checkpoints.hub import FOLDER_VARIABLE

timm = pytest.importorskip("timm")
from timm.models import adapt_input_conv, save_for_hf  # noqa: E402

import internimage.integrations.timm  # noqa: E402, F401

# The architecture of T at a size that a test can write: what timm builds with these settings.
TINY: dict[str, Any] = {"channels": 16, "depths": (1, 1, 1, 1), "groups": (1, 2, 4, 8)}
FIRST, FC = "backbone.stem.conv1.weight", "head.fc.weight"
IMAGE = (2, 3, 64, 64)


@pytest.fixture
def source() -> InternImageClassifier:
    """A network of 12 classes whose weights and statistics are no initial values."""
    return _randomised(12)


def _randomised(num_classes: int) -> InternImageClassifier:
    model = create_model("internimage_t", num_classes=num_classes, **TINY)
    assert isinstance(model, InternImageClassifier)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model.eval()


def _ours(model: InternImageClassifier, folder: Path) -> Path:
    return save_checkpoint(model, folder / "best.safetensors")


def _official(model: InternImageClassifier, folder: Path) -> Path:
    torch.save({"model": to_official(model.state_dict()), "epoch": 299, "max_accuracy": 83.5}, folder / "t.pth")
    return folder / "t.pth"


def _huggingface(model: InternImageClassifier, folder: Path) -> Path:
    state = {key: tensor.contiguous() for key, tensor in to_huggingface(model.state_dict()).items()}
    save_file(state, folder / "model.safetensors")
    config = {"model_type": "internimage", **model.config.to_official()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


def _training(model: InternImageClassifier, folder: Path) -> Path:
    torch.save({"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}, folder / "a.ckpt")
    return folder / "a.ckpt"


FORMATS = pytest.mark.parametrize("write", [_ours, _official, _huggingface, _training])
Write = Callable[[InternImageClassifier, Path], Path]


def same(model: Any, source: InternImageClassifier, *apart: str) -> bool:
    own, theirs = model.state_dict(), source.state_dict()
    return own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own if key not in apart)


def from_file(file: Path, declared: int = 12, **settings: Any) -> Any:
    overlay = {"file": str(file), "num_classes": declared}
    return timm.create_model(
        "internimage_t", pretrained=True, pretrained_cfg_overlay=overlay, **settings, **TINY
    ).eval()


@torch.no_grad()
@FORMATS
def test_a_file_in_the_overlay(write: Write, source: InternImageClassifier, tmp_path: Path) -> None:
    model = from_file(write(source, tmp_path))
    assert model.num_classes == 12
    assert same(model, source)
    images = torch.rand(IMAGE)
    assert torch.equal(model(images), source(images))


@FORMATS
def test_checkpoint_path(write: Write, source: InternImageClassifier, tmp_path: Path) -> None:
    file = write(source, tmp_path)
    assert same(timm.create_model("internimage_t", num_classes=12, checkpoint_path=str(file), **TINY), source)
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.fc\.weight"):
        timm.create_model("internimage_t", num_classes=5, checkpoint_path=str(file), **TINY)


@FORMATS
def test_other_classes_start_anew(write: Write, source: InternImageClassifier, tmp_path: Path) -> None:
    model = from_file(write(source, tmp_path), num_classes=5)
    assert model.state_dict()[FC].shape[0] == 5
    assert same(model, source, FC, "head.fc.bias")


@torch.no_grad()
@FORMATS
def test_no_classes_and_features(write: Write, source: InternImageClassifier, tmp_path: Path) -> None:
    file, images = write(source, tmp_path), torch.rand(IMAGE)
    bare = from_file(file, num_classes=0)
    assert torch.equal(bare(images), source.forward_head(source.forward_features(images), pre_logits=True))
    net = from_file(file, features_only=True)
    for each, expected in zip(net(images), source.backbone(images), strict=True):
        assert torch.equal(each, expected)


@pytest.mark.parametrize("in_chans", [1, 2, 4, 7])
@FORMATS
def test_other_channels_as_timm_adapts_them(
    write: Write, in_chans: int, source: InternImageClassifier, tmp_path: Path
) -> None:
    model = from_file(write(source, tmp_path), in_chans=in_chans)
    assert torch.equal(model.state_dict()[FIRST], adapt_input_conv(in_chans, source.state_dict()[FIRST]))
    assert same(model, source, FIRST)


def test_a_file_of_grey_images(tmp_path: Path) -> None:
    grey = create_model("internimage_t", num_classes=12, in_chans=1, **TINY)
    assert isinstance(grey, InternImageClassifier)
    weight = from_file(_ours(grey, tmp_path)).state_dict()[FIRST]
    torch.testing.assert_close(weight.sum(1, keepdim=True), grey.state_dict()[FIRST])


@pytest.mark.parametrize("name", ["internimage_t", "internimage_t.in1k_224"])
def test_pretrained_takes_the_released_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the weight table, in its official form, from the folder for hand-placed files."""
    source = _randomised(1000)
    torch.save({"model": to_official(source.state_dict())}, tmp_path / "internimage_t_1k_224.pth")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert same(timm.create_model(name, pretrained=True, **TINY), source)
    assert same(timm.create_model(name, pretrained=True, num_classes=7, **TINY), source, FC, "head.fc.bias")
    net = timm.create_model(name, pretrained=True, features_only=True, out_indices=(0,), **TINY)
    assert torch.equal(net.state_dict()[f"model.{FIRST}"], source.state_dict()[FIRST])


def test_released_files_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file at hand, our way to the hub, with its advice; with timm's ``cache_dir``, timm's way."""
    source, asked = _randomised(1000), []
    torch.save({"model": to_official(source.state_dict())}, tmp_path / "released.pth")

    def download(repository: str, filename: str, **options: Any) -> str:
        asked.append((repository, filename, options.get("cache_dir")))
        return str(tmp_path / "released.pth")

    def unreachable(repository: str, filename: str) -> str:
        raise OSError(repository, filename)

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    cached = timm.create_model("internimage_t", pretrained=True, cache_dir=tmp_path, **TINY)
    assert same(cached, source)
    assert asked == [("OpenGVLab/InternImage", "internimage_t_1k_224.pth", tmp_path)]
    monkeypatch.setattr("internimage.model.checkpoints.hub.hf_hub_download", unreachable)
    with pytest.raises(ConnectionError, match=r"resolve/main/internimage_h_22ktoinat18_384\.pth elsewhere and put it"):
        timm.create_model("internimage_h.in22k_inat18_384", pretrained=True)


def test_a_folder_that_timm_saved(source: InternImageClassifier, tmp_path: Path) -> None:
    model = from_file(_ours(source, tmp_path))
    save_for_hf(model, tmp_path / "timm")
    assert same(timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True), source)
    # A state at hand goes the same way, whatever its names.
    overlay = {"state_dict": to_official(source.state_dict()), "num_classes": 12}
    given = timm.create_model("internimage_t", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, **TINY)
    assert torch.equal(given.state_dict()[FIRST], source.state_dict()[FIRST].sum(1, keepdim=True))
    assert same(given, source, FIRST)


def test_our_own_functions_take_a_timm_model(source: InternImageClassifier, tmp_path: Path) -> None:
    file = _official(source, tmp_path)
    model = timm.create_model("internimage_t", num_classes=12, **TINY)
    load_checkpoint(model, file)
    assert same(model, source)
    saved = save_checkpoint(model, tmp_path / "timm.safetensors")
    restored = create_model(source.config, pretrained=saved)
    assert isinstance(restored, InternImageClassifier)
    assert same(restored, source)


def test_files_that_do_not_fit_say_so(source: InternImageClassifier, tmp_path: Path) -> None:
    file = _ours(source, tmp_path)
    with pytest.raises(ValueError, match=r"trained for 12 classes, the model has 1000; declare it"):
        from_file(file, declared=1000)
    with pytest.raises(ValueError, match="but the model is InternImage-femto"):
        timm.create_model("internimage_femto", pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    with pytest.raises(ValueError, match=r"made with offset_scale=1.0 instead of 2.0"):
        from_file(file, offset_scale=2.0)
    with pytest.warns(UserWarning, match=r"stem_strides=\(2, 2\) instead of \(1, 1\)"):
        from_file(file, stem_strides=(1, 1))
    bare = tmp_path / "backbone.pth"
    torch.save({key: value for key, value in source.state_dict().items() if key.startswith("backbone.")}, bare)
    for settings in ({}, {"num_classes": 0}):
        with pytest.raises(ValueError, match="has no classification head; pass features_only=True"):
            from_file(bare, **settings)
    assert from_file(bare, num_classes=3).num_classes == 3
    assert from_file(bare, features_only=True).feature_info.channels() == [16, 32, 64, 128]


def test_strict_loading_stays_strict(source: InternImageClassifier) -> None:
    model = timm.create_model("internimage_t", num_classes=12, **TINY)
    state = to_official(source.state_dict())
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*neck\.weight"):
        model.load_state_dict(state | {"neck.weight": torch.zeros(1)})
    lost = {key: value for key, value in state.items() if key != "patch_embed.conv2.bias"}
    with pytest.raises(RuntimeError, match=r"Missing key.*backbone\.stem\.conv2\.bias"):
        model.load_state_dict(lost)
    result = model.load_state_dict({FC: source.state_dict()[FC]}, strict=False)
    assert FC not in result.missing_keys
