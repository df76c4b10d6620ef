"""Every key and every shape of the released segmenters, in both directions, and what is read off them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from internimage import InternImageConfig, create_model
from internimage.model.checkpoints.convert import to_ours
from internimage.model.checkpoints.files import Checkpoint
from internimage.model.checkpoints.segmenter_files import described, holds_segmenter
from internimage.model.checkpoints.segmenters import from_mmsegmentation, to_mmsegmentation
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.model.weights import SEGMENTERS

RELEASED = {
    **{f"upernet_internimage_{short}": SegmenterConfig.from_variant(short) for short in ("t", "s", "b", "l", "xl")},
    **{f"upernet_internimage_{short}": SegmenterConfig.from_variant(short) for short in ("h", "g")},
    "segformer_internimage_l_mapillary": SegmenterConfig.from_variant("l", head="segformer"),
    "segformer_internimage_l_cityscapes": SegmenterConfig.from_variant("l", head="segformer"),
    "segformer_internimage_xl_mapillary": SegmenterConfig.from_variant("xl", head="segformer"),
    "mask2former_internimage_h_ade20k": SegmenterConfig.from_variant("h", head="mask2former", channels=1024),
    "mask2former_internimage_h_cityscapes": SegmenterConfig.from_variant("h", head="mask2former", num_classes=19),
}


@cache
def listed(golden: Path) -> dict[str, dict[str, list[int]]]:
    return json.loads((golden / "segmentation/official_segmenter_state_dicts.json").read_text())


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: each.shape for key, each in state.items()}


@pytest.mark.shared
def test_all_released_networks_are_looked_at(golden: Path) -> None:
    assert set(listed(golden)) == set(RELEASED)


@pytest.mark.shared
@pytest.mark.parametrize("name", RELEASED)
def test_every_weight_is_used_once_and_has_its_shape(name: str, golden: Path) -> None:
    theirs = {key: torch.empty(shape, device="meta") for key, shape in listed(golden)[name].items()}
    with torch.device("meta"):
        ours = InternImageSegmenter(RELEASED[name]).state_dict()
    converted = from_mmsegmentation(theirs)
    assert (converted.foreign, converted.origin) == ((), "official")
    assert shapes(converted.state) == shapes(ours)
    assert shapes(to_mmsegmentation(converted.state)) == shapes(theirs)


@pytest.mark.shared
@pytest.mark.parametrize("name", RELEASED)
def test_the_architecture_is_read_off_the_weights(name: str, golden: Path) -> None:
    theirs = {key: torch.empty(shape, device="meta") for key, shape in listed(golden)[name].items()}
    found = to_ours(theirs)
    others = {key: theirs[key] for key in found.foreign}
    checkpoint = Checkpoint(found.state, None, found.foreign, found.origin, Path("x.pth"), others)
    assert holds_segmenter(checkpoint)
    card, _ = described(checkpoint)
    wanted = RELEASED[name]
    # Where a layer scale begins shows in no trained weight.
    assert replace(card.config, layer_scale=wanted.backbone.layer_scale) == wanted.backbone
    settings = {key: each for key, each in card.settings.items() if key not in ("viewing", "palette")}
    assert SegmenterConfig(wanted.backbone, **settings) == wanted


def test_queries_keys_and_values_are_one_tensor_there() -> None:
    tiny = SegmenterConfig(
        InternImageConfig.from_variant("femto", num_classes=0),
        num_classes=3,
        head="mask2former",
        channels=32,
        encoder_layers=1,
        decoder_layers=1,
        heads=4,
        encoder_feedforward=8,
        decoder_feedforward=8,
    )
    state = InternImageSegmenter(tiny).state_dict()
    theirs = to_mmsegmentation(state)
    attention = "decode_head.transformer_module.decoder.layers.0.self_attn."
    packed = theirs["decode_head.transformer_decoder.layers.0.attentions.1.attn.in_proj_weight"]
    assert torch.equal(packed, torch.cat([state[f"{attention}{name}_proj.weight"] for name in "qkv"]))
    back = from_mmsegmentation(theirs).state
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_other_weights_are_refused() -> None:
    backbone = create_model(InternImageConfig.from_variant("femto"), features_only=True).state_dict()
    with pytest.raises(ValueError, match="hold no segmentation head"):
        from_mmsegmentation(backbone)
    with pytest.raises(ValueError, match=r"no name in mmsegmentation: decode_head\.extra"):
        to_mmsegmentation({"decode_head.extra": torch.zeros(1)})
    extra = "decode_head.image_pool.1.conv.weight"
    whole = {f"backbone.{key}": each for key, each in backbone.items()}
    converted = from_mmsegmentation(whole | {"decode_head.conv_seg.weight": torch.zeros(1), extra: torch.zeros(1)})
    assert converted.foreign == (extra,)


def test_published_rows() -> None:
    # 26 on InternImage, 8 on FlashInternImage.
    assert len(SEGMENTERS) == len({row.file for row in SEGMENTERS.values()}) == 34
    row = SEGMENTERS["mask2former_internimage_h_ade20k_896"]
    assert row.url.endswith(
        "/OpenGVLab/InternImage/resolve/main/mask2former_internimage_h_896_80k_cocostuff2ade20k.pth"
    )
    assert (row.miou, row.miou_multi_scale, row.crop, row.viewing.frame) == (62.6, 62.9, (896, 896), (896, 3584))
    street = SEGMENTERS["mask2former_internimage_h_cityscapes_1024"].viewing
    assert (street.frame, street.window, street.stride) == ((1024, 2048), (1024, 1024), (512, 512))
    for name, row in SEGMENTERS.items():
        head, variant = re.fullmatch(r"([a-z0-9]+)_((?:flash_)?internimage_[a-z]+)_.+", name).groups()
        assert row.file.startswith(f"{head}_{variant}_")
        assert re.fullmatch(r".+_\d+(x\d+)?", name)
        assert row.name == name
