"""The weights that come with the package: small, whole, described, and as good as the table says."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

import internimage
from internimage.model import WEIGHTS, read_checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.model.weights import DEFAULT_WEIGHTS, DETECTORS, SEGMENTERS, SHIPPED, ShippedWeights

CIFAR10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10" / "test.tar.xz"
ROWS = pytest.mark.parametrize("row", SHIPPED.values(), ids=SHIPPED)


@ROWS
def test_the_file_is_small_and_in_half_precision(row: ShippedWeights) -> None:
    assert row.path.stat().st_size <= 8_000_000
    with safe_open(row.path, framework="pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118  # no mapping
    assert {kind for kind in kinds if kind.is_floating_point} == {torch.float16}


@ROWS
def test_the_file_says_what_the_table_says(row: ShippedWeights) -> None:
    card = read_checkpoint(row.path).card
    assert card is not None
    assert card.labels is not None
    assert card.preprocess is not None
    assert (len(card.labels), card.preprocess.size) == (row.num_classes, row.image_size)
    assert internimage.create_model(row.name).config.stem_strides == card.config.stem_strides == row.stem_strides
    assert row.name not in {*WEIGHTS, *DETECTORS, *SEGMENTERS}
    assert locate(row.name) == row.path


@ROWS
def test_the_model_card_says_what_a_user_must_know(row: ShippedWeights) -> None:
    text = row.path.with_suffix(".md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Recipe", "## Accuracy", "## Limits"):
        assert heading in text, heading
    assert f"{row.top1:.2f}%" in text
    assert "internimage fit --config" in text


def test_a_model_by_each_of_its_names() -> None:
    by_name = internimage.create_model(DEFAULT_WEIGHTS, pretrained=True)
    for other in (
        internimage.create_model("internimage_pico", pretrained=True),
        internimage.create_model("internimage_pico", pretrained=DEFAULT_WEIGHTS),
    ):
        for (name, mine), theirs in zip(by_name.state_dict().items(), other.state_dict().values(), strict=True):
            assert mine.dtype in (torch.float32, torch.int64), name
            assert torch.equal(mine, theirs), name
    maps = internimage.create_model(DEFAULT_WEIGHTS, pretrained=True, features_only=True)(torch.zeros(1, 3, 32, 32))
    assert [each.shape[-1] for each in maps] == [16, 8, 4, 2]
    assert internimage.create_model(DEFAULT_WEIGHTS, pretrained=True, num_classes=3).num_classes == 3
    with pytest.raises(ValueError, match=f"unknown weights 'internimage_pico.x'; choose from {DEFAULT_WEIGHTS}"):
        internimage.create_model("internimage_pico.x")


@pytest.mark.shared
@pytest.mark.skipif(not CIFAR10.is_file(), reason="needs the folder ../shared")
def test_they_know_real_images() -> None:
    """500 test images: the published accuracy, give or take what so few can say."""
    classifier = internimage.Classifier(device="cpu")
    pictures: list[Image.Image] = []
    names: list[str] = []
    with tarfile.open(CIFAR10) as tar:
        for member in tar:
            if member.isfile() and int(Path(member.name).stem) % 20 == 0:
                content = tar.extractfile(member)
                assert content is not None
                pictures.append(Image.open(io.BytesIO(content.read())))
                names.append(Path(member.name).parent.name)
    right = [found.label == name for found, name in zip(classifier(pictures), names, strict=True)]
    assert len(right) == 500
    accuracy, published = 100 * sum(right) / len(right), SHIPPED[DEFAULT_WEIGHTS].top1
    assert abs(accuracy - published) < 5, f"{accuracy:.1f}% on 500 images, {published:.1f}% on all"
