"""Networks against the official code: the same weights in an official container give the same maps and logits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from internimage import InternImageClassifier, InternImageConfig, create_model, load_checkpoint
from support.compare import TOLERANCE, relative_rms

pytestmark = [pytest.mark.usefixtures("poisoned_memory"), pytest.mark.shared]
LIMIT = TOLERANCE["golden"][0]
NAMES = ["prenorm", "postnorm_layerscale", "postnorm_cfs_removecenter", "respostnorm_cfs", "clip_head"]
# With DCNv4: what these hold beyond the others is in flash/test_flash_golden.py.
NAMES += ["flash/flash_tlike", "flash/flash_llike"]
# Softmax over the tokens takes no notice of a constant that all keys share.
WITHOUT_EFFECT = {"head.pool.k.bias", "head.pool.norm_k.bias", "head.norm.num_batches_tracked"}


@dataclass
class Official:
    config: InternImageConfig
    state: dict[str, Tensor]
    image: Tensor
    maps: list[Tensor]
    logits: Tensor


def read_official(path: Path) -> Official:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        metadata = file.metadata()
    arguments = json.loads(metadata["config"]) | {"num_classes": int(metadata["num_classes"])}
    state = {key.removeprefix("state_dict."): tensors[key] for key in tensors if key.startswith("state_dict.")}
    return Official(
        InternImageConfig.from_official(arguments),
        {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()},
        tensors["input_NCHW"],
        [_map_in(tensors, f"features.{stage}") for stage in range(4)],
        tensors["logits"],
    )


def _map_in(tensors: dict[str, Tensor], name: str) -> Tensor:
    map_NCHW = tensors.get(f"{name}_NCHW")
    return tensors[f"{name}_NHWC"] if map_NCHW is None else map_NCHW.permute(0, 2, 3, 1)


@pytest.fixture(params=NAMES)
def official(request: pytest.FixtureRequest, golden: Path) -> Official:
    return read_official(golden / f"{request.param}.safetensors")


def saved(official: Official, folder: Path) -> Path:
    torch.save({"model": official.state, "epoch": 3, "max_accuracy": 83.5}, folder / "official.pth")
    return folder / "official.pth"


@torch.no_grad()
def test_classifier_equals_official(official: Official, tmp_path: Path) -> None:
    model = create_model(official.config).eval()
    assert isinstance(model, InternImageClassifier)
    report = load_checkpoint(model, saved(official, tmp_path))
    assert (report.loaded, report.missing, report.unexpected) == (len(official.state), (), ())
    maps_NHWC = model.forward_features(official.image)
    errors = [relative_rms(*pair) for pair in zip(maps_NHWC, official.maps, strict=True)]
    errors.append(relative_rms(model(official.image), official.logits))
    assert max(errors) <= LIMIT, errors


@torch.no_grad()
def test_features_only_equals_official(official: Official, tmp_path: Path) -> None:
    model = create_model(official.config, features_only=True).eval()
    load_checkpoint(model, saved(official, tmp_path))
    maps_NCHW = model(official.image)
    expected = [map_NHWC.permute(0, 3, 1, 2) for map_NHWC in official.maps]
    errors = [relative_rms(*pair) for pair in zip(maps_NCHW, expected, strict=True)]
    assert max(errors) <= LIMIT, errors


@torch.no_grad()
def test_golden_files_notice_every_parameter(official: Official, tmp_path: Path) -> None:
    """Otherwise equality would prove less than it seems: disturb one kind of parameter at a time."""
    model = create_model(official.config).eval()
    load_checkpoint(model, saved(official, tmp_path))
    own = model.state_dict()
    kinds = {re.sub(r"\.\d+", ".#", key) for key in own}
    unnoticed: set[str] = set()
    for kind in kinds:
        tensors = [own[key] for key in own if re.sub(r"\.\d+", ".#", key) == kind]
        before = [tensor.clone() for tensor in tensors]
        for tensor in tensors:
            tensor.copy_(1.01 * tensor.roll(1) + 0.01)
        if relative_rms(model(official.image[:1]), official.logits[:1]) < 10 * LIMIT:
            unnoticed.add(kind)
        for tensor, values in zip(tensors, before, strict=True):
            tensor.copy_(values)
    assert unnoticed == WITHOUT_EFFECT & kinds
    assert relative_rms(model(official.image), official.logits) <= LIMIT


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("postnorm_layerscale", {"offset_scale": 1.0}),
        ("prenorm", {"activation": "silu"}),
        ("postnorm_cfs_removecenter", {"post_norm": False}),
        ("respostnorm_cfs", {"level2_post_norm_blocks": (0, 2, 4)}),
        ("prenorm", {"stem_strides": (2, 1)}),
        ("flash/flash_llike", {"offset_scale": 1.0}),
        ("flash/flash_tlike", {"normalize": "softmax"}),
    ],
)
def test_golden_files_notice_settings_without_weights(
    golden: Path, tmp_path: Path, name: str, setting: dict[str, Any]
) -> None:
    official = read_official(golden / f"{name}.safetensors")
    model = create_model(official.config, **setting).eval()
    load_checkpoint(model, saved(official, tmp_path))
    assert relative_rms(model(official.image), official.logits) > 1e-3
