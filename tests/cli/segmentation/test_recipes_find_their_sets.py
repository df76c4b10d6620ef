"""Released recipes on sets of a few pixels, laid out as they are downloaded or as a recipe's comments say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.cli.configs import find_config, settings_in
from internimage.structures import IGNORED
from internimage.tasks.segmentation import SegmentationData

Pair = tuple[str, str]


def read(recipe: str, root: Path) -> SegmentationData:
    """The recipe's data, which does not resize a thing."""
    settings = settings_in(str(find_config(recipe)))["data"]["init_args"]
    own = {name: value for name, value in settings.items() if name not in ("preprocess", "augmentation")}
    return SegmentationData(**own | {"root": str(root), "frame": None, "num_workers": 0})


def lay_out(root: Path, pairs: Sequence[Pair], values: Sequence[int]) -> None:
    for picture, label_map in pairs:
        for name, mode in ((picture, "RGB"), (label_map, "L")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (len(values), 1)).save(root / name)
        Image.fromarray(np.array([values], np.uint8)).save(root / label_map)


def check(data: SegmentationData, num_train: int, num_classes: int, classes: list[int]) -> None:
    assert (len(data.dataset("train")), len(data.dataset("val"))) == (num_train, 1)
    assert len(data.labels) == len(data.palette) == num_classes
    for split in ("train", "val"):
        assert data.dataset(split).source.read(0).labels.tolist() == [classes]


def test_ade20k(tmp_path: Path) -> None:
    pairs = [(f"images/{split}/a.jpg", f"annotations/{split}/a.png") for split in ("training", "validation")]
    lay_out(tmp_path, pairs, [0, 1, 150])
    check(read("upernet_internimage_t_ade20k_512", tmp_path), 1, 150, [IGNORED, 0, 149])


CITY = [
    (f"leftImg8bit/{split}/ulm/ulm_0_leftImg8bit.png", f"gtFine/{split}/ulm/ulm_0_gtFine_labelTrainIds.png")
    for split in ("train", "val")
]


def test_cityscapes(tmp_path: Path) -> None:
    lay_out(tmp_path, CITY, [0, 18, 255])
    # Beside it the set has maps of other numbers.
    lay_out(tmp_path, [(CITY[0][0], CITY[0][1].replace("TrainIds", "Ids"))], [7, 33, 0])
    check(read("upernet_internimage_t_cityscapes_512x1024", tmp_path), 1, 19, [0, 18, IGNORED])


def test_cityscapes_with_more_pictures_in_a_list(tmp_path: Path) -> None:
    extra = ("leftImg8bit/train_extra/a_leftImg8bit.png", "refinement_final/train_extra/a.png")
    lay_out(tmp_path, [*CITY, extra], [0, 18, 255])
    (tmp_path / "train.txt").write_text("".join(f"{a} {b}\n" for a, b in (CITY[0], extra)), encoding="utf-8")
    for recipe in ("segformer_internimage_l_cityscapes_512x1024", "mask2former_internimage_h_cityscapes_1024"):
        check(read(recipe, tmp_path), 2, 19, [0, 18, IGNORED])


def test_mapillary_vistas(tmp_path: Path) -> None:
    pairs = [(f"{split}/images/a.jpg", f"{split}/labels/a.png") for split in ("training", "validation")]
    # Road, a crosswalk's marking, bicycle, a utility pole, a bus; unlabeled.
    lay_out(tmp_path, pairs, [13, 23, 52, 47, 54, 65])
    (tmp_path / "train.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
    for recipe in ("upernet_internimage_l_mapillary_512x1024", "mask2former_internimage_h_mapillary_896"):
        data = read(recipe, tmp_path)
        check(data, 2, 19, [0, IGNORED, 18, 5, 15, IGNORED])
        assert [data.labels[index] for index in (0, 18, 5, 15)] == ["road", "bicycle", "pole", "bus"]


def test_coco_stuff_164k(tmp_path: Path) -> None:
    pairs = [
        (f"images/{split}2017/1.jpg", f"annotations/{split}2017/1_labelTrainIds.png") for split in ("train", "val")
    ]
    lay_out(tmp_path, pairs, [0, 170, 255])
    check(read("mask2former_internimage_h_coco_stuff164k_896", tmp_path), 1, 171, [0, 170, IGNORED])


def test_coco_stuff_10k(tmp_path: Path) -> None:
    pairs = [
        (f"images/{split}2014/1.jpg", f"annotations/{split}2014/1_labelTrainIds.png") for split in ("train", "test")
    ]
    lay_out(tmp_path, pairs, [0, 1, 171])
    check(read("mask2former_internimage_h_coco_stuff10k_512", tmp_path), 1, 171, [IGNORED, 0, 170])


@pytest.mark.parametrize(
    ("recipe", "folders", "lists", "num_classes"),
    [
        (
            "mask2former_internimage_h_pascal_context_59_480",
            ("JPEGImages/{}.jpg", "SegmentationClassContext/{}.png"),
            ("ImageSets/SegmentationContext/train.txt", "ImageSets/SegmentationContext/val.txt"),
            59,
        ),
        (
            "mask2former_internimage_h_nyu_depth_v2_480",
            ("image/{}.png", "label40/{}.png"),
            ("train.txt", "test.txt"),
            40,
        ),
    ],
)
def test_sets_with_lists_of_names(recipe: str, folders: Pair, lists: Pair, num_classes: int, tmp_path: Path) -> None:
    """The command in the recipe makes lists of pairs of them."""
    lay_out(tmp_path, [(folders[0].format(name), folders[1].format(name)) for name in "abc"], [0, 1, num_classes])
    for path, names in zip(lists, ("a\nb\n", "c\n"), strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(names, encoding="utf-8")
    found = re.search(r"# +(sed .*)", find_config(recipe).read_text(encoding="utf-8"))
    assert found is not None
    for command in (found[1], found[1].replace("train", Path(lists[1]).stem)):
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    check(read(recipe, tmp_path), 2, num_classes, [IGNORED, 0, num_classes - 1])
