"""Fitting weights into a network: other heads, channels and points, and what is said when they don't fit."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from internimage import InternImageClassifier, InternImageConfig, create_model, load_checkpoint, save_checkpoint
from internimage.model import infer_config, read_checkpoint
from internimage.model.checkpoints.convert import to_official
from internimage.model.checkpoints.loading import in22k_rows


@pytest.fixture
def saved(network: InternImageClassifier, tmp_path: Path) -> Path:
    """The network's weights as an official file, which says nothing of itself."""
    return write(to_official(network.state_dict()), tmp_path)


def write(state: dict[str, Tensor], folder: Path, name: str = "official.pth") -> Path:
    torch.save({"model": state}, folder / name)
    return folder / name


def equal(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


def test_report_and_log(network: InternImageClassifier, saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = create_model(network.config)
    with caplog.at_level(logging.DEBUG, logger="internimage"):
        report = load_checkpoint(model, saved)
    assert equal(model, network)
    assert str(report) == f"{len(network.state_dict())} tensors loaded"
    assert caplog.messages == [f"{saved}: {report}"]


def test_a_backbone_leaves_the_head_out(network: InternImageClassifier, saved: Path) -> None:
    backbone = create_model(network.config, features_only=True)
    report = load_checkpoint(backbone, saved)
    assert (report.missing, report.unexpected) == ((), ())
    assert equal(backbone, network.backbone)


def test_other_classes_start_anew(network: InternImageClassifier, saved: Path) -> None:
    model = create_model(network.config, pretrained=saved, num_classes=7)
    assert model.head.fc.weight.shape == (7, network.num_features)
    assert equal(model.backbone, network.backbone)
    assert torch.equal(model.head.norm.running_mean, network.head.norm.running_mean)
    with pytest.raises(ValueError, match=r"was trained for 10 classes, the model has 7; pass reset_head=True"):
        load_checkpoint(create_model(network.config, num_classes=7), saved)
    report = load_checkpoint(create_model(network.config, num_classes=7), saved, reset_head=True)
    assert report.notes == ("the last layer is new",)


def test_reset_head_keeps_the_model_s_own_layer(network: InternImageClassifier, saved: Path) -> None:
    model = create_model(network.config)
    before = copy.deepcopy(model.head.fc)
    load_checkpoint(model, saved, reset_head=True)
    assert equal(model.head.fc, before)
    assert equal(model.backbone, network.backbone)


def test_classes_come_from_the_file_unless_said_otherwise(tmp_path: Path) -> None:
    tuned = create_model("internimage_femto", num_classes=3)
    path = save_checkpoint(tuned, tmp_path / "tuned.safetensors")
    assert equal(create_model("internimage_femto", pretrained=path), tuned)
    assert create_model("internimage_femto", pretrained=path, num_classes=1000).head.fc.out_features == 1000
    assert create_model("internimage_femto", pretrained=path, num_classes=0).num_classes == 0
    config = InternImageConfig.from_variant("femto")
    with pytest.warns(UserWarning, match="trained for 3 classes, the configuration has 1000: the last layer starts"):
        assert create_model(config, pretrained=path).num_classes == 1000
    assert create_model(config, pretrained=path, features_only=True).config == config


def test_imagenet_22k_head_becomes_a_1k_head(base: InternImageConfig, tmp_path: Path) -> None:
    large = create_model(base, num_classes=21841)
    path = write(to_official(large.state_dict()), tmp_path)
    model = create_model(base, pretrained=path, num_classes=1000)
    rows = in22k_rows()
    assert torch.equal(model.head.fc.weight, large.head.fc.weight[rows])
    assert torch.equal(model.head.fc.bias, large.head.fc.bias[rows])
    report = load_checkpoint(model, path)
    assert report.notes == ("the ImageNet-1k rows of the ImageNet-22k head were taken",)
    assert equal(create_model(base, pretrained=path, num_classes=21841), large)


def test_rows_of_imagenet_1k(request: pytest.FixtureRequest) -> None:
    rows = in22k_rows()
    assert rows.shape == (1000,)
    # Two neighbours of ImageNet-1k share one row; all others have their own.
    assert rows.unique().numel() == 999
    assert rows[849] == rows[850]
    assert 0 <= int(rows.min()) <= int(rows.max()) < 21841
    published = request.config.rootpath.parent / "shared" / "reference" / "imagenet_22k_to_1k.txt"
    if published.is_file():
        assert rows.tolist() == [int(line) for line in published.read_text().split()]


@pytest.mark.parametrize("features_only", [False, True])
def test_middle_points_are_dropped(features_only: bool, network: InternImageClassifier, saved: Path) -> None:
    model = create_model(network.config, remove_center=True, features_only=features_only)
    report = load_checkpoint(model, saved)
    num_blocks = sum(network.config.depths)
    assert report.notes == (f"the middle sampling point was removed from {4 * num_blocks} tensors",)
    backbone = model if features_only else model.backbone
    for ours, theirs in zip(backbone.stages, network.backbone.stages, strict=True):
        for block, full in zip(ours.blocks, theirs.blocks, strict=True):
            masks = [i for i in range(full.dcn.mask.out_features) if i % 9 != 4]
            offsets = [i for i in range(full.dcn.offset.out_features) if i % 18 not in (8, 9)]
            for part in ("weight", "bias"):
                assert torch.equal(getattr(block.dcn.mask, part), getattr(full.dcn.mask, part)[masks])
                assert torch.equal(getattr(block.dcn.offset, part), getattr(full.dcn.offset, part)[offsets])


def test_a_file_without_middle_points(base: InternImageConfig, tmp_path: Path) -> None:
    hollow = create_model(base, remove_center=True)
    path = write(to_official(hollow.state_dict()), tmp_path)
    assert equal(create_model(base, remove_center=True, pretrained=path), hollow)
    # 72 rows are eight points of nine groups, or nine points of eight: the model says which.
    ambiguous = create_model(base, channels=36, groups=(9, 18, 36, 72), remove_center=True)
    other = write(to_official(ambiguous.state_dict()), tmp_path, "ambiguous.pth")
    assert equal(create_model(ambiguous.config, pretrained=other), ambiguous)
    with pytest.raises(ValueError, match=r"offset\.weight has shape \(16, 16\), the model needs \(18, 16\)"):
        load_checkpoint(create_model(base), path)


@torch.no_grad()
@pytest.mark.parametrize(("theirs", "in_chans"), [(3, 1), (3, 2), (3, 4), (3, 7), (1, 3), (4, 1), (4, 3)])
def test_other_channels(theirs: int, in_chans: int, base: InternImageConfig, tmp_path: Path) -> None:
    """An image whose channels are all equal gives what it gave; other images need training."""
    trained = create_model(base, in_chans=theirs).eval()
    path = write(to_official(trained.state_dict()), tmp_path)
    model = create_model(base, in_chans=in_chans, pretrained=path).eval()
    grey = torch.rand(2, 1, 32, 40)
    expected = trained(grey.expand(-1, theirs, -1, -1))
    torch.testing.assert_close(model(grey.expand(-1, in_chans, -1, -1)), expected, rtol=1e-4, atol=1e-5)
    report = load_checkpoint(model, path)
    assert report.notes == (f"the first convolution was adapted from {theirs} to {in_chans} channels",)


def test_another_variant_is_named_in_words(tmp_path: Path) -> None:
    path = save_checkpoint(create_model("internimage_femto", num_classes=2), tmp_path / "femto.safetensors")
    with pytest.raises(
        ValueError,
        match=r"femto\.safetensors holds InternImage-femto \(24 channels, depths 1-1-2-1, groups 1-2-4-8\), "
        r"but the model is InternImage-pico \(32 channels, depths 1-1-3-1, groups 2-4-8-16\); create the model by",
    ):
        load_checkpoint(create_model("internimage_pico", num_classes=2), path)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({}, {"layer_scale": 1.0}, r"it lacks layer scale \(12 tensors\); match the settings or pass strict=False"),
        ({"layer_scale": 1.0}, {}, r"it also has layer scale \(12 tensors\)"),
        ({}, {"res_post_norm": True}, r"it lacks res-post-norm \(24 tensors\)"),
        ({}, {"level2_post_norm_blocks": (0, 2)}, r"it lacks level-2 post-norms \(4 tensors\)"),
        ({}, {"center_feature_scale": True}, r"it lacks centre feature scale \(12 tensors\)"),
        ({}, {"post_norm": True}, r"it also has a final norm per stage \(8 tensors\)"),
        ({}, {"dw_kernel_size": 5}, r"dw_conv\.weight has shape \(16, 1, 3, 3\), the model needs \(16, 1, 5, 5\)"),
        ({}, {"mlp_ratio": 2.0}, "mlp.fc1.weight has shape"),
        ({}, {"head_ratio": 2.0}, "head.conv.weight has shape"),
    ],
)
def test_other_settings_are_named(
    theirs: dict[str, Any], ours: dict[str, Any], message: str, base: InternImageConfig, tmp_path: Path
) -> None:
    path = write(to_official(create_model(base, **theirs).state_dict()), tmp_path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(create_model(base, **ours), path)


def test_not_strict(base: InternImageConfig, saved: Path, network: InternImageClassifier) -> None:
    model = create_model(base, layer_scale=0.5, num_classes=3)
    report = load_checkpoint(model, saved, strict=False)
    assert {key.rpartition(".")[2] for key in report.missing} == {"layer_scale1", "layer_scale2", "weight", "bias"}
    assert "14 missing (kept as they were)" in str(report)
    assert float(model.backbone.stages[0].blocks[0].layer_scale1.detach().mean()) == 0.5
    assert torch.equal(model.backbone.stem.conv1.weight, network.backbone.stem.conv1.weight)
    assert report.notes == ("the last layer is new (3 classes instead of 10)",)
    other = create_model(base, post_norm=True)
    assert load_checkpoint(other, saved, strict=False).unexpected[0] == "backbone.stages.0.norm.weight"


@pytest.mark.parametrize(
    "setting",
    [{"offset_scale": 2.0}, {"activation": "relu"}, {"level2_post_norm_blocks": (0, 1)}, {"post_norm": True}],
)
def test_settings_without_weights_are_compared_where_the_file_names_them(
    setting: dict[str, Any], base: InternImageConfig, tmp_path: Path
) -> None:
    """The tensors fit, and yet the network would compute something else."""
    config = replace(base, center_feature_scale=True, level2_post_norm_blocks=(0, 2))
    path = save_checkpoint(create_model(config), tmp_path / "a.safetensors")
    name = next(iter(setting))
    model = create_model(config, **setting)
    with pytest.raises(ValueError, match=f"a.safetensors was made with {name}=.* instead of .*the file's settings"):
        load_checkpoint(model, path)
    assert name in load_checkpoint(model, path, strict=False).notes[-1]


def test_other_strides_are_noted(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "a.safetensors")
    report = load_checkpoint(create_model(network.config, stem_strides=(1, 1)), path)
    assert report.notes == ("the file was made with stem_strides=(2, 2) instead of (1, 1)",)


def test_weights_of_a_detector_have_no_head(network: InternImageClassifier, tmp_path: Path) -> None:
    state = {f"backbone.{key}": tensor for key, tensor in to_official(network.backbone.state_dict()).items()}
    torch.save({"state_dict": state | {"neck.conv.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    model = create_model(network.config, pretrained=tmp_path / "detector.pth", num_classes=10)
    assert equal(model.backbone, network.backbone)
    with pytest.raises(ValueError, match="it lacks a classification head, the conv head"):
        load_checkpoint(model, tmp_path / "detector.pth")
    report = load_checkpoint(model, tmp_path / "detector.pth", reset_head=True)
    assert report.notes == ("the checkpoint has no head: the model keeps its own",)


def test_a_random_head_is_never_given_unasked(base: InternImageConfig, tmp_path: Path) -> None:
    message = r"has no classification head; pass features_only=True, or num_classes=\.\.\. for a new head"
    femto = create_model("internimage_femto", features_only=True)
    ours = save_checkpoint(femto, tmp_path / "ours.safetensors")
    official = write(to_official(femto.state_dict()), tmp_path)
    for source in ("internimage_femto", femto.config, replace(femto.config, num_classes=0)):
        for path in (ours, official):
            with pytest.raises(ValueError, match=f"{path.name} {message}"):
                create_model(source, pretrained=path)
            assert equal(create_model(source, pretrained=path, features_only=True), femto)
            assert create_model(source, pretrained=path, num_classes=4).num_classes == 4
    bare = create_model(base, num_classes=0)
    with pytest.raises(ValueError, match=message):
        create_model(base, pretrained=write(to_official(bare.state_dict()), tmp_path, "bare.pth"))


@pytest.mark.parametrize("left_out", ["levels.3.", "patch_embed.conv2", "dcn.mask"])
def test_parts_of_a_network(left_out: str, network: InternImageClassifier, tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in to_official(network.state_dict()).items() if left_out not in key}
    path = write(state, tmp_path)
    for action in (lambda: load_checkpoint(network, path), lambda: infer_config(read_checkpoint(path))):
        with pytest.raises(ValueError, match=r"official\.pth: this is not a whole InternImage: .* is missing"):
            action()


def test_unknown_architectures_have_no_configuration(network: InternImageClassifier, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"official\.pth is no known variant; build its InternImageConfig"):
        infer_config(read_checkpoint(saved))
    hollow = create_model("internimage_femto", remove_center=True, in_chans=1, layer_scale=1.0, num_classes=5)
    write(to_official(hollow.state_dict()), saved.parent)
    assert infer_config(read_checkpoint(saved)) == hollow.config


def test_models_that_take_no_weights(network: InternImageClassifier, saved: Path) -> None:
    with pytest.raises(ValueError, match="InternImage backbone or classifier, got Linear"):
        load_checkpoint(nn.Linear(1, 1), saved)
    with torch.device("meta"):
        hollow = create_model(network.config)
    with pytest.raises(ValueError, match=r"the meta device and can hold no weights; call model\.to_empty"):
        load_checkpoint(hollow, saved)
    load_checkpoint(hollow.to_empty(device="cpu"), saved)
    assert equal(hollow, network)


def test_weights_of_64_bit_lose_nothing(network: InternImageClassifier, tmp_path: Path) -> None:
    network.double()
    with torch.no_grad():
        network.head.fc.bias.fill_(1 / 3)
    path = save_checkpoint(network, tmp_path / "a.safetensors")
    model = create_model(network.config).double()
    load_checkpoint(model, path)
    assert equal(model, network)
    assert create_model(network.config, pretrained=path).head.fc.bias.dtype == torch.float32


def test_ema_of_a_checkpoint_that_was_read_already(network: InternImageClassifier, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"ema is chosen when the file is read: read_checkpoint\(path, ema=\.\.\.\)"):
        load_checkpoint(network, read_checkpoint(saved), ema=True)


def test_no_weights_are_no_weights(network: InternImageClassifier) -> None:
    assert create_model(network.config, pretrained=None).config == network.config


def test_weights_keep_the_model_s_precision(network: InternImageClassifier, saved: Path) -> None:
    model = create_model(network.config).bfloat16()
    load_checkpoint(model, saved)
    assert equal(model, network.bfloat16())
