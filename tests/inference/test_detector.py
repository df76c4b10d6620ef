"""An image in, its objects out: every kind of source, sizes, views, limits and failures, with a real small detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from internimage import Detections, Detector, Framing, InternImageConfig, LabelMap
from internimage.data import ImageReadError
from internimage.data.detection.images import pad_batch, prepare
from internimage.data.detection.rle import decode_masks
from internimage.data.scenes import Scenes
from internimage.inference.detection import detections_json
from internimage.model.checkpoints.detector_files import save_detector
from internimage.model.detection import DetectorConfig, InternImageDetector

NAMES = LabelMap(("coat", "bag", "boot"))
BACKBONE = InternImageConfig(channels=8, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), num_classes=0)


def network(num_classes: int = 3, *, masks: bool = True) -> InternImageDetector:
    """Random weights whose class scores spread over (0, 1)."""
    torch.manual_seed(0)
    small = {"fpn_channels": 16, "head_channels": 32, "proposals_per_level": 40, "proposals": 40, "detections": 20}
    config = DetectorConfig(BACKBONE, num_classes, masks=masks, **small)
    model = InternImageDetector(config).eval()
    for head in model.roi_heads.box_heads:
        torch.nn.init.normal_(head.cls.weight, std=1.0)
        torch.nn.init.normal_(head.reg.weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "clothes.safetensors"
    return save_detector(network(), path, labels=NAMES, framing=Framing((96, 160)))


@pytest.fixture(scope="module")
def detector(weights: Path) -> Detector:
    return Detector(weights, device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Three sizes, none square, none of the input's."""
    return [
        Scenes("val", 3).read(index).image.resize(size) for index, size in enumerate(((120, 90), (70, 140), (200, 100)))
    ]


def same(one: Detections, other: Detections, tolerance: float = 1e-3) -> None:
    assert one.names == other.names
    np.testing.assert_allclose(one.boxes, other.boxes, atol=tolerance)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_finds_objects_in_the_pictures_own_pixels(detector: Detector, pictures: list[Image.Image]) -> None:
    for picture, found in zip(pictures, detector(pictures), strict=True):
        assert found.size == (picture.height, picture.width)
        assert 0 < len(found) <= 20
        assert (np.diff(found.scores) <= 0).all(), "best first"
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array([*picture.size] * 2) + 1e-3).all()
        assert found.masks is not None
        assert found.masks.shape == (len(found), picture.height, picture.width)
        assert set(found.names) <= set(NAMES)
        # Boxes reach beyond half the picture, so they are not in pixels of a smaller or larger one.
        assert found.boxes[:, 2].max() > picture.width / 2
    assert detector.has_masks
    assert detector.framing == Framing((96, 160))


