"""Segmenters against the released ones under mmsegmentation: the same weights give the same scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

pytest.importorskip("transformers")

from internimage.model.segmentation.mask2former import Mask2FormerHead
from support.compare import TOLERANCE, relative_rms
from support.official_segmenters import HEADS, Official, read

pytestmark = pytest.mark.shared

LIMIT = TOLERANCE["golden"][0]


@pytest.fixture(scope="module", params=HEADS.values())
def official(request: pytest.FixtureRequest, golden: Path) -> Official:
    return read(golden / f"segmentation/{request.param}.safetensors")


# A picture whose sides are multiples of 32, and a batch of two whose sides are none.
@pytest.mark.parametrize("case", ["", "odd."])
@torch.inference_mode()
def test_features_and_scores(official: Official, case: str) -> None:
    segmenter, tensors = official.segmenter, official.tensors
    what = "scores" if segmenter.config.head == "mask2former" else "logits"
    image = tensors[f"{case}input_NCHW"]
    maps = segmenter.backbone(image)
    for stage, map_NCHW in enumerate(maps):
        assert relative_rms(map_NCHW, tensors[f"{case}features.{stage}_NCHW"]) < LIMIT
    scores = segmenter(image)
    assert relative_rms(scores, tensors[f"{case}head_{what}"]) < LIMIT
    final = functional.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)
    assert relative_rms(final, tensors[f"{case}final_{what}"]) < LIMIT
    if case:
        return
    # Where the best class leads by a thousandth; elsewhere float32 may say either.
    first, second = final.topk(2, 1).values.unbind(1)
    clear = first - second > 1e-3
    assert clear.float().mean() > 0.99
    assert torch.equal(final.argmax(1)[clear], tensors["argmax"][clear])
    if segmenter.auxiliary_head is not None:
        assert relative_rms(segmenter.auxiliary_head(maps), tensors["aux_logits"]) < LIMIT


@torch.inference_mode()
def test_every_layer_of_mask2former(golden: Path) -> None:
    official = read(golden / "segmentation/mask2former.safetensors")
    segmenter, tensors = official.segmenter, official.tensors
    head = segmenter.decode_head
    assert isinstance(head, Mask2FormerHead)
    maps = segmenter.backbone(tensors["input_NCHW"])
    pixels = head.pixel_decoder(maps)
    for level, map_NCHW in enumerate(pixels.multi_scale_features):
        assert relative_rms(map_NCHW, tensors[f"pixel_decoder.multi_scale_features.{level}"]) < LIMIT
    assert relative_rms(pixels.mask_features, tensors["pixel_decoder.mask_feature"]) < LIMIT
    answers = head.answers(maps)
    assert len(answers.classes) == len(answers.masks) == segmenter.config.decoder_layers + 1
    for layer, (classes, masks) in enumerate(zip(answers.classes, answers.masks, strict=True)):
        assert relative_rms(classes, tensors[f"class_logits.{layer}"]) < LIMIT
        assert relative_rms(masks, tensors[f"mask_logits.{layer}"]) < LIMIT
    (last,) = head.answers(maps, last=True).masks
    assert torch.equal(last, answers.masks[-1])
