"""CrowdHuman's lines as COCO's annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internimage.data.detection.coco import find_coco, read_coco
from internimage.data.detection.formats import MisreadError, convert_split, convert_to_coco, detect_format

PERSON = {"tag": "person", "fbox": [5, -2, 10, 20], "vbox": [5, 0, 10, 8], "hbox": [8, 1, 3, 3], "extra": {"box_id": 0}}


def write(root: Path, *lines: Any, split: str = "train", home: str = "annotations") -> Path:
    """A line for each picture of 40 x 30 pixels that ``lines`` names; text is written as it is."""
    path = root / home / f"annotation_{split}.odgt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    (root / "Images").mkdir(exist_ok=True)
    for line in lines:
        if isinstance(line, dict) and line.get("ID") != "lost":
            Image.new("RGB", (40, 30)).save(root / "Images" / f"{line['ID']}.jpg")
    return path


def test_lines_by_hand(tmp_path: Path) -> None:
    """A person who leaves the picture, one to be ignored, and what is none; and a picture of nobody."""
    ignored = PERSON | {"extra": {"ignore": 1}}
    write(
        tmp_path,
        {"ID": "1,a", "gtboxes": [PERSON, ignored, PERSON | {"tag": "mask"}]},
        "",
        {"ID": "2,b", "gtboxes": []},
    )
    assert detect_format(tmp_path) == "crowdhuman"
    found = convert_split(tmp_path, "crowdhuman", "train")
    assert found.content["categories"] == [{"id": 1, "name": "person"}]
    names = ("Images/1,a.jpg", "Images/2,b.jpg")
    assert found.content["images"] == [
        {"id": at, "file_name": name, "width": 40, "height": 30} for at, name in enumerate(names, start=1)
    ]
    box = {"image_id": 1, "category_id": 1, "bbox": [5, -2, 10, 20], "area": 200}
    assert found.content["annotations"] == [{"id": at, "iscrowd": int(at > 1), **box} for at in (1, 2, 3)]
    assert found.places[1] == f"{tmp_path / 'annotations/annotation_train.odgt'}, line 1, box 2"


@pytest.mark.parametrize("home", ["annotations", "."])
def test_written_and_read_again(home: str, tmp_path: Path) -> None:
    write(tmp_path, {"ID": "a", "gtboxes": [PERSON]}, home=home)
    write(tmp_path, {"ID": "b", "gtboxes": [PERSON]}, split="val", home=home)
    written = convert_to_coco(tmp_path, tmp_path)
    assert [path.name for path in written] == ["train.json", "val.json"]
    found = find_coco(tmp_path, "val")
    assert found is not None
    read = read_coco(*found)
    read.check()
    assert [each.box for picture in read.pictures for each in picture.instances] == [(5, 0, 15, 18)]
    assert "boxes clipped to their pictures: 1" in read.summary()


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", r"annotation_train\.odgt, line 2 is not valid JSON"),
        ([], r"line 2 must be an object with a text as ID and a list gtboxes"),
        ({"ID": "a", "gtboxes": None}, r"line 2 must be an object with a text as ID and a list gtboxes"),
        ({"ID": "lost"}, r"line 2: there is no picture lost\.jpg below Images"),
        (
            {"ID": "a", "gtboxes": [{"tag": "person"}]},
            r"line 2, box 1: fbox must be \[x, y, width, height\].*, got None",
        ),
        ({"ID": "a", "gtboxes": [7]}, r"line 2, box 1: fbox must be"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 2, 3, NaN]}]}', r"line 2, box 1: fbox must be"),
    ],
)
def test_broken_lines_are_named(line: Any, match: str, tmp_path: Path) -> None:
    write(tmp_path, {"ID": "a", "gtboxes": [PERSON]}, line)
    with pytest.raises(ValueError, match=match):
        convert_to_coco(tmp_path, tmp_path)
    assert not (tmp_path / "annotations/train.json").exists()
    faults: list[MisreadError] = []
    found = convert_split(tmp_path, "crowdhuman", "train", faults)
    assert len(faults) == 1
    assert found.content["annotations"][0]["bbox"] == [5, -2, 10, 20], "the rest is read"


def test_without_pictures_or_split(tmp_path: Path) -> None:
    path = write(tmp_path, {"ID": "a"})
    with pytest.raises(ValueError, match="has no split val; it has train"):
        convert_split(tmp_path, "crowdhuman", "val")
    (tmp_path / "Images").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match=f"has no folder Images with the pictures of {path}"):
        convert_split(tmp_path, "crowdhuman", "train")
