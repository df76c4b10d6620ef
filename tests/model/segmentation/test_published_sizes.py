"""Parameters and cost of the released segmenters, counted by PyTorch on the meta device.

Cost as there: of the network up to its scores, for 512 x 2048 pixels (640 x 2560 for L and XL, 896 x 896 for H), or
1024 x 2048 for street scenes. Source: segmentation/get_flops.py of the released code, 31c962d, and the model tables in
segmentation/configs. Parameters: the official networks' own, built from their configurations.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers")

from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig

# (variant, settings), parameters: of the backbone, the head, the auxiliary head.
PARAMETERS: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("t", {}, (28_769_520, 29_678_742, 628_886)),
    ("s", {}, (48_502_560, 30_588_054, 776_342)),
    ("b", {}, (94_909_920, 32_406_678, 1_071_254)),
    ("l", {}, (218_952_370, 35_134_614, 1_513_622)),
    ("xl", {}, (328_971_228, 36_953_238, 1_808_534)),
    ("h", {}, (1_073_122_480, 44_227_734, 2_988_182)),
    ("g", {}, (3_052_781_184, 55_139_478, 4_757_654)),
    # Released for Mapillary and for Cityscapes, both with 150 classes.
    ("l", {"head": "segformer"}, (218_952_370, 917_654, 0)),
    # For Mapillary and for Cityscapes.
    ("xl", {"head": "segformer"}, (328_971_228, 1_040_534, 0)),
    # ADE20K, and Cityscapes.
    ("h", {"head": "mask2former", "channels": 1024}, (1_073_122_480, 240_373_655, 0)),
    ("h", {"head": "mask2former", "num_classes": 19}, (1_073_122_480, 20_745_428, 0)),
]
MULTIPLY_ADDS: list[tuple[str, dict[str, Any], tuple[int, int], int]] = [
    ("t", {}, (512, 2048), 944),
    ("s", {}, (512, 2048), 1017),
    ("b", {}, (512, 2048), 1185),
    ("l", {}, (640, 2560), 2526),
    ("xl", {}, (640, 2560), 3142),
    ("h", {}, (896, 896), 3566),
    ("l", {"head": "segformer"}, (1024, 2048), 1580),
]


def name(value: Any) -> str | None:
    if isinstance(value, dict):
        return "-".join(map(str, value.values())) or "upernet"
    return "x".join(map(str, value)) if isinstance(value, tuple) else None


def build(variant: str, settings: dict[str, Any]) -> InternImageSegmenter:
    with torch.device("meta"):
        return InternImageSegmenter(SegmenterConfig.from_variant(variant, **settings)).eval()


@pytest.mark.parametrize(("variant", "settings", "wanted"), PARAMETERS, ids=name)
def test_parameters_are_the_official_ones(variant: str, settings: dict[str, Any], wanted: tuple[int, int, int]) -> None:
    segmenter = build(variant, settings)
    auxiliary = segmenter.auxiliary_head or torch.nn.Identity()
    parts = (segmenter.backbone, segmenter.decode_head, auxiliary)
    assert tuple(sum(each.numel() for each in part.parameters()) for part in parts) == wanted
    assert all(each.is_meta for each in segmenter.parameters())


@pytest.mark.parametrize(("variant", "settings", "size", "wanted"), MULTIPLY_ADDS, ids=name)
def test_multiply_adds_are_the_published_ones(
    variant: str, settings: dict[str, Any], size: tuple[int, int], wanted: int
) -> None:
    segmenter = build(variant, settings)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        segmenter(torch.empty(1, 3, *size, device="meta"))
    counted = counter.get_total_flops() / 2
    if segmenter.config.head == "segformer":
        # Three of the four maps that the released code joins at a quarter of the size are smaller when ours joins them.
        joining = (size[0] // 4) * (size[1] // 4) * segmenter.config.channels**2
        counted += joining * (3 - 1 / 4 - 1 / 16 - 1 / 64)
    assert counted / 1e9 == pytest.approx(wanted, rel=0.002)
