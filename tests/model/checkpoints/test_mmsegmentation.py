"""Files of mmsegmentation: the released segmenters' weights, and the configuration inside, followed or refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from internimage import InternImageConfig, LabelMap
from internimage.model.checkpoints.mmsegmentation import STREET, Head, Rules, rules_of
from internimage.model.checkpoints.segmenter_files import load_segmenter
from internimage.model.checkpoints.segmenters import to_mmsegmentation
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import Viewing
from support.mmdetection import text_of
from support.mmsegmentation import said_of, write_pth

USUAL = Viewing((1024, 2048))
FEMTO = InternImageConfig.from_variant("femto", num_classes=0)
ANT, HACK = ("ant", "bee", "cow"), [{"type": "LoadAnnotations"}, {"type": "MapillaryHack"}]


def rules(head: Head, changes: dict[str, Any] | None = None, classes: int = 3, **meta: Any) -> Rules:
    return rules_of(said_of(head, changes, **meta), "x.pth", head, classes, USUAL)


@pytest.fixture(scope="module")
def network() -> InternImageSegmenter:
    torch.manual_seed(0)
    return InternImageSegmenter(SegmenterConfig(FEMTO, 21, "segformer", 16))


class TestPictures:
    def test_as_released(self) -> None:
        wanted = Viewing((512, 2048), 32)
        assert (rules("upernet").viewing, rules("segformer").viewing) == (wanted, wanted)
        assert rules("mask2former").viewing == Viewing((512, 2048), 32, (1024, 1024), (512, 512))

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"test_pipeline.1.img_scale": (520, 4096)}, Viewing((520, 4096), 32)),
            ({"test_pipeline.1.img_scale": [(2048, 1024)]}, Viewing((1024, 2048), 32)),
            ({"test_pipeline.1.img_scale": None, "test_pipeline.1.img_ratios": [1.0]}, Viewing(None, 32)),
            ({"test_pipeline.1.transforms.1": {"type": "RandomFlip"}}, Viewing((512, 2048))),
            ({"test_pipeline.1.transforms.1": {"type": "ResizeToMultiple"}}, Viewing((512, 2048), 32)),
            ({"data.test.pipeline": [{"type": "Resize", "img_scale": (64, 48)}]}, Viewing((48, 64))),
            ({"model.test_cfg": {"mode": "slide", "crop_size": (96, 64), "stride": (48, 32)}},
             Viewing((512, 2048), 32, (96, 64), (48, 32))),
            ({"test_pipeline.1.transforms.3": {"type": "Normalize", "mean": [127.5, 102.0, 51.0], "std": [51.0] * 3}},
             Viewing((512, 2048), 32, mean=(0.5, 0.4, 0.2), std=(0.2, 0.2, 0.2))),
        ],
    )  # fmt: skip
    def test_as_it_says(self, changes: dict[str, Any], wanted: Viewing) -> None:
        assert rules("upernet", changes).viewing == wanted

    def test_several_looks(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "internimage"):
            changes = {"test_pipeline.1.img_ratios": [0.5, 1.0], "test_pipeline.1.flip": True}
            assert rules("upernet", changes).viewing == Viewing((512, 2048), 32)
        assert "x.pth was tested at several sizes or mirrored; here it looks at a picture once" in caplog.text

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"test_pipeline.1.transforms.0.keep_ratio": False}, "Resize.keep_ratio=False, .* follows True only"),
            ({"test_pipeline.1.transforms.0.min_size": 512}, "Resize.min_size=512, .* follows None only"),
            ({"test_pipeline.1.transforms.3.to_rgb": False}, "Normalize.to_rgb=False, .* follows True only"),
            ({"test_pipeline.1.transforms.3.mean": 3}, "a Normalize that can't be read"),
            (
                {"test_pipeline.1.transforms.2": {"type": "Pad", "size_divisor": 32}},
                "Pad.size_divisor=32, .* None only",
            ),
            ({"model.test_cfg.mode": "panoptic"}, "mode=panoptic, .* follows whole and slide only"),
            ({"model.test_cfg": {"mode": "slide", "crop_size": 9}}, "can't be shown so here: window must be two"),
            ({"test_pipeline.1.transforms.1.size_divisor": 0}, "can't be shown so here: multiple must be"),
        ],
    )
    def test_another_preparation_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=rf"^x\.pth was tested .*{message}"):
            rules("upernet", changes)


class TestRules:
    def test_settings(self) -> None:
        changes = {"model.decode_head.dropout_ratio": 0.2, "model.decode_head.pool_scales": (1, 2)}
        assert rules("upernet", changes).settings == {"dropout": 0.2, "pool_scales": (1, 2), "auxiliary_weight": 0.4}
        assert rules("segformer").settings == {"dropout": 0.1}
        assert rules("mask2former", {"model.train_cfg.num_points": 99}).settings == {"points": 99}
        assert rules("upernet", {"model.backbone": {"channels": 64}}).backbone == {"channels": 64}

    @pytest.mark.parametrize(
        ("head", "where", "value", "followed"),
        [
            ("upernet", "model.type", "CascadeEncoderDecoder", "EncoderDecoder"),
            ("upernet", "model.neck", {"type": "FPN"}, "none"),
            ("upernet", "model.backbone.out_indices", (1, 2, 3), r"\[0, 1, 2, 3\]"),
            ("upernet", "model.decode_head.type", "PSPHead", "UPerHead"),
            ("upernet", "model.decode_head.in_index", [3, 2, 1, 0], r"\[0, 1, 2, 3\]"),
            ("upernet", "model.decode_head.align_corners", True, "False"),
            ("upernet", "model.decode_head.act_cfg", {"type": "GELU"}, "ReLU"),
            ("upernet", "model.decode_head.norm_cfg.eps", 1e-3, "1e-05"),
            ("upernet", "model.decode_head.out_channels", 1, "an output per class"),
            ("upernet", "model.auxiliary_head.type", "PSPHead", "FCNHead"),
            ("upernet", "model.auxiliary_head.in_index", 1, "2"),
            ("upernet", "model.auxiliary_head.num_convs", 2, "1"),
            ("upernet", "model.auxiliary_head.concat_input", True, "False"),
            ("upernet", "model.auxiliary_head.align_corners", True, "False"),
            ("segformer", "model.decode_head.type", "UPerHead", "SegformerHead"),
            ("segformer", "model.decode_head.interpolate_mode", "nearest", "bilinear"),
            ("segformer", "model.auxiliary_head", {"type": "FCNHead"}, "none"),
            ("mask2former", "model.type", "EncoderDecoder", "EncoderDecoderMask2Former"),
            ("mask2former", "model.decode_head.num_transformer_feat_level", 4, "3"),
            ("mask2former", "model.decode_head.enforce_decoder_input_project", True, "False"),
            ("mask2former", "model.decode_head.positional_encoding.normalize", False, "True"),
            ("mask2former", "model.decode_head.pixel_decoder.type", "PixelDecoder", "MSDeformAttnPixelDecoder"),
            ("mask2former", "model.decode_head.pixel_decoder.num_outs", 4, "3"),
            ("mask2former", "model.decode_head.pixel_decoder.norm_cfg.num_groups", 16, "32"),
            ("mask2former", "model.decode_head.pixel_decoder.positional_encoding.normalize", False, "True"),
            ("mask2former", "model.decode_head.pixel_decoder.encoder.transformerlayers.attn_cfgs.num_points", 8, "4"),
            ("mask2former", "model.decode_head.pixel_decoder.encoder.transformerlayers.attn_cfgs.num_levels", 4, "3"),
            ("mask2former", "model.decode_head.transformer_decoder.transformerlayers.attn_cfgs.num_heads", 8, "4"),
            ("mask2former", "model.decode_head.transformer_decoder.transformerlayers.operation_order",
             ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"), r"\['cross_attn', .*\]"),
        ],
    )  # fmt: skip
    def test_another_rule_is_refused(self, head: Head, where: str, value: Any, followed: str) -> None:
        with pytest.raises(ValueError, match=rf"^x\.pth was made with {where}.*=.* follows {followed} only$"):
            rules(head, {where: value})

    def test_code_is_not_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        code = f"__import__('pathlib').Path({str(tmp_path / 'harm')!r}).touch()"
        assert rules_of({"config": f"model = [{code}]"}, "x.pth", "upernet", 3, USUAL) == Rules(USUAL)
        assert not list(tmp_path.iterdir())
        assert "can't be read" in caplog.text
        assert "the released segmenters' rules are used" in caplog.text


class TestClasses:
    def test_names_and_colours(self) -> None:
        palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        for given in (palette, tuple(map(tuple, palette)), np.array(palette, np.uint8)):
            found = rules("upernet", CLASSES=ANT, PALETTE=given)
            assert (found.labels, found.palette) == (LabelMap(ANT), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
        assert (rules("upernet").labels, rules("upernet", PALETTE=None).palette) == (None, None)

    def test_fewer_than_outputs(self, caplog: pytest.LogCaptureFixture) -> None:
        """Released ones for streets have 150 outputs and 19 names."""
        with caplog.at_level(logging.INFO, "internimage"):
            found = rules("upernet", classes=5, CLASSES=ANT, PALETTE=[[1, 2, 3]] * 3)
        assert found.labels == LabelMap((*ANT, "class 3", "class 4"))
        assert found.palette == (*[(1, 2, 3)] * 3, *[(0, 0, 0)] * 2)
        assert "x.pth names 3 classes, and its network has 5 outputs: the others are called class 3" in caplog.text

    def test_more_than_outputs(self) -> None:
        with pytest.raises(ValueError, match=r"^x\.pth names 3 classes, but its network has 2 of them$"):
            rules("upernet", classes=2, CLASSES=ANT)

    @pytest.mark.parametrize("palette", [[[1, 2]] * 3, [[1, 2, 300]] * 3, [1, 2, 3], [[1, 2, 3]] * 4, [None]])
    def test_no_colours(self, palette: Any, caplog: pytest.LogCaptureFixture) -> None:
        assert rules("upernet", CLASSES=ANT, PALETTE=palette).palette is None
        assert "x.pth has a palette that can't be read" in caplog.text

    def test_mapillary_has_the_classes_of_cityscapes(self) -> None:
        """Whatever the file calls them: it was trained on others than it names."""
        vistas = tuple(f"vista {index}" for index in range(66))
        for classes in (19, 150):
            meta: dict[str, Any] = {"CLASSES": vistas, "PALETTE": [[0, 0, 0]] * 66}
            found = rules("segformer", {"train_pipeline": HACK}, classes=classes, **meta)
            assert found.labels is not None
            assert (found.labels.names[:19], len(found.labels), found.palette) == (STREET, classes, None)


class TestFiles:
    def test_of_a_published_name_without_a_configuration(self, network: InternImageSegmenter, tmp_path: Path) -> None:
        """It is known for what it was trained, and how its pictures were shown."""
        name = "segformer_internimage_l_512x1024_80k_mapillary.pth"
        meta: dict[str, Any] = {"CLASSES": tuple(map(str, range(66))), "PALETTE": [[0, 0, 0]] * 66}
        for said in ({}, meta, {"CLASSES": STREET}):
            found = load_segmenter(write_pth(network, tmp_path / name, said))
            assert found.labels == LabelMap((*STREET, "class 19", "class 20"))
            assert (found.palette, found.viewing) == (None, Viewing((1024, 2048)))

    def test_of_another_name(
        self, network: InternImageSegmenter, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = load_segmenter(write_pth(network, tmp_path / "x.pth", {}))
        assert (found.labels, found.palette, found.viewing) == (None, None, Viewing((1024, 2048)))
        assert "does not say how its pictures were prepared: Viewing(frame=(1024, 2048)" in caplog.text
        upernet = InternImageSegmenter(SegmenterConfig(FEMTO, 3, "upernet", 16, pool_scales=(1, 2, 3, 6)))
        assert load_segmenter(write_pth(upernet, tmp_path / "x.pth", {})).viewing == Viewing((512, 2048), 32)

    def test_colours_that_numpy_drew(self, network: InternImageSegmenter, tmp_path: Path) -> None:
        """As mmsegmentation draws them for classes without any."""
        meta = {"PALETTE": np.arange(63).reshape(21, 3), **said_of("segformer", CLASSES=tuple(map(str, range(21))))}
        found = load_segmenter(write_pth(network, tmp_path / "x.pth", meta)).palette
        assert found is not None
        assert found[20] == (60, 61, 62)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state | {"decode_head.a": torch.ones(1)}, r"1 weights that no .* has: decode_head\.a$"),
            (lambda state: {k: v for k, v in state.items() if "conv_seg" not in k}, "hold no segmentation head"),
            (
                lambda state: {k: v for k, v in state.items() if "fusion" not in k},
                r"no whole UPerNet: it lacks .*bottle",
            ),
            (lambda state: {k: v for k, v in state.items() if "convs.0" not in k}, r"it lacks decode_head\.convs\.0"),
            (lambda state: state | {"decode_head.conv_seg.bias": torch.ones(8)}, "another shape decode_head"),
            (lambda state: state | {"decode_head.conv_seg.weight": torch.ones(1, 16, 1, 1)}, "at least 2"),
            (lambda state: state | {"decode_head.conv_seg.weight": torch.ones(256, 16, 1, 1)}, "at most 255, got 256"),
        ],
    )
    def test_weights_of_another_segmenter(
        self, network: InternImageSegmenter, tmp_path: Path, change: Callable[..., dict[str, Tensor]], message: str
    ) -> None:
        torch.save({"state_dict": change(to_mmsegmentation(network.state_dict())), "meta": {}}, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=rf"^[^\n]*x\.pth[^\n]* {message}[^\n]*$"):
            load_segmenter(tmp_path / "x.pth")

    @pytest.mark.shared
    @pytest.mark.parametrize("name", ["upernet", "segformer", "mask2former"])
    def test_the_official_tiny_networks(self, name: str, golden: Path, tmp_path: Path) -> None:
        """Weights and configuration of each, as one file, give what the official code gave."""
        file = golden / f"segmentation/{name}.safetensors"
        tensors = load_file(file)
        with safe_open(file, "pt") as weights:
            config = json.loads(weights.metadata()["config"])
        state = {key.removeprefix("state_dict."): tensors[key] for key in tensors if key.startswith("state_dict.")}
        meta = {"CLASSES": tuple("abcdefg"), "PALETTE": [[9, 9, 9]] * 7, "config": text_of({"model": config})}
        torch.save({"state_dict": state, "meta": meta}, tmp_path / "tiny.pth")
        loaded = load_segmenter(tmp_path / "tiny.pth")
        assert (loaded.labels, loaded.palette) == (LabelMap(tuple("abcdefg")), ((9, 9, 9),) * 7)
        said = "head_scores" if name == "mask2former" else "head_logits"
        with torch.inference_mode():
            for odd in ("", "odd."):
                found = loaded.model(tensors[f"{odd}input_NCHW"])
                torch.testing.assert_close(found, tensors[odd + said], rtol=1e-4, atol=1e-4)
