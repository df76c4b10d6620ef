"""Published folders through transformers' Auto classes: the same logits as our own loader, and nothing left over."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification, ViTConfig, ViTForImageClassification
from transformers import dynamic_module_utils as remote_code

from internimage import InternImageClassifier, InternImageConfig, create_model
from internimage.integrations import transformers as ours
from internimage.model.checkpoints.convert import name_from_huggingface
from internimage.model.variants import variant_config
from support.compare import relative_rms
from support.published import PUBLISHED, network_of, shrunk, write_published

NOTHING = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
SMALL = InternImageConfig(channels=16, depths=(1, 1, 3, 1), groups=(1, 2, 4, 8), num_classes=10)
PICKLED = ("internimage_t.in1k_224", "internimage_h.in22k_in1k_640")
IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_published(tmp_path / "published", network_of(SMALL))


@torch.no_grad()
def logits_of(model: Any) -> torch.Tensor:
    assert not model.training
    return model(IMAGES).logits


def test_eleven_repositories_are_known() -> None:
    assert len(PUBLISHED) == 11


# What is pickled does not depend on the variant: with one of each head in the default run.
@pytest.mark.parametrize(
    ("name", "pickled"),
    [
        pytest.param(name, pickled, marks=pytest.mark.slow if pickled and name not in PICKLED else ())
        for name in PUBLISHED
        for pickled in (False, True)
    ],
    ids=lambda each: each if isinstance(each, str) else "pickle" if each else "safetensors",
)
@torch.no_grad()
def test_published_folder_loads_as_it_is(name: str, pickled: bool, tmp_path: Path) -> None:
    # One head in full: the 21,841 classes of the large ones differ from it in nothing but time.
    classes = None if name == "internimage_l.in22k_384" else 10
    network = network_of(shrunk(PUBLISHED[name], classes))
    folder = write_published(tmp_path / "published", network, pickled=pickled)
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, ours.InternImageForImageClassification)
    assert info == NOTHING
    assert model.config.num_labels == network.num_classes
    expected = create_model(network.config, pretrained=folder).eval()(IMAGES)
    assert expected.std() > 1e-3
    assert torch.equal(logits_of(model), expected)
    assert torch.equal(expected, network(IMAGES))
    for cls in (AutoModel, ours.InternImageBackbone):
        headless, info = cls.from_pretrained(folder, output_loading_info=True)
        assert info == NOTHING
        assert torch.equal(headless(IMAGES, output_hidden_states=True).hidden_states[-1], network.backbone(IMAGES)[-1])


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_official_weight_has_its_place(name: str, golden: Path) -> None:
    row = PUBLISHED[name]
    official = json.loads((golden / "official_state_dicts.json").read_text())[row.model.removeprefix("internimage_")]
    official |= {key: [row.num_classes, *official[key][1:]] for key in ("head.weight", "head.bias")}
    names = {name: "model." + re.sub(r"gamma([12])$", r"layer_scale\1", name) for name in official}
    with torch.device("meta"):
        config = ours.InternImageConfig.from_internimage(variant_config(row.model), num_labels=row.num_classes)
        model = ours.InternImageForImageClassification(config)
    assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == {
        name_from_huggingface(names[key]): shape for key, shape in official.items()
    }


@pytest.mark.parametrize("trust", [None, False, True])
def test_published_code_never_runs(folder: Path, trust: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for the repository's code")

    monkeypatch.setattr(remote_code, "get_class_from_dynamic_module", forbidden)
    monkeypatch.setattr("builtins.input", forbidden)
    for cls in (AutoModel, AutoModelForImageClassification):
        model = cls.from_pretrained(folder, trust_remote_code=trust)
        assert type(model).__module__.startswith("internimage.")
        assert not hasattr(model.config, "auto_map")


def test_saved_and_loaded_again(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (saved["model_type"], saved["num_classes"]) == ("internimage", 10)
    assert "auto_map" not in saved
    assert "id2label" not in saved, "ten placeholders say nothing"
    with safe_open(tmp_path / "saved" / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(network_of(SMALL).state_dict())
    again, info = AutoModelForImageClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert info == NOTHING
    assert torch.equal(logits_of(again), logits_of(model))
    own = create_model(SMALL, pretrained=tmp_path / "saved").eval()
    assert torch.equal(own(IMAGES), logits_of(model))


def test_own_forms_survive_both_ways(tmp_path: Path) -> None:
    """Grey images and another stem have no official name, and class names travel too."""
    config = InternImageConfig.from_dict(SMALL.to_dict() | {"in_chans": 1, "stem_strides": (1, 1), "num_classes": 3})
    network = network_of(config)
    labels = ours.models.LabelMap(("cat", "dog", "owl"))
    model = ours.InternImageForImageClassification.from_network(network, labels)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert again.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    assert again.config.label2id["owl"] == 2
    assert again.config.to_internimage() == config
    own = create_model("internimage_femto", pretrained=tmp_path, channels=16, depths=SMALL.depths, groups=SMALL.groups)
    assert isinstance(own, InternImageClassifier)
    grey = IMAGES[:, :1]
    assert torch.equal(again(grey).logits, network(grey))


def test_networks_with_dcnv4_keep_what_was_loaded(tmp_path: Path) -> None:
    """DCNv4 starts a part of a parameter, which transformers does not guard by itself."""
    flash = {"core": "dcnv4", "normalize": "none", "core_output_bias": False, "mlp_output_bias": False}
    network = network_of(InternImageConfig.from_dict(SMALL.to_dict() | flash | {"center_feature_scale": False}))
    ours.InternImageForImageClassification.from_network(network).save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(again(IMAGES).logits, network(IMAGES))


def test_network_and_model_share_weights() -> None:
    network = network_of(SMALL)
    model = ours.InternImageForImageClassification.from_network(network, problem_type="regression")
    assert not model.training
    assert model.config.problem_type == "regression"
    assert model.head.fc.weight is network.head.fc.weight
    assert torch.equal(logits_of(model), network(IMAGES))
    with pytest.raises(ValueError, match="must be an InternImageClassifier, got InternImage"):
        ours.InternImageForImageClassification.from_network(network.backbone)


def test_new_head_for_other_classes(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForImageClassification.from_pretrained(folder, num_labels=5)
    model, info = AutoModelForImageClassification.from_pretrained(
        folder, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {key for key, *_ in info["mismatched_keys"]} == {"head.fc.weight", "head.fc.bias"}
    assert logits_of(model).shape == (2, 5)
    # As our own new heads start.
    assert 0.015 < model.head.fc.weight.std() < 0.025
    assert not model.head.fc.bias.any()
    maps = network_of(SMALL).backbone(IMAGES)
    assert torch.equal(model(IMAGES, output_hidden_states=True).hidden_states[-1], maps[-1])


@pytest.mark.usefixtures("poisoned_memory")
def test_what_a_file_lacks_starts_as_ours_does(tmp_path: Path) -> None:
    config = replace(SMALL, post_norm=True, layer_scale=0.1)
    folder = write_published(tmp_path / "partial", network_of(config))
    kept = {
        key: tensor
        for key, tensor in load_file(folder / "model.safetensors").items()
        if not re.search(r"layer_scale|dcn\.(offset|mask|input)|norm1|conv2|conv_head", key)
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert len(info["missing_keys"]) + len(kept) == len(model.state_dict())
    block, head = model.backbone.stages[2].blocks[1], model.head
    assert (block.layer_scale1 == 0.1).all()
    assert (block.layer_scale2 == 0.1).all()
    for zero in (block.dcn.offset.weight, block.dcn.mask.bias, block.norm1.bias, head.norm.running_mean):
        assert not zero.any()
    for one in (block.norm1.weight, head.norm.weight, head.norm.running_var):
        assert (one == 1).all()
    for spread in (block.dcn.input_proj.weight, model.backbone.stem.conv2.weight, head.conv.weight):
        assert 0.02 < spread.std() < 0.5
    # What was there is untouched.
    theirs = network_of(config).state_dict()
    assert all(
        torch.equal(tensor, theirs[key])
        for key, tensor in model.state_dict().items()
        if key not in info["missing_keys"]
    )


def test_sixteen_bit(folder: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    logits = logits_of(model)
    assert logits.dtype == torch.bfloat16
    exact = logits_of(AutoModelForImageClassification.from_pretrained(folder))
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def layout_with(part: str, device: str, network: torch.nn.Module) -> dict[str, str]:
    """``part`` on a device and every module beside its path on the CPU."""
    layout, path = {part: device}, ""
    for step in part.split("."):
        layout |= {path + name: "cpu" for name, _ in network.named_children() if name != step}
        network, path = network.get_submodule(step), f"{path}{step}."
    return layout


@pytest.mark.parametrize("part", ["backbone.stages.2", "backbone.stages.0.blocks.0", "head", "backbone"])
def test_parts_on_disk(folder: Path, tmp_path: Path, part: str) -> None:
    """What a large model's layout over devices does: hooks bring weights in as layers are called."""
    pytest.importorskip("accelerate")
    network = network_of(SMALL)
    model = AutoModelForImageClassification.from_pretrained(
        folder, device_map=layout_with(part, "disk", network), offload_folder=tmp_path / "offloaded"
    )
    assert {name for name, parameter in model.named_parameters() if parameter.is_meta} == {
        name for name, _ in network.named_parameters() if name.startswith(part + ".")
    }
    # Layers with hooks run one by one, not fused.
    assert relative_rms(logits_of(model), network(IMAGES)) < 1e-6


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_layout_by_size(folder: Path, tmp_path: Path, share: float) -> None:
    pytest.importorskip("accelerate")
    network = network_of(SMALL)
    room = int(share * sum(4 * parameter.numel() for parameter in network.parameters()))
    model = AutoModelForImageClassification.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": room}, offload_folder=tmp_path / "offloaded"
    )
    assert {"cpu", "disk"} == set(model.hf_device_map.values())
    assert relative_rms(logits_of(model), network(IMAGES)) < 1e-6


def test_other_models_folder_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32)).save_pretrained(tmp_path)
    expected = f"{re.escape(str(tmp_path))} holds a model of type 'vit', not 'internimage'"
    for cls in (ours.InternImageModel, ours.InternImageForImageClassification, ours.InternImageConfig):
        with pytest.raises(ValueError, match=expected):
            cls.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not an InternImage's weights"):
        create_model("internimage_femto", pretrained=tmp_path)


def test_folder_without_a_model_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="type None, not 'internimage'"):
        ours.InternImageModel.from_pretrained(tmp_path)
