"""Image processors: the published files', and ours for released weights, against our own preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from internimage import InternImageConfig, Preprocess
from internimage.data.preprocess import to_tensor
from internimage.data.samples.fashion_mnist import load_sample_arrays
from internimage.integrations.transformers import image_processor
from internimage.model import WEIGHTS, read_checkpoint
from support.published import network_of, write_published

SMALL = InternImageConfig(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), num_classes=3)


def picture(rows: int, columns: int) -> Image.Image:
    """Real photographs side by side, 28 x 28 pixels each."""
    images = load_sample_arrays("test")[0][: rows * columns]
    return Image.fromarray(np.vstack([np.hstack(list(row)) for row in np.split(images, rows)])).convert("RGB")


PICTURES = {"small": (1, 1), "wide": (13, 20), "tall": (20, 11)}


def prepared(processor: object, image: Image.Image) -> Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]  # type: ignore[operator]


def levels_apart(one: Tensor, other: Tensor, preprocess: Preprocess) -> Tensor:
    """Differences in steps of an 8-bit picture."""
    return (one - other).abs() * torch.tensor(preprocess.std).view(3, 1, 1) * 255


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    "preprocess",
    [Preprocess(), Preprocess(size=384), Preprocess(crop_ratio=0.875), Preprocess(size=96, interpolation="bilinear")],
    ids=["224", "384", "224_of_256", "96_bilinear"],
)
def test_processor_does_what_we_do(name: str, preprocess: Preprocess, tmp_path: Path) -> None:
    image = picture(*PICTURES[name])
    processor, expected = image_processor(preprocess), to_tensor(image, preprocess)
    if odd_margin(image, preprocess):
        # transformers leaves the odd pixel on one side, torchvision and we on the other if that is rounder.
        expected = to_tensor(shifted(image, preprocess), Preprocess.from_dict(preprocess.to_dict() | {"crop_ratio": 1}))
    assert torch.equal(prepared(processor, image), expected)
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert torch.equal(prepared(again, image), expected)
    pytest.importorskip("torchvision")
    fast = AutoImageProcessor.from_pretrained(tmp_path, backend="torchvision")
    apart = levels_apart(prepared(fast, image), expected, preprocess)
    # It rounds some pixels to the other neighbour.
    assert apart.max() < 2.01
    assert apart.mean() < 0.01


@pytest.mark.parametrize(
    "preprocess", [Preprocess(size=63, crop_ratio=63 / 73), Preprocess(48, 1.0, "nearest")], ids=str
)
def test_our_loader_reads_processors(preprocess: Preprocess, tmp_path: Path) -> None:
    folder = write_published(tmp_path, network_of(SMALL), image_size=96)
    card = read_checkpoint(folder).card
    assert card is not None
    assert card.preprocess == Preprocess(size=96)
    image_processor(preprocess).save_pretrained(folder)
    card = read_checkpoint(folder).card
    assert card is not None
    assert card.preprocess is not None
    assert image_processor(card.preprocess).to_dict() == image_processor(preprocess).to_dict()
    (folder / "preprocessor_config.json").write_text('{"size": 64, "crop_size": 64, "do_normalize": false}')
    with pytest.warns(UserWarning, match="preprocessor_config.json is ignored"):
        assert read_checkpoint(folder).card is not None


def resized_size(image: Image.Image, preprocess: Preprocess) -> tuple[int, int]:
    short = int(preprocess.size / preprocess.crop_ratio)
    width, height = image.size
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def odd_margin(image: Image.Image, preprocess: Preprocess) -> bool:
    return any((side - preprocess.size) % 4 == 3 for side in resized_size(image, preprocess))


def shifted(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The crop that rounds down."""
    width, height = resized_size(image, preprocess)
    resample = Image.Resampling[preprocess.interpolation.upper()]
    left, top = (width - preprocess.size) // 2, (height - preprocess.size) // 2
    whole = image.resize((width, height), resample)
    return whole.crop((left, top, left + preprocess.size, top + preprocess.size))


def test_the_pictures_cover_odd_margins() -> None:
    assert odd_margin(picture(13, 20), Preprocess(size=96, interpolation="bilinear"))
    assert not odd_margin(picture(13, 20), Preprocess())


@pytest.mark.parametrize("name", WEIGHTS)
def test_released_weights_say_their_size(name: str, tmp_path: Path) -> None:
    size = WEIGHTS[name].image_size
    processor = image_processor(name)
    assert processor.size["shortest_edge"] == processor.crop_size["height"] == processor.crop_size["width"] == size
    assert (processor.resample, processor.do_center_crop, processor.do_convert_rgb) == (3, True, True)
    assert tuple(processor.image_mean) == Preprocess().mean
    # A published folder's own file says the same.
    folder = write_published(tmp_path, network_of(SMALL), image_size=size)
    published = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for setting in ("size", "crop_size", "resample", "image_mean", "image_std", "do_resize", "do_normalize"):
        assert getattr(published, setting) == getattr(processor, setting), setting


def test_type_of_processor_follows_from_the_model(tmp_path: Path) -> None:
    """Settings alone are enough beside a model of ours."""
    write_published(tmp_path, network_of(SMALL))
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 48, "size": 48}')
    assert type(AutoImageProcessor.from_pretrained(tmp_path)).__name__.startswith("CLIPImageProcessor")


def test_what_can_not_be_said() -> None:
    with pytest.raises(ValueError, match=r"unknown weights 'internimage_t'; choose from internimage_t.in1k_224"):
        image_processor("internimage_t")
    with pytest.raises(ValueError, match="grey images"):
        image_processor(Preprocess(mean=(0.5,), std=(0.5,)))
