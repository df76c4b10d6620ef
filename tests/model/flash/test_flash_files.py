"""Files of FlashInternImage: what its configurations say, its detectors' pyramid, plain words where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from internimage import InternImageConfig, create_model, load_checkpoint
from internimage.model.checkpoints.convert import to_official
from internimage.model.checkpoints.detector_files import load_detector, save_detector
from internimage.model.checkpoints.detectors import to_mmdetection
from internimage.model.checkpoints.segmenter_files import load_segmenter, official_contents
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from support import mmsegmentation
from support.compare import relative_rms
from support.mmdetection import changed, text_of, write_pth

TINY = InternImageConfig.from_variant(
    "flash_s", channels=16, depths=(1, 1, 2, 1), groups=(2, 2, 4, 8), num_classes=0, offset_scale=0.5, layer_scale=1.0
)
DETECTOR = DetectorConfig(TINY, num_classes=3, fpn_channels=16, fpn_norm=True, head_channels=32)


@pytest.fixture(scope="module")
def detector() -> InternImageDetector:
    torch.manual_seed(0)
    return InternImageDetector(DETECTOR).eval()


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def said(**neck: Any) -> str:
    """A released detector's configuration: the pyramid of ViTDet, and defaults that the constructor knows."""
    arguments = {name: value for name, value in TINY.to_official().items() if name != "num_classes"}
    for name in ("core_op", "offset_scale", "dcn_output_bias", "mlp_fc2_bias"):
        del arguments[name]
    config = changed("model.backbone", {"type": "FlashInternImage", **arguments, "out_indices": (0, 1, 2, 3)})
    config["model"]["neck"] |= {"type": "FPN_vitdet", "norm_cfg": {"type": "LN", "requires_grad": True}, **neck}
    return text_of(config)


def test_a_detector_as_its_configuration_says(detector: InternImageDetector, tmp_path: Path) -> None:
    loaded = load_detector(write_pth(detector, tmp_path / "x.pth", config=said(use_residual=True)))
    assert loaded.model.config == DETECTOR
    assert same(loaded.model.state_dict(), detector.state_dict())
    names = to_mmdetection(detector.state_dict())
    assert {"neck.lateral_convs.0.ln.weight", "neck.fpn_convs.3.ln.bias"} <= names.keys()
    assert "neck.lateral_convs.0.conv.bias" not in names
    again = load_detector(save_detector(loaded.model, tmp_path / "x.safetensors"))
    assert again.model.config == DETECTOR
    with pytest.raises(ValueError, match=r"made with model\.neck\.use_residual=False"):
        load_detector(write_pth(detector, tmp_path / "y.pth", config=said(use_residual=False)))


@torch.no_grad()
def test_the_pyramid_written_out(detector: InternImageDetector) -> None:
    """Every convolution without bias, then a normalisation of the channels at every position; sums go down as usual."""
    generator = torch.Generator().manual_seed(1)
    for parameter in detector.fpn.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    state = to_mmdetection(detector.state_dict())

    def conv(x: Tensor, name: str, padding: int) -> Tensor:
        x = F.conv2d(x, state[f"neck.{name}.conv.weight"], padding=padding)
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        weight, bias = (state[f"neck.{name}.ln.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    image = torch.rand(1, 3, 64, 96, generator=generator)
    below = None
    expected: list[Tensor] = []
    for level, each in reversed(list(enumerate(detector.backbone(image)))):
        lateral = conv(each, f"lateral_convs.{level}", 0)
        if below is not None:
            lateral = lateral + F.interpolate(below, size=lateral.shape[2:], mode="nearest")
        below = lateral
        expected.insert(0, conv(lateral, f"fpn_convs.{level}", 1))
    found = detector.pyramid(image)
    for mine, theirs in zip(found, [*expected, expected[-1][:, :, ::2, ::2]], strict=True):
        assert relative_rms(mine, theirs) < 2e-6


def test_released_detectors_are_built_so() -> None:
    assert [DetectorConfig.from_variant(f"flash_{letter}").stages for letter in "tsbl"] == [1, 1, 1, 3]
    config = DetectorConfig.from_variant("flash_internimage_t")
    assert (config.fpn_norm, config.backbone.layer_scale) == (True, 1.0)
    assert not DetectorConfig.from_variant("t").fpn_norm


def test_a_segmenter_there_and_back(tmp_path: Path) -> None:
    config = SegmenterConfig(replace(TINY, core_output_bias=True, mlp_output_bias=True), 3, "segformer", 16)
    segmenter = InternImageSegmenter(config)
    contents = official_contents(segmenter)
    assert "'type': 'FlashInternImage', " in contents["meta"]["config"]
    torch.save(contents, tmp_path / "x.pth")
    loaded = load_segmenter(tmp_path / "x.pth")
    assert loaded.model.config == config
    assert same(loaded.model.state_dict(), segmenter.state_dict())


def test_an_encoder_without_softmax_is_refused() -> None:
    """Its file has the same keys, and would mean something else."""
    from internimage.model.checkpoints.mmsegmentation import rules_of
    from internimage.structures import Viewing

    attention = "model.decode_head.pixel_decoder.encoder.transformerlayers.attn_cfgs.use_softmax"
    meta = mmsegmentation.said_of("mask2former", {attention: False})
    with pytest.raises(ValueError, match=r"attn_cfgs\.use_softmax=False, and a segmenter here follows True only"):
        rules_of(meta, "x.pth", "mask2former", 150, Viewing())


def test_one_operators_weights_are_not_the_others(tmp_path: Path) -> None:
    flash = create_model(TINY, features_only=True)
    torch.save({"model": to_official(flash.state_dict())}, tmp_path / "flash.pth")
    plain = create_model(replace(TINY, core="dcnv3", normalize="softmax", center_feature_scale=True))
    with pytest.raises(
        ValueError, match=r"holds a FlashInternImage of 16 channels.* but the model is an InternImage of"
    ):
        load_checkpoint(plain.backbone, tmp_path / "flash.pth")
    torch.save({"model": to_official(plain.state_dict())}, tmp_path / "plain.pth")
    with pytest.raises(ValueError, match=r"holds an InternImage of 16 channels.* but the model is a FlashInternImage"):
        load_checkpoint(flash, tmp_path / "plain.pth")


def test_middle_points_are_dropped(tmp_path: Path) -> None:
    """Two groups of nine points are 54 rows, filled up to 56; of eight points, 48."""
    flash = create_model(TINY, features_only=True)
    for parameter in flash.parameters():
        torch.nn.init.normal_(parameter)
    torch.save({"model": to_official(flash.state_dict())}, tmp_path / "x.pth")
    hollow = create_model(TINY, features_only=True, remove_center=True)
    report = load_checkpoint(hollow, tmp_path / "x.pth")
    assert report.notes == ("the middle sampling point was removed from 10 tensors",)
    kept = [row for row in range(54) if row % 27 not in (8, 9, 22)]
    theirs, ours = (model.stages[0].blocks[0].dcn.offset_mask for model in (flash, hollow))
    assert torch.equal(ours.weight, theirs.weight[kept])
    assert torch.equal(ours.bias, theirs.bias[kept])
    torch.save({"model": to_official(hollow.state_dict())}, tmp_path / "hollow.pth")
    again = create_model(hollow.config, features_only=True)
    load_checkpoint(again, tmp_path / "hollow.pth")
    assert same(again.state_dict(), hollow.state_dict())
