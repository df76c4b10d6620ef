"""Every container that official weights come in: written by the real library, read by the public function."""

from __future__ import annotations

import json
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from internimage import InternImageClassifier, InternImageConfig, create_model, load_checkpoint
from internimage.model import Checkpoint, read_checkpoint
from internimage.model.checkpoints.convert import to_huggingface, to_official

State = dict[str, Tensor]


@pytest.fixture
def official(network: InternImageClassifier) -> State:
    return to_official(network.state_dict())


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def negative(state: State) -> State:
    return {key: -tensor for key, tensor in state.items()}


def backbone_of(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith(("head.", "conv_head."))}


def assert_holds(found: Checkpoint, network: InternImageClassifier, part: str = "", sign: int = 1) -> None:
    expected = {key: tensor for key, tensor in network.state_dict().items() if key.startswith(part)}
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(sign * found.state[key], tensor) for key, tensor in expected.items())


# What stands around the weights, and the keys that are not ours.
CONTAINERS: dict[str, tuple[Callable[[State], dict[str, Any]], str]] = {
    "raw": (lambda state: state, "official"),
    "ordered_dict": (OrderedDict, "official"),
    "official_trainer": (lambda state: {"model": state, "optimizer": {"state": {0: {}}}, "epoch": 299}, "official"),
    "deepspeed": (lambda state: {"module": state, "global_steps": 3, "ds_version": "0.9"}, "official"),
    "distributed": (lambda state: {"model": prefixed(state, "module.")}, "official"),
    "compiled": (lambda state: {"model": prefixed(state, "_orig_mod.")}, "official"),
    "distilled": (
        lambda state: {"model": prefixed(state, "student.") | prefixed(negative(state), "teacher.")},
        "official",
    ),
    "hugging_face_pickle": (lambda state: prefixed(state, "model."), "huggingface"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(
    container: str, zipped: bool, official: State, network: InternImageClassifier, tmp_path: Path
) -> None:
    wrap, origin = CONTAINERS[container]
    torch.save(wrap(official), tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "weights.pth")
    assert_holds(found, network)
    assert (found.origin, found.card, found.path) == (origin, None, tmp_path / "weights.pth")
    assert load_checkpoint(create_model(network.config), found).missing == ()


@pytest.mark.parametrize(("ema", "sign"), [(None, 1), (False, 1), (True, -1)])
def test_moving_average_of_the_official_trainer(
    ema: bool | None, sign: int, official: State, network: InternImageClassifier, tmp_path: Path
) -> None:
    torch.save({"model": official, "model_ema": negative(official)}, tmp_path / "weights.pth")
    assert_holds(read_checkpoint(tmp_path / "weights.pth", ema=ema), network, sign=sign)
    model = create_model(network.config)
    load_checkpoint(model, tmp_path / "weights.pth", ema=ema)
    assert torch.equal(sign * model.state_dict()["head.fc.bias"], network.state_dict()["head.fc.bias"])


@pytest.mark.parametrize(("ema", "sign"), [(None, -1), (False, 1), (True, -1)])
def test_moving_average_of_lightning(
    ema: bool | None, sign: int, network: InternImageClassifier, tmp_path: Path
) -> None:
    """Its averaging callback puts the average under state_dict and the raw weights beside it."""
    raw = prefixed(network.state_dict(), "model.") | {"metric.total": torch.zeros(1)}
    torch.save({"state_dict": negative(raw), "current_model_state": raw}, tmp_path / "last.ckpt")
    found = read_checkpoint(tmp_path / "last.ckpt", ema=ema)
    assert_holds(found, network, sign=sign)
    assert (found.origin, found.foreign) == ("ours", ("metric.total",))


@pytest.mark.parametrize("container", ["raw", "official_trainer", "deepspeed"])
def test_without_a_moving_average(container: str, official: State, tmp_path: Path) -> None:
    torch.save(CONTAINERS[container][0](official), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth has no moving average"):
        read_checkpoint(tmp_path / "weights.pth", ema=True)


def test_openmmlab(official: State, network: InternImageClassifier, tmp_path: Path) -> None:
    others = {"neck.lateral_convs.0.conv.weight": torch.zeros(2), "rpn_head.rpn_conv.bias": torch.zeros(2)}
    averages = {"ema_backbone_patch_embed_conv1_weight": torch.zeros(2)}
    meta = {"mmdet_version": "2.28.1", "config": "model = dict()", "CLASSES": ("person", "car"), "PALETTE": [[1, 2, 3]]}
    state = prefixed(backbone_of(official), "backbone.") | others | averages
    torch.save({"meta": meta, "state_dict": state, "optimizer": {}}, tmp_path / "detector.pth")
    found = read_checkpoint(tmp_path / "detector.pth")
    assert_holds(found, network, "backbone.")
    assert set(found.foreign) == {*others, *averages}
    backbone = create_model(network.config, features_only=True)
    report = load_checkpoint(backbone, found)
    assert (report.missing, report.unexpected) == ((), ())
    assert torch.equal(backbone.stem.conv1.bias, network.backbone.stem.conv1.bias)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_branch_for_date_and_place_is_left_out_in_words(
    prefix: str, official: State, network: InternImageClassifier, tmp_path: Path
) -> None:
    """The released network for iNaturalist adds what it knows of date and place to the class scores."""
    names = ("meta_head_1.0.weight", "meta_head_1.0.bias", "meta_norm.weight", "meta_head_2.0.weight", "meta_head.bias")
    branch = {name: torch.zeros(2) for name in names}
    torch.save({"model": prefixed(official | branch, prefix)}, tmp_path / "inat.pth")
    found = read_checkpoint(tmp_path / "inat.pth")
    assert_holds(found, network)
    assert found.foreign == tuple(prefixed(branch, prefix))
    report = load_checkpoint(create_model(network.config), found)
    assert report.notes == ("the branch for date and place was left out",)


def test_values_that_official_trainers_leave_beside_the_weights(
    official: State, network: InternImageClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A yacs configuration, which its own module would have to unpickle, and numpy numbers."""

    class CfgNode(dict):
        """As yacs defines it: a dict with attributes of its own."""

        def __init__(self, values: dict[str, Any]) -> None:
            super().__init__(values)
            self.__dict__["__immutable__"] = True
            self.__dict__["__deprecated_keys__"] = {"OLD"}

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    config = CfgNode({"MODEL": CfgNode({"TYPE": "intern_image", "DEPTHS": [1, 2], "LAYER_SCALE": None}), "AMP": True})
    numbers = {"max_accuracy": np.float64(83.5), "epoch": np.int64(3), "loss": np.float32(0.1), "best": np.bool_(True)}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        torch.save({"model": official, "config": config, "scaler": {"scale": 65536.0}, **numbers}, tmp_path / "a.pth")
    assert "yacs.config" not in sys.modules
    assert b"yacs.config" in (tmp_path / "a.pth").read_bytes()
    assert_holds(read_checkpoint(tmp_path / "a.pth"), network)
    assert "yacs.config" not in sys.modules


def hub_configuration(config: InternImageConfig) -> dict[str, Any]:
    """As the official hub models have it, with settings of transformers and text where YAML left text."""
    foreign = {
        "_name_or_path": "OpenGVLab/internimage",
        "architectures": ["InternImageModel"],
        "auto_map": {"AutoModel": "modeling_internimage.InternImageModel"},
        "model_type": "internimage",
        "torch_dtype": "float32",
        "transformers_version": "4.37.2",
        "id2label": {"0": "tench"},
        "problem_type": None,
    }
    return foreign | config.to_official() | {"core_op": "DCNv3_pytorch", "layer_scale": str(config.layer_scale)}


def write_hub_folder(folder: Path, network: InternImageClassifier, parts: int = 1) -> Path:
    """model.safetensors and config.json, or the weights in parts with their index, as transformers saves them."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hub_configuration(network.config)))
    state = to_huggingface(network.state_dict())
    if parts == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    place = {key: f"model-{1 + index % parts:05}-of-{parts:05}.safetensors" for index, key in enumerate(state)}
    for name in set(place.values()):
        save_file({key: state[key] for key in state if place[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_hugging_face_folder(named: str, parts: int, network: InternImageClassifier, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "hub", network, parts)
    file = folder / ("model.safetensors" if parts == 1 else "model.safetensors.index.json")
    found = read_checkpoint(folder if named == "folder" else file)
    assert_holds(found, network)
    assert (found.origin, found.path) == ("huggingface", file)
    assert found.card is not None
    assert found.card.config == network.config
    model = create_model(network.config, pretrained=folder).eval()
    image = torch.rand(1, 3, 33, 40)
    assert torch.equal(model(image), network(image))


def test_hugging_face_folder_with_a_lost_part(network: InternImageClassifier, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "hub", network, parts=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"names model-00002-of-00003\.safetensors, which"):
        read_checkpoint(folder)


def test_hugging_face_folder_with_a_pickle(network: InternImageClassifier, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "hub", network)
    (folder / "model.safetensors").unlink()
    torch.save(to_huggingface(network.state_dict()), folder / "pytorch_model.bin")
    found = read_checkpoint(folder)
    assert_holds(found, network)
    assert found.card is not None


def test_a_folder_s_configuration_is_only_its_model_s(official: State, tmp_path: Path) -> None:
    """An official file that lies beside some config.json is not described by it."""
    (tmp_path / "config.json").write_text(json.dumps(InternImageConfig().to_official() | {"model_type": "internimage"}))
    torch.save({"model": official}, tmp_path / "internimage.pth")
    assert read_checkpoint(tmp_path / "internimage.pth").card is None


def test_16_bit_files_load_as_float32(official: State, network: InternImageClassifier, tmp_path: Path) -> None:
    low = {key: tensor.bfloat16() if tensor.is_floating_point() else tensor for key, tensor in official.items()}
    torch.save({"model": low}, tmp_path / "low.pth")
    found = read_checkpoint(tmp_path / "low.pth")
    assert found.state["head.norm.num_batches_tracked"].dtype == torch.int64
    assert {tensor.dtype for key, tensor in found.state.items() if "num_batches" not in key} == {torch.float32}
    assert torch.equal(found.state["head.fc.bias"], network.state_dict()["head.fc.bias"].bfloat16().float())


@pytest.mark.parametrize("stem_of_second", [True, False])
def test_a_composite_of_two_backbones_has_no_single_answer(
    stem_of_second: bool, official: State, network: InternImageClassifier, tmp_path: Path
) -> None:
    """The released composite drops the second stem: there is one stem and still two backbones, for a detector."""
    state = prefixed(official, "backbone.cb_modules.0.")
    second = {key: tensor for key, tensor in official.items() if stem_of_second or not key.startswith("patch_embed")}
    torch.save({"state_dict": state | prefixed(second, "backbone.cb_modules.1.")}, tmp_path / "cb.pth")
    with pytest.raises(
        ValueError, match=r"cb\.pth: these are a composite of two InternImages: load a detector with both"
    ):
        load_checkpoint(network, tmp_path / "cb.pth")
