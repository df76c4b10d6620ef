"""What says how label maps are meant, and where it has nothing to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from internimage.tasks.segmentation import SegmentationData
from internimage.tasks.segmentation.report import _in_words

OF_MAPS: list[dict[str, Any]] = [
    {"classes": ["sky", "road"]},
    {"ignored": [3]},
    {"reduce_zero": True},
    {"values": {1: 0}},
]


@pytest.mark.parametrize("given", [*OF_MAPS, {"files": {"train": ["a", "b"]}}])
def test_scenes_have_classes_of_their_own(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"the scenes have .*: leave data\.init_args\.{next(iter(given))} out"):
        SegmentationData("scenes", **given)


@pytest.mark.parametrize("given", OF_MAPS)
def test_categories_are_the_classes_of_objects(given: dict[str, Any], maps: Path, tmp_path: Path) -> None:
    for name in ("annotations", "images"):
        (tmp_path / name).symlink_to(maps / name)
    assert SegmentationData(str(tmp_path)).labels[0] == "background"
    with pytest.raises(ValueError, match=rf"no label maps, .*: leave data\.init_args\.{next(iter(given))} out"):
        SegmentationData(str(tmp_path), **given).dataset("train")


def test_classes_may_be_counted(maps: Path) -> None:
    data = SegmentationData(str(maps), classes=12)
    assert data.labels.names[-1] == "class 11"
    assert len(data.palette) == 12


def test_a_picture_of_ignored_pixels_has_no_share() -> None:
    assert _in_words(float("nan")) == "all its pixels are ignored"
    assert _in_words(0.5) == "50.0% right"
