"""Every key and every shape of the official networks, in both directions, and their exact parameter counts.

All on the meta device: names and shapes need no memory, not even those of three billion parameters.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from internimage import InternImageClassifier, InternImageConfig, create_model
from internimage.model import Checkpoint, infer_config
from internimage.model.checkpoints.convert import to_huggingface, to_official, to_ours

Shapes = dict[str, tuple[int, ...]]
VARIANTS = ["t", "s", "b", "l", "xl", "h", "g"]
# Whole classifier with 1,000 classes, backbone alone.
PARAMETERS = {
    "t": (29_918_424, 28_754_672),
    "s": (50_079_880, 48_502_560),
    "b": (97_461_832, 94_909_920),
    "l": (223_334_810, 218_952_370),
    "xl": (334_819_780, 328_971_228),
    "h": (1_089_636_760, 1_073_122_480),
    "g": (3_076_373_352, 3_052_781_184),
}
PARAMETERS_IN22K = {"l": 263_370_371, "xl": 382_858_285, "h": 1_105_663_489, "g": 3_092_400_081}
LISTS = {
    "detection": ("detection/official_detector_state_dicts.json", "backbone."),
    "segmentation": ("segmentation/official_segmenter_state_dicts.json", "backbone."),
}


@pytest.fixture(scope="module")
def official(golden: Path) -> dict[str, Shapes]:
    return read_lists(golden / "official_state_dicts.json")


def read_lists(path: Path) -> dict[str, Shapes]:
    lists = json.loads(path.read_text())
    return {name: {key: tuple(shape) for key, shape in entries.items()} for name, entries in lists.items()}


@cache
def on_meta(name: str, **settings: object) -> InternImageClassifier:
    with torch.device("meta"):
        model = create_model(name, **settings)
    assert isinstance(model, InternImageClassifier)
    return model


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes(state: dict[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts(variant: str) -> None:
    model = on_meta(f"internimage_{variant}")
    assert (num_parameters(model), num_parameters(model.backbone)) == PARAMETERS[variant]
    with torch.device("meta"):
        backbone = create_model(f"internimage_{variant}", features_only=True)
    assert num_parameters(backbone) == PARAMETERS[variant][1]


@pytest.mark.parametrize("variant", PARAMETERS_IN22K)
def test_parameter_counts_with_21841_classes(variant: str) -> None:
    assert num_parameters(on_meta(f"internimage_{variant}", num_classes=21841)) == PARAMETERS_IN22K[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_weights_have_every_official_name_and_shape(variant: str, official: dict[str, Shapes]) -> None:
    assert shapes(to_official(on_meta(variant).state_dict())) == official[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_weights_have_every_name_and_shape_of_ours(variant: str, official: dict[str, Shapes]) -> None:
    converted = to_ours(tensors(official[variant]))
    assert shapes(converted.state) == shapes(on_meta(variant).state_dict())
    assert (converted.foreign, converted.origin) == ((), "official")


@pytest.mark.parametrize("variant", VARIANTS)
def test_hugging_face_names(variant: str, official: dict[str, Shapes]) -> None:
    theirs = {
        "model." + key.replace(".gamma1", ".layer_scale1").replace(".gamma2", ".layer_scale2"): shape
        for key, shape in official[variant].items()
    }
    own = on_meta(variant).state_dict()
    assert shapes(to_huggingface(own)) == theirs
    converted = to_ours(tensors(theirs))
    assert shapes(converted.state) == shapes(own)
    assert (converted.foreign, converted.origin) == ((), "huggingface")


@pytest.mark.parametrize("variant", VARIANTS)
def test_backbone_alone_has_official_names(variant: str, official: dict[str, Shapes]) -> None:
    heads = ("conv_head.", "head.", "dcnv3_head_x", "clip_projector.", "fc_norm.")
    expected = {key: shape for key, shape in official[variant].items() if not key.startswith(heads)}
    assert shapes(to_official(on_meta(variant).backbone.state_dict())) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variant_is_recognised_by_its_shapes(variant: str, official: dict[str, Shapes]) -> None:
    converted = to_ours(tensors(official[variant]))
    found = Checkpoint(converted.state, None, converted.foreign, converted.origin, Path("official.pth"))
    assert infer_config(found) == InternImageConfig.from_variant(variant)


@pytest.mark.parametrize("task", LISTS)
def test_backbones_of_detectors_and_segmenters(task: str, golden: Path) -> None:
    """Their keys become our backbone's with nothing missing; necks and heads stay outside."""
    path, prefix = LISTS[task]
    checked = 0
    for name, entries in read_lists(golden / path).items():
        if "cbinternimage" in name:
            with pytest.raises(ValueError, match=r"2 InternImages, under .*cb_modules\.0\., .*cb_modules\.1\."):
                to_ours(tensors(entries))
            continue
        variant = next(part for part in name.split("_") if part in VARIANTS)
        converted = to_ours(tensors(entries))
        # Their configurations put layer_scale=1.0 on T as well.
        scale = {"layer_scale": 1.0} if any(key.endswith("gamma1") for key in entries) else {}
        expected = on_meta(variant, **scale).backbone.state_dict()
        assert shapes(converted.state) == {f"backbone.{key}": shape for key, shape in shapes(expected).items()}, name
        assert set(converted.foreign) == {key for key in entries if not key.startswith(prefix)}, name
        found = Checkpoint(converted.state, None, converted.foreign, converted.origin, Path("official.pth"))
        inferred = infer_config(found)
        assert (inferred.channels, inferred.num_classes) == (expected["stem.conv2.weight"].shape[0], 0), name
        assert (inferred.layer_scale is None) == (not scale), name
        checked += 1
    assert checked >= 8


def test_names_without_an_official_counterpart_are_refused() -> None:
    state = on_meta("femto").state_dict()
    with pytest.raises(ValueError, match=r"no official name: backbone\.extra"):
        to_official(state | {"backbone.extra": torch.zeros(1)})


@pytest.mark.parametrize(
    "keys", [[], ["layer1.0.conv1.weight", "fc.weight"], ["patch_embed.proj.weight", "blocks.0.norm1.weight"]]
)
def test_other_networks_are_recognised_as_such(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="not an InternImage's weights"):
        to_ours({key: torch.zeros(1) for key in keys})
