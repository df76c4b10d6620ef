"""Looking into networks: what they see, where they look, what they rest on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import internimage
from internimage.data import read_image, sample_photo
from internimage.inference.inspection import Inspector
from internimage.inference.receptive_field import effective_receptive_field
from internimage.model.checkpoints.detector_files import save_detector
from internimage.model.checkpoints.segmenter_files import save_segmenter
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.model.sampling import find_backbone, trace_sampling
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import Framing, LabelMap, Preprocess, ReceptiveField, Viewing


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(device="cpu")


def test_a_classifier_is_shown_what_it_names(inspector: Inspector) -> None:
    classifier = internimage.Classifier(device="cpu")
    view = inspector.view(sample_photo())
    assert view.size == (32, 32)
    with torch.inference_mode():
        found = inspector.model(view.tensor).softmax(-1)[0]
    torch.testing.assert_close(found, torch.tensor(classifier(sample_photo()).probabilities))
    # The middle square of 451 x 300 pixels, in the picture's own pixels.
    photo = read_image(sample_photo())
    assert view.box == pytest.approx((75.17, 0, 375.83, 300), abs=0.01)
    expected = np.asarray(photo.crop((75, 0, 376, 300)), dtype=float)
    assert np.abs(np.asarray(view.picture, dtype=float) - expected).mean() < 2
    assert view.to_input(75.17 + 300.66 / 2, 150) == pytest.approx((15.5, 15.5), abs=0.01)
    with pytest.raises(ValueError, match=r"does not see pixel \(5, 5\): it sees x from 75 to 376"):
        view.to_input(5, 5)


def test_whole_pictures_of_a_size() -> None:
    view = Inspector(size=64, device="cpu").view(Image.new("RGB", (90, 60)))
    assert (view.size, view.picture.size, view.box) == ((64, 96), (90, 60), (0, 0, 90, 60))
    # The corners of a picture are the corners of its outermost pixels.
    assert view.to_input(0, 0) == (0, 0)
    assert view.to_input(90, 60) == (95, 63)
    assert view.to_input(45, 30) == (47.5, 31.5)
    for call in (lambda: Inspector(size=0), lambda: Inspector().view(sample_photo(), size=0)):
        with pytest.raises(ValueError, match="size must be at least 1 pixel, got 0"):
            call()


def detector(path: Path) -> None:
    config = DetectorConfig.from_variant("internimage_femto", num_classes=2, masks=False)
    framing = Framing((64, 128))
    save_detector(InternImageDetector(config), path, labels=LabelMap(("a", "b")), framing=framing)


def segmenter(path: Path) -> None:
    config = SegmenterConfig.from_variant("internimage_femto", num_classes=2, head="segformer")
    model = InternImageSegmenter(config)
    # Windows are for pictures at their own size; here the whole is seen in a frame.
    save_segmenter(model, path, labels=LabelMap(("a", "b")), viewing=Viewing((64, 128), multiple=32))


@pytest.mark.parametrize(("save", "task"), [(detector, "detection"), (segmenter, "segmentation")])
def test_detectors_and_segmenters_too(tmp_path: Path, save: Callable[[Path], None], task: str) -> None:
    save(tmp_path / "x.safetensors")
    inspector = Inspector(tmp_path / "x.safetensors", device="cpu")
    trace = inspector.sampling(sample_photo())
    assert (inspector.task, trace.size, len(trace.blocks)) == (task, (64, 96), 5)
    assert [each.shape for each in trace.blocks][:2] == [(16, 24), (8, 12)]
    assert Inspector(tmp_path / "x.safetensors", size=32, device="cpu").view(sample_photo()).size[0] == 32
    with pytest.raises(ValueError, match=f"class activations are of classifiers; these weights are for {task}"):
        inspector.class_activation(sample_photo())


def test_the_trace_is_of_what_the_network_does(inspector: Inspector) -> None:
    """Its points and modulations, put into plain sums, give the layer's output."""
    image = torch.randn(1, 3, 32, 32)
    backbone = find_backbone(inspector.model)
    layer = backbone.stages[1].blocks[0].dcn
    kept: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])),
        layer.register_forward_hook(lambda _, __, output: kept.append(output)),
    ]
    with torch.no_grad():
        trace = trace_sampling(inspector.model, image)
        x, out = kept
        value = layer.input_proj(x)[0].view(8, 8, layer.groups, -1)
        block = trace.find(2, 1)
        for row, column in ((0, 0), (3, 5), (7, 7)):
            total = torch.zeros(layer.groups, value.shape[-1])
            for group in range(layer.groups):
                for (px, py), weight in zip(
                    block.positions_xy[row, column, group] / block.stride,
                    block.modulations[row, column, group],
                    strict=True,
                ):
                    for cell_y in (int(np.floor(py)), int(np.floor(py)) + 1):
                        for cell_x in (int(np.floor(px)), int(np.floor(px)) + 1):
                            if 0 <= cell_x < 8 and 0 <= cell_y < 8:
                                share = float(weight * (1 - abs(px - cell_x)) * (1 - abs(py - cell_y)))
                                total[group] += share * value[cell_y, cell_x, group]
            torch.testing.assert_close(layer.output_proj(total.flatten()), out[0, row, column], atol=1e-4, rtol=1e-4)
    for hook in hooks:
        hook.remove()
    assert len(layer._forward_pre_hooks) == 0, "nothing stays behind"


