"""The configuration, its two spellings, and how the Auto classes come to know it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import (
    CONFIG_MAPPING,
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    ViTConfig,
)

from internimage import InternImageConfig, LabelMap, list_models
from internimage.integrations import transformers as ours

OTHERS = {
    "nothing_usual": InternImageConfig(
        channels=24, groups=(1, 2, 3, 4), depths=(1, 2, 2, 1), mlp_ratio=2.5, offset_scale=0.5, layer_scale=0.1,
        dw_kernel_size=7, remove_center=True, head_ratio=2.0, num_classes=2, in_chans=1, stem_strides=(2, 1),
        activation="silu", drop_rate=0.1, drop_path_rate=0.3, drop_path_schedule="uniform", gradient_checkpointing=True,
    ),
    "no_classes": InternImageConfig(num_classes=0),
    "many_classes": InternImageConfig(num_classes=21841),
}  # fmt: skip
CONFIGS = {name: InternImageConfig.from_variant(name) for name in list_models()} | OTHERS


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_survive_every_way_round(name: str, tmp_path: Path) -> None:
    config = ours.InternImageConfig.from_internimage(CONFIGS[name])
    assert config.to_internimage() == CONFIGS[name]
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is ours.InternImageConfig
    assert again.to_internimage() == CONFIGS[name]
    assert again.to_json_string() == config.to_json_string()
    assert ours.InternImageConfig(**config.to_dict()).to_dict() == config.to_dict()
    assert (tmp_path / "config.json").stat().st_size < 2000, "placeholders for names tell nothing"


def test_two_names_for_one_number() -> None:
    config = ours.InternImageConfig(num_classes=7)
    assert (config.num_classes, config.num_labels, len(config.id2label)) == (7, 7, 7)
    config.num_labels = 3
    assert config.to_internimage().num_classes == config.num_classes == 3
    assert ours.InternImageConfig(num_labels=4).num_classes == 4
    assert ours.InternImageConfig(num_channels=1).to_internimage().in_chans == 1
    assert ours.InternImageConfig().num_labels == 1000


def test_class_names(tmp_path: Path) -> None:
    architecture = InternImageConfig(num_classes=2)
    config = ours.InternImageConfig.from_internimage(architecture, LabelMap(("cat", "dog")))
    assert (config.id2label, config.label2id) == ({0: "cat", 1: "dog"}, {"cat": 0, "dog": 1})
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).id2label == config.id2label
    assert AutoConfig.from_pretrained(tmp_path, num_labels=5).num_classes == 5
    with pytest.raises(ValueError, match="id2label names 2 classes, but num_classes is 1000"):
        ours.InternImageConfig.from_internimage(InternImageConfig(), LabelMap(("cat", "dog")))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"groups": [4, 8, 16, 3]}, "3 groups do not divide 512 channels"),
        ({"core_op": "DCNv2"}, "core_op 'DCNv2' is not supported"),
        ({"act_layer": "Mish"}, "activation must be one of"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be in"),
        ({"out_features": ["stage5"]}, "out_features must be a subset"),
    ],
)
def test_settings_that_make_no_network(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ours.InternImageConfig(**settings)


def test_settings_of_another_type() -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="channels"):
        ours.InternImageConfig(channels="64")


def test_stages() -> None:
    config = ours.InternImageConfig()
    assert config.stage_names == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert config.hidden_sizes == [64, 128, 256, 512]
    assert (config.out_features, config.out_indices) == (["stage4"], [4])
    config.out_indices = (1, 3)
    assert config.out_features == ["stage1", "stage3"]
    config.channels = 32
    assert config.hidden_sizes[0] == config.to_internimage().channels == 32


def test_every_auto_class_knows_us_once_and_twice() -> None:
    for _ in range(2):
        ours.register()
        config = AutoConfig.for_model("internimage", channels=16, depths=[1, 1, 1, 1], groups=[1, 2, 4, 8])
        made = [cls.from_config(config) for cls in (AutoModel, AutoModelForImageClassification, AutoBackbone)]
        expected = [ours.InternImageModel, ours.InternImageForImageClassification, ours.InternImageBackbone]
        assert [type(model) for model in made] == expected


def test_name_taken_by_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """One day transformers may have an InternImage of its own."""
    theirs = type("InternImageConfig", (ViTConfig,), {"model_type": "internimage", "__module__": "transformers.models"})
    monkeypatch.setitem(CONFIG_MAPPING._extra_content, "internimage", theirs)
    with pytest.raises(ValueError, match=r"another model of type 'internimage' \(transformers.models.InternImageConf"):
        ours.register()
    assert CONFIG_MAPPING["internimage"] is theirs
    ours.register(replace=True)
    assert CONFIG_MAPPING["internimage"] is ours.InternImageConfig


def test_same_architecture_same_start() -> None:
    """transformers starts our weights as we do: DCNv3's offsets and modulations from zero, for one."""
    config = ours.InternImageConfig.from_internimage(
        replace(OTHERS["nothing_usual"], in_chans=3), num_labels=4, id2label=None
    )
    model = AutoModelForImageClassification.from_config(config)
    block = model.backbone.stages[0].blocks[0]
    assert not any(part.any() for layer in (block.dcn.offset, block.dcn.mask) for part in layer.parameters())
    assert 0.015 < block.mlp.fc1.weight.std() < 0.025
    assert block.dcn.input_proj.weight.std() > 0.1
    assert (block.layer_scale1 == 0.1).all()
    assert model.backbone.stem.conv1.bias.any()


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_without_transformers() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import internimage.integrations\n"
        "try: import internimage.integrations.transformers\n"
        "except ImportError as error: print(error)\n"
    )
    assert "pip install internimage-torch[transformers]" in run(code)


def test_the_package_alone_does_not_import_it() -> None:
    assert run("import sys, internimage.integrations; print('transformers' in sys.modules)") == "False\n"
