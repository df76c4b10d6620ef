"""Accuracies and consistencies by hand; classes are matched by their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import internimage
from internimage.data.corruptions import CORRUPTIONS, Corruption
from internimage.inference import Classifier
from internimage.inference.robustness import classify_with, measure_robustness
from internimage.structures import LabelMap, Preprocess


def lighten(picture_CHW: Tensor, strength: float, number: int) -> Tensor:
    """Every second picture."""
    return picture_CHW + (strength if number % 2 else 0)


LIGHTER = Corruption("lighter", "added", (0.1, 0.5), lighten)
# Dark ones are of class 0; the second is named wrongly.
VALUES, TARGETS = (0.2, 0.45, 0.6, 0.3, 0.9), (0, 1, 1, 0, 1)


def is_bright(picture_NCHW: Tensor) -> Tensor:
    return (picture_NCHW.mean((1, 2, 3)) > 0.5).long()


def pictures() -> Iterator[tuple[Tensor, int]]:
    for value, target in zip(VALUES, TARGETS, strict=True):
        yield torch.full((1, 4, 4), value), target


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_shares_by_hand(batch_size: int) -> None:
    seen: list[int] = []
    always_dark, bright = measure_robustness(
        {"dark": lambda picture: torch.zeros(len(picture), dtype=torch.long), "bright": is_bright},
        pictures(),
        corruptions=[LIGHTER],
        batch_size=batch_size,
        progress=seen.append,
    )
    assert seen[-1] == bright.num_images == 5
    assert (bright.name, bright.clean) == ("bright", 0.8)
    # By 0.1 the second is lifted over the half and right; by 0.5 the fourth is as well, and wrong.
    assert bright.accuracy == {"lighter": (1.0, 0.8)}
    assert bright.consistency == {"lighter": (0.8, 0.6)}
    assert (always_dark.clean, always_dark.accuracy) == (0.4, {"lighter": (0.4, 0.4)})
    assert always_dark.consistency == {"lighter": (1.0, 1.0)}


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """The pictures know fewer classes, in another order; a class's folder may be called otherwise."""
    network = internimage.create_model("internimage_femto", num_classes=3, stem_strides=(1, 1)).eval()
    labels = LabelMap(("cat", "dog/wolf", "owl"))
    internimage.save_checkpoint(network, tmp_path / "a.safetensors", labels=labels, preprocess=Preprocess(16))
    ours = Classifier(tmp_path / "a.safetensors", device="cpu")
    images = torch.rand(6, 3, 16, 16)
    found = classify_with(ours, LabelMap(("owl", "dog-wolf")))(images)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (ours.preprocess.mean, ours.preprocess.std))
    with torch.inference_mode():
        scores = ours.model((images - mean) / std)
    assert torch.equal(found, scores[:, [2, 1]].argmax(1))
    with pytest.raises(ValueError, match="unknown class 'bat'"):
        classify_with(ours, LabelMap(("owl", "bat")))


def test_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="no picture to show"):
        measure_robustness({"a": is_bright}, [])
    with pytest.raises(ValueError, match="at least one classifier"):
        measure_robustness({}, pictures())
    with pytest.raises(ValueError, match=r"a gives \(5, 1, 4, 4\) for 5 pictures"):
        measure_robustness({"a": lambda picture: picture}, pictures(), corruptions=[CORRUPTIONS["contrast"]])
