"""The values that travel between rooms."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from internimage.structures import IMAGENET_MEAN, IMAGENET_STD, Classification, LabelMap, Preprocess


def test_labels_keep_their_order_and_find_their_index() -> None:
    labels = LabelMap(["zebra", "ant", "cow"])
    assert labels.names == ("zebra", "ant", "cow")
    assert list(labels) == ["zebra", "ant", "cow"]
    assert [labels.index(name) for name in labels] == [0, 1, 2]
    assert labels == LabelMap(("zebra", "ant", "cow"))
    assert hash(labels) == hash(LabelMap(("zebra", "ant", "cow")))
    assert labels != LabelMap(("ant", "cow", "zebra"))


def test_labels_refuse_doubles_and_unknown_names() -> None:
    with pytest.raises(ValueError, match="unique, but ant occurs more than once"):
        LabelMap(("ant", "cow", "ant"))
    with pytest.raises(ValueError, match="unknown class 'dog'; the classes are ant, cow"):
        LabelMap(("ant", "cow")).index("dog")


@pytest.mark.parametrize("names", ["cat", 3, None, ("cat", 3)])
def test_labels_are_a_list_of_texts(names: object) -> None:
    with pytest.raises(ValueError, match=f"class names must be a list of texts, got {re.escape(repr(names))}"):
        LabelMap(names)


def test_numbers_of_numpy_become_plain_ones() -> None:
    preprocess = Preprocess(mean=list(np.float32([0.5, 0.5, 0.5])), std=np.full(3, 0.25))
    assert preprocess == Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert json.loads(json.dumps(preprocess.to_dict()))["std"] == [0.25, 0.25, 0.25]


def test_doubles_are_seen_among_any_number_of_names() -> None:
    names = [f"class {index}" for index in range(2000)]
    with pytest.raises(ValueError, match="unique, but class 7 occurs more than once"):
        LabelMap((*names, "class 7"))


def test_names_of_several_classes_are_told_apart() -> None:
    assert LabelMap.telling_apart(["crane", "heron", "crane"]).names == ("crane (0)", "heron", "crane (2)")


def test_numbered_labels() -> None:
    assert LabelMap.numbered(3).names == ("class 0", "class 1", "class 2")
    assert len(LabelMap.numbered(21841)) == 21841


def test_preprocess_by_default_is_the_official_evaluation() -> None:
    preprocess = Preprocess()
    assert (preprocess.size, preprocess.crop_ratio, preprocess.interpolation) == (224, 1.0, "bicubic")
    assert (preprocess.mean, preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert preprocess.in_chans == 3


def test_preprocess_survives_json() -> None:
    preprocess = Preprocess(28, 0.875, "nearest", (0.5,), (0.25,))
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again == preprocess
    assert hash(again) == hash(preprocess)
    assert again.in_chans == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be a positive number"),
        ({"size": "224"}, "size must be a positive number of pixels, got '224'"),
        ({"size": 224.5}, "size must be a positive number of pixels, got 224.5"),
        ({"size": True}, "size must be a positive number of pixels, got True"),
        ({"crop_ratio": "1"}, r"crop_ratio must be in \(0, 1\], got '1'"),
        ({"crop_ratio": float("nan")}, r"crop_ratio must be in \(0, 1\], got nan"),
        ({"std": (1.0, float("nan"), 1.0)}, "mean and std must be made of finite numbers, got .*nan"),
        ({"mean": ("0.5", "0.5", "0.5")}, "mean and std must be made of finite numbers, got .*'0.5'"),
        ({"mean": 0.5}, "mean and std must be made of finite numbers, got 0.5"),
        ({"std": (float("inf"),), "mean": (0.5,)}, "mean and std must be made of finite numbers"),
        ({"crop_ratio": 0.0}, r"crop_ratio must be in \(0, 1\]"),
        ({"crop_ratio": 1.01}, r"crop_ratio must be in \(0, 1\]"),
        ({"interpolation": "lanczos"}, "bicubic, bilinear or nearest, got 'lanczos'"),
        ({"mean": (0.5, 0.5)}, "mean and std need 1"),
        ({"mean": (0.5,)}, "mean and std need 1"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
    ],
)
def test_preprocess_refuses(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess(**settings)


def test_preprocess_names_unknown_settings() -> None:
    with pytest.raises(ValueError, match=r"unknown preprocessing settings \['sise'\]; known are .*size"):
        Preprocess.from_dict({"sise": 3})


def test_a_classification_ranks_its_classes() -> None:
    result = Classification((0.2, 0.5, 0.2, 0.1), LabelMap(("a", "b", "c", "d")), "photo.jpg")
    assert (result.label, result.score) == ("b", 0.5)
    # Equals keep the order of the classes.
    assert result.top(3) == [("b", 0.5), ("a", 0.2), ("c", 0.2)]
    assert len(result.top(9)) == 4
    with pytest.raises(ValueError, match="2 probabilities but 3 class names"):
        Classification((0.5, 0.5), LabelMap(("a", "b", "c")))