def test_networks_that_cannot_be_traced() -> None:
    with pytest.raises(ValueError, match="Linear holds no InternImage"):
        trace_sampling(torch.nn.Linear(3, 3), torch.zeros(1, 3, 8, 8))
    network = internimage.create_model("internimage_femto", num_classes=2).eval()
    with pytest.raises(ValueError, match="one image is watched at a time"):
        trace_sampling(network, torch.zeros(2, 3, 8, 8))
    with torch.no_grad():
        find_backbone(network).stages[2].blocks[0].dcn.offset.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="block 1 of stage 3 looks at places that are no numbers"):
        trace_sampling(network, torch.zeros(1, 3, 32, 32))


def test_class_activation_is_grad_cam_by_hand(inspector: Inspector) -> None:
    """ReLU of the map's channels, each weighted by the mean gradient of the class's score."""
    view = inspector.view(sample_photo())
    for stage, label in ((4, None), (3, "dog")):
        found = inspector.class_activation(view, label, stage=stage)
        assert found.label == (label or "cat")
        maps = [each.detach() for each in inspector.model.forward_features(view.tensor)]
        seen = maps[stage - 1].requires_grad_()
        x = seen
        for each in range(stage, 4):
            x = find_backbone(inspector.model).stages[each](
                find_backbone(inspector.model).stages[each - 1].downsample(x)
            )
        score = inspector.model.forward_head([*maps[:3], x])[0, inspector.labels.index(found.label)]
        (gradient,) = torch.autograd.grad(score, seen)
        expected = (gradient.mean((1, 2)) * seen).sum(-1)[0].relu().detach()
        np.testing.assert_allclose(found.values, (expected / expected.max()).numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="unknown class 'lion'"):
        inspector.class_activation(view, "lion")
    with pytest.raises(ValueError, match="stage must be from 1 to 4, got 5"):
        inspector.class_activation(view, stage=5)


def test_stage_features_are_the_backbones(inspector: Inspector) -> None:
    view = inspector.view(sample_photo())
    with torch.no_grad():
        expected = find_backbone(inspector.model)(view.tensor)
    for found, map_NCHW, stride in zip(inspector.stage_features(view), expected, inspector.strides, strict=True):
        np.testing.assert_allclose(found, map_NCHW[0].permute(1, 2, 0).numpy(), atol=1e-6)
        assert found.shape[0] == 32 // stride


def test_receptive_field_of_known_convolutions() -> None:
    """Two 3x3 convolutions of ones see 5 x 5 pixels, by the product of two triangles."""
    layer = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    torch.nn.init.ones_(layer.weight)
    field = effective_receptive_field(torch.nn.Sequential(layer, layer), [torch.zeros(1, 1, 11, 11)] * 3)
    triangle = np.array([1, 2, 3, 2, 1]) / 9
    expected = np.zeros((11, 11))
    expected[3:8, 3:8] = np.outer(triangle, triangle)
    np.testing.assert_allclose(field.values, expected, atol=1e-7)
    assert (field.center_yx, field.num_images) == ((5, 5), 3)
    # 1/9, 49/81 and all within 1, 3 and 5 pixels.
    assert [field.side(share) for share in (0.11, 0.12, 0.6, 0.61, 1.0)] == [1, 3, 3, 5, 5]


def test_receptive_field_refuses(inspector: Inspector) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        effective_receptive_field(torch.nn.Identity(), [])
    with pytest.raises(ValueError, match="of one size"):
        effective_receptive_field(torch.nn.Identity(), [torch.ones(1, 1, 4, 4), torch.ones(1, 1, 5, 4)])
    with pytest.raises(ValueError, match="needs a map"):
        effective_receptive_field(torch.nn.Flatten(), [torch.ones(1, 1, 4, 4)])
    with pytest.raises(ValueError, match="not all of them 0"):
        effective_receptive_field(lambda x: 0 * x, [torch.ones(1, 1, 4, 4)])
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        ReceptiveField(np.ones((3, 3)), 1).side(0)
    with pytest.raises(ValueError, match="stage must be from 1 to 4"):
        inspector.receptive_field([sample_photo()], stage=0)


def test_training_widened_our_receptive_field() -> None:
    """As docs/guides/visualize.md says of the package's weights."""
    trained = Inspector(size=96, device="cpu")
    fresh = Inspector(size=96, device="cpu")
    torch.manual_seed(0)
    fresh._backbone.load_state_dict(internimage.InternImage(fresh._backbone.config).state_dict())
    sides = [each.receptive_field([sample_photo()]).side(0.5) for each in (trained, fresh)]
    assert sides[0] > 1.5 * sides[1], sides


def test_grey_networks_see_colours_as_grey(tmp_path: Path) -> None:
    model = internimage.create_model("internimage_femto", num_classes=2, in_chans=1)
    preprocess = Preprocess(28, mean=(0.5,), std=(0.5,))
    internimage.save_checkpoint(model, tmp_path / "g.safetensors", labels=LabelMap(("a", "b")), preprocess=preprocess)
    view = Inspector(tmp_path / "g.safetensors", device="cpu").view(sample_photo())
    assert (view.tensor.shape, view.picture.mode) == ((1, 1, 28, 28), "RGB")
