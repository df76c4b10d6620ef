"""Files of DINO: ours, and the released ones with and without their configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from internimage import InternImageConfig, LabelMap
from internimage.cli.convert import main as convert
from internimage.model import load_checkpoint, read_checkpoint
from internimage.model.backbone import InternImage
from internimage.model.checkpoints.detector_files import holds_detector, load_detector, save_detector
from internimage.model.checkpoints.official.dino import dino_to_official
from internimage.model.detection.dino import DinoConfig, InternImageDino
from internimage.structures import Framing

LABELS, FRAMING = LabelMap(("ant", "bee", "cow")), Framing((96, 160))
ARGUMENTS = {"core_op": "DCNv3", "channels": 8, "depths": [1, 1, 1, 1], "groups": [1, 2, 4, 8], "num_classes": 0}
BACKBONE = InternImageConfig.from_official(ARGUMENTS)
# Eight heads, as the released ones; no weight shows how many.
CONFIGURED = DinoConfig(
    BACKBONE,
    num_classes=3,
    queries=7,
    encoder_layers=1,
    decoder_layers=2,
    channels=32,
    hidden_channels=40,
    points=2,
    detections=9,
)
CONFIG = """
model = dict(
    type='DINO',
    backbone=dict(type='InternImage', core_op='DCNv3', channels=8, depths=[1, 1, 1, 1], groups=[1, 2, 4, 8],
                  layer_scale=None, post_norm=False, out_indices=(1, 2, 3)),
    bbox_head=dict(as_two_stage=True, dn_cfg=dict(noise_scale=dict(label=0.25, box=0.5),
                                                  group_cfg=dict(dynamic=True, num_dn_queries=50)),
                   positional_encoding=dict(type='SinePositionalEncoding', temperature=20, normalize=True),
                   transformer=dict(encoder=dict(transformerlayers=dict(attn_cfgs=dict(num_heads=8))))),
    test_cfg=dict(max_per_img=9))
data = dict(test=dict(pipeline=[dict(type='MultiScaleFlipAug', img_scale=(160, 96), transforms=[
    dict(type='Resize', keep_ratio=True)])]))
