"""An image in, the class of its every pixel out: whole, in windows, mirrored, at several sizes, and what goes wrong."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from internimage import InternImageConfig, LabelMap, SegmentationMap, Segmenter, Viewing
from internimage.data import ImageReadError
from internimage.data.scenes import Scenes
from internimage.data.segmentation.dataset import view
from internimage.inference.scanning import Look, label_map, normalized, probabilities
from internimage.model.checkpoints.segmenter_files import save_segmenter
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from support.official_segmenters import HEADS, read

NAMES = LabelMap(("coat", "bag", "boot"))
PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
BACKBONE = InternImageConfig(channels=8, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), num_classes=0)
VIEWING = Viewing(frame=(64, 128), multiple=32)
# Inputs of the golden files are normalised already.
AS_IT_IS = Viewing(frame=None, mean=(0.0,) * 3, std=(1 / 255,) * 3)


def network() -> InternImageSegmenter:
    """Random weights that see every class somewhere."""
    torch.manual_seed(0)
    model = InternImageSegmenter(SegmenterConfig(BACKBONE, 3, "segformer", channels=16)).eval()
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=1.0)
    pixels_CHW = view(Scenes("val", 1).read(0).image, VIEWING)
    with torch.no_grad():
        scores_NCHW = model(normalized(pixels_CHW[None], VIEWING))
        scale = scores_NCHW.std((0, 2, 3))
        model.decode_head.classifier.weight /= scale[:, None, None, None]
        model.decode_head.classifier.bias.sub_(scores_NCHW.mean((0, 2, 3))).div_(scale)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "clothes.safetensors"
    return save_segmenter(network(), path, labels=NAMES, palette=PALETTE, viewing=VIEWING)


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Segmenter:
    return Segmenter(weights, device="cpu", probabilities=True)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Three sizes, none square, none of the input's."""
    return [
        Scenes("val", 3).read(index).image.resize(size) for index, size in enumerate(((120, 90), (70, 140), (200, 100)))
    ]


@pytest.mark.shared
@pytest.mark.parametrize("head", HEADS.values())
@torch.inference_mode()
def test_the_released_rules(head: str, golden: Path) -> None:
    """Whole, in windows and mirrored, at the size of a picture that was resized before."""
    official = read(golden / f"segmentation/{head}.safetensors")
    tensors, pixels = official.tensors, official.tensors["input_NCHW"][0]
    size, whole, windows = (150, 190), AS_IT_IS, replace(AS_IT_IS, window=(96, 96), stride=(64, 64))
    found = torch.cat(list(probabilities(official.segmenter, [Look(pixels, whole)], size)), 1)
    torch.testing.assert_close(found, tensors["whole.probabilities"][0], rtol=1e-5, atol=1e-5)
    first, second = found.topk(2, 0).values.unbind(0)
    clear = first - second > 1e-3
    assert clear.float().mean() > 0.99
    assert found.argmax(0)[clear].equal(tensors["whole.labels"][0][clear])
    summed = tensors["slide.scores" if head == "mask2former" else "slide.logits"][0].softmax(0)
    slid = torch.cat(list(probabilities(official.segmenter, [Look(pixels, windows)], (128, 160))), 1)
    torch.testing.assert_close(slid, summed, rtol=1e-5, atol=1e-5)
    mirrored = [Look(pixels, whole), Look(pixels, whole, mirrored=True)]
    for looks, name in (([Look(pixels, windows)], "slide.labels"), (mirrored, "tta_flip.labels")):
        labels = label_map(official.segmenter, looks, size)
        assert (labels == tensors[name][0]).float().mean() >= 0.999, name


def test_a_picture_is_looked_at_as_its_file_says(segmenter: Segmenter, pictures: list[Image.Image]) -> None:
    """By hand: resized into the frame and to the multiple, normalised, and back at the picture's own size."""
    model = network()
    for picture in pictures:
        pixels_CHW = view(picture, VIEWING)
        assert all(side % 32 == 0 for side in pixels_CHW.shape[1:])
        with torch.inference_mode():
            scores = model(normalized(pixels_CHW[None], VIEWING))
        for size in (tuple(pixels_CHW.shape[1:]), (picture.height, picture.width)):
            scores = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        found = segmenter(picture)
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities, scores[0].softmax(0).numpy(), atol=1e-3)
        first, second = scores[0].softmax(0).topk(2, 0).values.unbind(0)
        clear = (first - second > 1e-4).numpy()
        assert (found.labels[clear] == scores[0].argmax(0).numpy()[clear]).all()
        assert (found.classes, found.palette, found.size) == (NAMES, PALETTE, (picture.height, picture.width))


