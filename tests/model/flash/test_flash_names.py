"""Every key and every shape of the released FlashInternImages, both ways, exact sizes, and which network they are."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from internimage import InternImageConfig, create_model
from internimage.model import Checkpoint, infer_config
from internimage.model.checkpoints.convert import to_huggingface, to_official, to_ours
from internimage.model.checkpoints.segmenter_files import described
from internimage.model.checkpoints.segmenters import from_mmsegmentation, to_mmsegmentation
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.model.weights import SEGMENTERS

PARAMETERS = {"t": 29_815_528, "s": 50_067_496, "b": 97_448_960, "l": 223_297_080}
# Their configuration without a softmax in Mask2Former's encoder has the keys of the one with it.
SEGMENTERS_OF = [*((head, letter) for head in ("upernet", "mask2former") for letter in "tsbl")]


@cache
def listed(golden: Path, name: str) -> dict[str, dict[str, list[int]]]:
    return json.loads((golden / "flash" / f"official_flash_{name}.json").read_text())


def tensors(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(each.shape) for key, each in state.items()}


@pytest.mark.parametrize("letter", PARAMETERS)
def test_parameters(letter: str) -> None:
    with torch.device("meta"):
        model = create_model(f"flash_internimage_{letter}")
    assert sum(each.numel() for each in model.parameters()) == PARAMETERS[letter]


@pytest.mark.shared
@pytest.mark.parametrize("letter", PARAMETERS)
def test_classifiers(letter: str, golden: Path) -> None:
    theirs = listed(golden, "state_dicts")[f"flash_intern_image_{letter}"]
    with torch.device("meta"):
        ours = create_model(f"flash_internimage_{letter}").state_dict()
    converted = to_ours(tensors(theirs))
    assert (converted.foreign, converted.origin) == ((), "official")
    assert shapes(converted.state) == shapes(ours)
    assert shapes(to_official(converted.state)) == theirs
    assert shapes(to_ours(to_huggingface(ours)).state) == shapes(ours)
    found = Checkpoint(converted.state, None, (), "official", Path("official.pth"))
    assert infer_config(found) == InternImageConfig.from_variant(f"flash_{letter}")


@pytest.mark.shared
def test_all_released_segmenters_are_looked_at(golden: Path) -> None:
    names = {row.file.removesuffix(".pth") for row in SEGMENTERS.values() if "flash" in row.name}
    assert len(names) == len(SEGMENTERS_OF) == 8
    lists = listed(golden, "segmenter_state_dicts")
    assert set(lists) - names == {"mask2former_flash_internimage_s_640_160k_ade20k_ss_nsmx"}
    small = next(lists[name] for name in names if name.startswith("mask2former_flash_internimage_s"))
    assert lists["mask2former_flash_internimage_s_640_160k_ade20k_ss_nsmx"] == small


@pytest.mark.shared
@pytest.mark.parametrize(("head", "letter"), SEGMENTERS_OF)
def test_segmenters(head: str, letter: str, golden: Path) -> None:
    start = f"{head}_flash_internimage_{letter}_"
    theirs = next(keys for name, keys in listed(golden, "segmenter_state_dicts").items() if name.startswith(start))
    wanted = SegmenterConfig.from_variant(f"flash_{letter}", head=head)
    with torch.device("meta"):
        ours = InternImageSegmenter(wanted).state_dict()
    state = tensors(theirs)
    converted = from_mmsegmentation(state)
    assert (converted.foreign, converted.origin) == ((), "official")
    assert shapes(converted.state) == shapes(ours)
    assert shapes(to_mmsegmentation(converted.state)) == theirs
    backbone = to_ours(state)
    others = {key: state[key] for key in backbone.foreign}
    card, _ = described(Checkpoint(backbone.state, None, backbone.foreign, "official", Path("x.pth"), others))
    # Where a layer scale begins shows in no trained weight; that of a segmenter is 1.
    scale = InternImageConfig.from_variant(f"flash_{letter}").layer_scale or 1.0
    assert card.config.layer_scale == scale
    assert card.config.core == "dcnv4"
    assert (card.settings["channels"], card.settings["queries"]) == (wanted.channels, wanted.queries)
    assert card.settings["encoder_feedforward"] == wanted.encoder_feedforward