def test_every_kind_of_source_gives_the_same(detector: Detector, pictures: list[Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    pictures[0].save(path)
    results = [detector(each) for each in (path, str(path), path.read_bytes(), pictures[0], np.asarray(pictures[0]))]
    for result in results:
        assert isinstance(result, Detections)
        same(result, results[0], 0)
    assert [result.source for result in results] == [str(path), str(path), None, None, None]


def test_it_says_what_the_network_says(detector: Detector, pictures: list[Image.Image]) -> None:
    """Not only consistent with itself: equal to preparation, padding and network done by hand."""
    model = network()
    for picture, found in zip(pictures, detector(pictures), strict=True):
        image, placement = prepare(picture, Framing((96, 160)))
        with torch.inference_mode():
            (expected,) = model(pad_batch([image]), [placement])
        np.testing.assert_allclose(found.boxes, expected.boxes.numpy(), atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores.numpy(), atol=1e-6)
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.masks is not None
        assert expected.masks is not None
        assert (found.masks != expected.masks.numpy()).sum() <= 2


@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_pictures_of_one_size_in_batches(detector: Detector, batch_size: int) -> None:
    scenes = [Scenes("val", 5).read(index).image for index in range(5)]
    for one, other in zip(detector(scenes), detector(scenes, batch_size=batch_size), strict=True):
        same(one, other)


def test_batches_do_not_change_the_answer(detector: Detector, pictures: list[Image.Image]) -> None:
    """Same sizes give the same; other sizes in a batch are padding, which the network sees at the border alone."""
    single = [detector(picture) for picture in pictures]
    for one, other in zip(single, detector(tuple(pictures), batch_size=1), strict=True):
        same(one, other, 0)
    twice = detector([pictures[0], ImageOps.mirror(pictures[0])], batch_size=2)
    same(twice[0], single[0])
    assert detector([]) == []
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        detector(pictures, batch_size=0)


def test_limits(weights: Path, detector: Detector, pictures: list[Image.Image]) -> None:
    every = detector(pictures[0])
    middle = float(np.median(every.scores))
    sure = Detector(weights, device="cpu", score=middle)(pictures[0])
    assert 0 < len(sure) < len(every)
    assert (sure.scores > middle).all()
    assert len(Detector(weights, device="cpu", limit=3)(pictures[0])) == 3
    assert len(every.above(middle)) == int((every.scores >= middle).sum())
    apart = Detector(weights, device="cpu", nms=0.1, score=0.0)(pictures[0])
    for label in range(3):
        boxes = torch.from_numpy(apart.boxes[apart.labels == label])
        from torchvision.ops import box_iou

        assert (box_iou(boxes, boxes).fill_diagonal_(0) <= 0.1 + 1e-6).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": 1.0}, r"score must lie in \[0, 1\)"),
        ({"nms": 0.0}, r"nms must lie in \(0, 1\]"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"sides": (16,)}, "sides must be 32 pixels or more"),
    ],
)
def test_bad_settings(weights: Path, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(weights, device="cpu", **settings)  # pyright: ignore


def test_mirrored_views_are_turned_back(weights: Path, pictures: list[Image.Image]) -> None:
    """Looked at both ways, a picture and its mirror image show the same objects, mirrored."""
    both = Detector(weights, device="cpu", flip=True)
    found, turned = both(pictures[0]), both(ImageOps.mirror(pictures[0]))
    width = pictures[0].width
    assert len(found) == len(turned) > 0
    mirrored = np.stack(
        (width - turned.boxes[:, 2], turned.boxes[:, 1], width - turned.boxes[:, 0], turned.boxes[:, 3]), 1
    )
    np.testing.assert_allclose(found.boxes, mirrored, atol=1e-3)
    assert found.masks is not None
    assert turned.masks is not None
    assert ((found.masks != turned.masks[..., ::-1]).sum((1, 2)) <= 2).all()


def test_several_sizes_keep_the_best_of_each(weights: Path, pictures: list[Image.Image]) -> None:
    from torchvision.ops import batched_nms

    sides = (64, 96, 128)
    many = Detector(weights, device="cpu", sides=sides)(pictures[0])
    alone = [Detector(weights, device="cpu", sides=(side,))(pictures[0]) for side in sides]
    assert float(many.scores[0]) == pytest.approx(max(float(each.scores[0]) for each in alone))
    assert len(many) <= 20
    boxes, scores, labels = (torch.from_numpy(each) for each in (many.boxes, many.scores, many.labels))
    assert len(batched_nms(boxes, scores, labels, 0.5)) == len(many), "nothing is left to suppress"
    one = Detector(weights, device="cpu", sides=(96,))(pictures[0])
    same(one, Detector(weights, device="cpu")(pictures[0]), 0)


def test_of_two_equal_boxes_one_stays(weights: Path, pictures: list[Image.Image]) -> None:
    """The same view twice shows nothing new; the settings hold for what was put together."""
    once = Detector(weights, device="cpu")(pictures[0])
    twice = Detector(weights, device="cpu", sides=(96, 96))(pictures[0])
    same(once, twice, 0)
    assert once.masks is not None
    assert twice.masks is not None
    assert (once.masks == twice.masks).all()
    few = Detector(weights, device="cpu", sides=(64, 96), flip=True, limit=4, score=0.3)(pictures[0])
    assert len(few) == 4
    assert (few.scores > 0.3).all()
    assert (few.boxes >= 0).all()
    assert (few.boxes <= np.array([*pictures[0].size] * 2) + 1e-3).all()


def test_only_unreadable_images(detector: Detector, tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    results = list(detector.stream(paths, batch_size=2))
    assert [type(each) for each in results] == [ImageReadError, ImageReadError]
    assert [path.name in str(error) for path, error in zip(paths, results, strict=True)] == [True, True]
    with pytest.raises(ImageReadError, match="type int"):
        detector([3])  # pyright: ignore


def test_unreadable_images(detector: Detector, pictures: list[Image.Image], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    results = list(detector.stream([pictures[0], broken, pictures[1]], batch_size=2))
    assert [type(each) for each in results] == [Detections, ImageReadError, Detections]
    with pytest.raises(ImageReadError, match=r"broken\.png"):
        detector(broken)


def test_an_image_without_objects(weights: Path, pictures: list[Image.Image]) -> None:
    nothing = Detector(weights, device="cpu", score=0.9999)(pictures[0])
    assert len(nothing) == 0
    assert nothing.names == ()
    assert nothing.masks is not None
    assert nothing.masks.shape == (0, *nothing.size)
    assert detections_json(nothing) == []


def test_plain_values(detector: Detector, pictures: list[Image.Image]) -> None:
    found = detector(pictures[0])
    rows = detections_json(found)
    assert [row["label"] for row in rows] == list(found.names)
    assert found.masks is not None
    for row, mask in zip(rows, found.masks, strict=True):
        assert (decode_masks([row["mask"]])[0] == mask).all()
    assert "mask" not in detections_json(replace(found, masks=None))[0]


@pytest.mark.parametrize(("classes", "first"), [(80, "person"), (7, "class 0")])
def test_files_without_names(classes: int, first: str, tmp_path: Path) -> None:
    """COCO's 80 classes are known; others are numbered."""
    path = save_detector(network(classes, masks=False), tmp_path / "bare.safetensors")
    found = Detector(path, device="cpu")
    assert found.labels[0] == first
    assert len(found.labels) == classes
    assert not found.has_masks
    assert found(Image.new("RGB", (64, 48))).masks is None


@pytest.mark.parametrize("where", ["backbone.stem.conv1.weight", "rpn.head.bbox_pred.bias", "mask_heads.0.logits.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, where: str, value: float) -> None:
    """No score of theirs is above any threshold: all images would seem to be empty."""
    broken = network()
    name = next(name for name in broken.state_dict() if name.endswith(where))
    broken.state_dict()[name].view(-1)[0] = value
    path = save_detector(broken, tmp_path / "nan.safetensors", labels=NAMES)
    with pytest.raises(ValueError, match=r"nan\.safetensors holds weights that are not finite; its training diverged"):
        Detector(path, device="cpu")


def test_boxes_that_are_no_numbers(tmp_path: Path, pictures: list[Image.Image]) -> None:
    """Whatever made them so after the file was read."""
    broken = Detector(save_detector(network(masks=False), tmp_path / "clothes.safetensors"), device="cpu")
    torch.nn.init.constant_(broken.model.state_dict()["roi_heads.box_heads.0.reg.bias"], float("nan"))
    with pytest.raises(ValueError, match=r"clothes\.safetensors gives boxes or scores that are not finite; .* other"):
        broken(pictures[0])


def test_what_a_transformer_does_not_have(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from internimage.model.detection.detr import DetrConfig, InternImageDetr

    options = {"num_queries": 10, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    options |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = InternImageDetr(DetrConfig(BACKBONE, 3, "deformable_detr", options))
    path = save_detector(model, tmp_path / "detr.safetensors", labels=NAMES, framing=Framing((96, 160)))
    found = Detector(path, device="cpu", score=0.0, limit=6)(Image.new("RGB", (120, 90), "white"))
    assert len(found) <= 6
    assert found.masks is None
    with pytest.raises(
        ValueError, match=r"detr\.safetensors holds a detector without nms_threshold; leave that option"
    ):
        Detector(path, device="cpu", nms=0.5)