def test_every_kind_of_source(segmenter: Segmenter, pictures: list[Image.Image], tmp_path: Path) -> None:
    picture, path, buffer = pictures[0], tmp_path / "a.png", io.BytesIO()
    picture.save(path)
    picture.save(buffer, "PNG")
    expected = segmenter(picture)
    assert expected.source is None
    for source in (path, str(path), buffer.getvalue(), np.asarray(picture)):
        found = segmenter(source)
        assert (found.labels == expected.labels).all()
        assert found.source == (str(source) if isinstance(source, str | Path) else None)
    several = segmenter([picture, path])
    assert [type(each) for each in several] == [SegmentationMap, SegmentationMap]
    assert segmenter([]) == []


def test_mirrored_and_at_several_sizes(weights: Path, pictures: list[Image.Image]) -> None:
    """The mean of what each look says alone."""
    picture = pictures[0]
    alone = [Segmenter(weights, device="cpu", scales=(scale,), probabilities=True) for scale in (0.75, 1.5)]
    parts = [each(picture).probabilities for each in alone]
    parts += [each(ImageOps.mirror(picture)).probabilities[..., ::-1] for each in alone]  # pyright: ignore[reportOptionalSubscript]
    together = Segmenter(weights, device="cpu", scales=(0.75, 1.5), flip=True, probabilities=True)(picture)
    mean = np.mean([np.asarray(each, np.float32) for each in parts], 0)
    np.testing.assert_allclose(together.probabilities, mean, atol=2e-3)
    assert not (together.labels == parts[0].argmax(0)).all(), "looks must differ for this to show anything"


def test_windows_in_batches(weights: Path, pictures: list[Image.Image]) -> None:
    one = Segmenter(weights, device="cpu", window=(64, 48), stride=(32, 16), probabilities=True)
    expected = one(pictures[2], batch_size=1)
    found = one(pictures[2], batch_size=5)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-3)
    whole = Segmenter(weights, device="cpu", probabilities=True)(pictures[2])
    assert np.abs(whole.probabilities - expected.probabilities).max() > 0.01, "a window must see less than the whole"


def test_at_its_own_size(weights: Path, pictures: list[Image.Image]) -> None:
    """Unresized, in windows that cover the picture."""
    segmenter = Segmenter(weights, device="cpu", own_size=True, probabilities=True)
    shown = segmenter.viewing
    assert (shown.frame, shown.multiple, shown.window) == (None, 1, (512, 512))
    picture = pictures[1].resize((130, 160))
    with torch.inference_mode():
        pixels = view(picture, Viewing(frame=None))
        scores = network()(normalized(pixels[None], VIEWING))
        for size in (tuple(pixels.shape[1:]), (160, 130)):
            scores = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(segmenter(picture).probabilities, scores[0].softmax(0).numpy(), atol=1e-3)


def test_an_unreadable_image_is_told_and_the_others_go_on(segmenter: Segmenter, pictures: list[Image.Image]) -> None:
    results = list(segmenter.stream([pictures[0], b"nothing", pictures[1]]))
    assert [type(each) for each in results] == [SegmentationMap, ImageReadError, SegmentationMap]
    with pytest.raises(ImageReadError):
        segmenter([pictures[0], b"nothing"])


def test_names_and_colours_where_the_file_has_none(tmp_path: Path, pictures: list[Image.Image]) -> None:
    found = Segmenter(save_segmenter(network(), tmp_path / "bare.safetensors", viewing=VIEWING), device="cpu")(
        pictures[0]
    )
    assert found.classes.names == ("class 0", "class 1", "class 2")
    assert len(set(found.palette)) == 3
    assert found.probabilities is None


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.decode_head.classifier.bias[0] = float("nan")
    path = save_segmenter(model, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match=r"nan\.safetensors holds weights that are not finite"):
        Segmenter(path, device="cpu")


def test_scores_that_are_no_numbers(weights: Path, pictures: list[Image.Image]) -> None:
    segmenter = Segmenter(weights, device="cpu")
    with torch.no_grad():
        segmenter.model.decode_head.classifier.weight.mul_(1e38)
    with pytest.raises(ValueError, match=r"clothes\.safetensors gives scores that are not finite; its training"):
        segmenter(pictures[0])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    from internimage import Classifier, create_model, save_checkpoint

    path = save_checkpoint(create_model("internimage_femto", num_classes=2), tmp_path / "pets.safetensors")
    with pytest.raises(ValueError, match="holds a network for classification, not a segmenter"):
        Segmenter(path, device="cpu")
    own = save_segmenter(network(), tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="is a segmenter: it names pixels and no whole image; load it as a Segmenter"):
        Classifier(own)


def test_what_is_no_list_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"window must be two positive numbers of pixels, .*; got 512"):
        Segmenter(weights, device="cpu", window=512)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"scales must be a list of factors in \(0, 16\], got 0.5"):
        Segmenter(weights, device="cpu", scales=0.5)  # pyright: ignore[reportArgumentType]