"""


def written(folder: Path, model: InternImageDino, **meta: Any) -> Path:
    path = folder / "released.pth"
    torch.save({"state_dict": dino_to_official(model.state_dict()), "meta": meta}, path)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["one backbone", "composite"])
def model(request: pytest.FixtureRequest) -> InternImageDino:
    torch.manual_seed(0)
    return InternImageDino(replace(CONFIGURED, composite=request.param))


def test_all_comes_back(model: InternImageDino, tmp_path: Path) -> None:
    path = save_detector(model, tmp_path / "insects.safetensors", labels=LABELS, framing=FRAMING)
    loaded = load_detector(path, limits={"detections": 4})
    assert loaded.model.config == replace(model.config, detections=4)
    assert (loaded.labels, loaded.framing) == (LABELS, FRAMING)
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], each) for key, each in model.state_dict().items())
    with pytest.raises(ValueError, match="holds a detector without nms_threshold"):
        load_detector(path, limits={"nms_threshold": 0.5})


def test_a_released_file_with_its_configuration(model: InternImageDino, tmp_path: Path) -> None:
    path = written(tmp_path, model, CLASSES=("ant", "bee", "cow"), config=CONFIG)
    assert holds_detector(read_checkpoint(path))
    loaded = load_detector(path)
    wanted = replace(model.config, denoising_queries=50, label_noise=0.25, box_noise=0.5)
    assert loaded.model.config == wanted
    assert (loaded.labels, loaded.framing.frame) == (LABELS, (96, 160))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded.model(image)[0].boxes, model.eval()(image)[0].boxes)


def test_a_released_file_that_says_nothing(tmp_path: Path) -> None:
    """The variant, classes, queries and layers follow from the tensors."""
    backbone = InternImageConfig.from_variant("pico", num_classes=0)
    model = InternImageDino(replace(CONFIGURED, backbone=backbone, num_classes=5, composite=True))
    config = load_detector(written(tmp_path, model)).model.config
    assert config == replace(model.config, detections=300)


def test_without_noisy_copies_there_are_no_label_codes(tmp_path: Path) -> None:
    model = InternImageDino(replace(CONFIGURED, denoising_queries=0))
    assert load_detector(written(tmp_path, model, config=CONFIG)).model.config == replace(
        model.config, label_noise=0.25, box_noise=0.5
    )


def test_ours_without_its_description(model: InternImageDino, tmp_path: Path) -> None:
    save_file(model.state_dict(), path := tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="a detector's weights without their description; write it anew"):
        load_detector(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "temperature=20",
            "temperature=10000",
            r"positional_encoding\.temperature=10000, and a DINO here follows 20 only",
        ),
        ("as_two_stage=True", "as_two_stage=False", r"as_two_stage=False, and a DINO here follows True only"),
        ("num_heads=8", "num_heads=4", r"attn_cfgs\.0\.num_heads=4, and a DINO here follows 8 only"),
    ],
)
def test_rules_that_no_dino_here_follows(
    model: InternImageDino, tmp_path: Path, before: str, after: str, message: str
) -> None:
    assert before in CONFIG
    with pytest.raises(ValueError, match=message):
        load_detector(written(tmp_path, model, config=CONFIG.replace(before, after)))


def test_what_is_no_whole_dino(model: InternImageDino, tmp_path: Path) -> None:
    path = written(tmp_path, model, config=CONFIG)
    contents = torch.load(path)
    lost = contents["state_dict"].pop("bbox_head.transformer.query_embed.weight")
    torch.save(contents, path)
    with pytest.raises(ValueError, match=r"no whole DINO: it lacks transformer\.queries\.weight"):
        load_detector(path)
    contents["state_dict"] |= {"bbox_head.transformer.query_embed.weight": lost, "bbox_head.extra.weight": lost}
    torch.save(contents, path)
    with pytest.raises(ValueError, match=r"holds 1 weights that no detector here has: bbox_head\.extra\.weight"):
        load_detector(path)


def test_a_composite_is_no_single_backbone(tmp_path: Path) -> None:
    path = written(tmp_path, InternImageDino(replace(CONFIGURED, composite=True)))
    with pytest.raises(ValueError, match="a composite of two InternImages: load a detector with both, or extract one"):
        load_checkpoint(InternImage(BACKBONE), path)


def test_converted_there_and_back(model: InternImageDino, tmp_path: Path) -> None:
    released = written(tmp_path, model, CLASSES=("ant", "bee", "cow"), config=CONFIG)
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.pth"
    assert convert([str(released), str(ours)]) == 0
    assert convert([str(ours), str(again), "--format", "official"]) == 0
    before, after = (torch.load(path)["state_dict"] for path in (released, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], each) for key, each in before.items())
    with pytest.raises(ValueError, match="a detector has no Hugging Face form"):
        convert([str(ours), str(tmp_path / "folder"), "--format", "huggingface"])


def test_a_released_file_with_dcnv4(tmp_path: Path) -> None:
    """FlashInternImage's: the core shows in the configuration's type, the rest is the same."""
    backbone = InternImageConfig.from_official(ARGUMENTS | {"core_op": "DCNv4", "channels": 16})
    torch.manual_seed(0)
    model = InternImageDino(replace(CONFIGURED, backbone=backbone))
    config = CONFIG.replace("type='InternImage', core_op='DCNv3', channels=8", "type='FlashInternImage', channels=16")
    assert config != CONFIG
    loaded = load_detector(written(tmp_path, model, config=config))
    assert loaded.model.config.backbone.core == "dcnv4"
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded.model(image)[0].boxes, model.eval()(image)[0].boxes)


def test_codes_of_other_labels_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Heads that were cut to fewer classes predict, whatever denoising was trained with."""
    model = InternImageDino(CONFIGURED)
    contents = {"state_dict": dino_to_official(model.state_dict()), "meta": {"config": CONFIG}}
    contents["state_dict"]["bbox_head.label_embedding.weight"] = torch.zeros(5, 32)
    torch.save(contents, tmp_path / "cut.pth")
    loaded = load_detector(tmp_path / "cut.pth")
    assert loaded.model.config.denoising_queries == 0
    assert loaded.model.label_codes is None
    assert "its 5 labels for denoising are not its 3 classes: they are left out" in caplog.text
