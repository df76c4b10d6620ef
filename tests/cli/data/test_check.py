"""`internimage data check`: what it takes a path for, and what it says where that is nothing known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.annotations import annotation, write_coco

Program = Callable[..., Any]
XML = "<annotation><object><name>dog</name><bndbox>{}</bndbox></object></annotation>".format(
    "".join(f"<{side}>{at}</{side}>" for side, at in {"xmin": 1, "ymin": 1, "xmax": 9, "ymax": 9}.items())
)


def picture(name: str, mode: str = "RGB") -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (40, 30)).save(path)


def text(name: str, content: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def lay_out(kind: str) -> None:
    """A folder ``set`` with a picture or a few."""
    if kind == "coco":
        write_coco(Path("set"), annotation())
    elif kind == "voc":
        picture("set/JPEGImages/a.jpg")
        text("set/Annotations/a.xml", XML)
    elif kind == "yolo":
        picture("set/images/train/a.jpg")
        text("set/labels/train/a.txt", "0 0.5 0.5 0.2 0.2\n")
        text("set/data.yaml", "names: [dog]\n")
    elif kind in ("labels", "masks", "annotations"):
        picture("set/images/train/a.jpg")
        picture(f"set/{kind}/train/a.png", "L")
    else:
        for name in ("train/dog/a", "train/cat/a", "val/dog/b", "val/cat/b"):
            picture(f"set/{name}.jpg")


LAYOUTS = {
    "coco": "set: detection, COCO's format",
    "voc": "set: detection, Pascal VOC (difficult objects count as crowds)",
    "yolo": "set: detection, YOLO",
    "labels": "set: segmentation, pictures with label maps",
    "masks": "set: segmentation, pictures with label maps",
    "annotations": "set: segmentation, pictures with label maps",
    "classes": "set: classification, one folder per class",
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_is_known_and_can_be_forced(program: Program, kind: str) -> None:
    lay_out(kind)
    outcome = program("data", "check", "set")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == LAYOUTS[kind]
    task = LAYOUTS[kind].split()[1].removesuffix(",")
    assert program("data", "check", "set", "--task", task).out == outcome.out


def test_an_annotation_file_alone(program: Program) -> None:
    """Its pictures are looked for where they would be in a folder; elsewhere they have to be named."""
    write_coco(Path("set"), annotation())
    shutil.copy("set/train.json", "mine.json")
    for given in (("set/train.json",), ("mine.json", "--images", "set/images")):
        outcome = program("data", "check", *given)
        assert (outcome.status, outcome.err) == (0, "")
        assert f"{Path(given[0]).name}         2                1        1" in outcome.out
    assert "say where the pictures of mine.json are: --images FOLDER" in program("data", "check", "mine.json").refusal()
    message = program("data", "check", "mine.json", "--task", "segmentation").refusal()
    assert "mine.json is an annotation file, which is for detection; give a folder for segmentation" in message
    assert "there is no file none.json" in program("data", "check", "none.json").refusal()
    assert "there is no folder gone" in program("data", "check", "mine.json", "--images", "gone").refusal()
    assert "--images goes with an annotation file" in program("data", "check", "set", "--images", "set").refusal()


def test_pictures_of_a_file_in_annotations(program: Program) -> None:
    write_coco(Path("set"), annotation())
    Path("set/annotations").mkdir()
    Path("set/train.json").rename("set/annotations/train.json")
    assert program("data", "check", "set/annotations/train.json").status == 0


@pytest.mark.parametrize(
    ("kind", "task", "message"),
    [
        ("classes", "detection", "set holds no annotations of a known format: COCO's annotations/train.json, "),
        ("classes", "segmentation", "set holds no pictures with label maps; put them into images/train with label"),
        ("yolo", "segmentation", "set holds no pictures with label maps"),
        ("masks", "detection", "set holds no annotations of a known format"),
        ("coco", "classification", "set holds only the class folder images; a classifier needs two classes or more"),
    ],
)
def test_another_task_than_it_is_for(program: Program, kind: str, task: str, message: str) -> None:
    lay_out(kind)
    assert message in program("data", "check", "set", "--task", task).refusal()


def test_a_task_that_is_none(program: Program) -> None:
    lay_out("coco")
    message = program("data", "check", "set", "--task", "detect").refusal()
    assert "--task must be one of classification, detection, segmentation; got 'detect'" in message


def test_nothing_known(program: Program) -> None:
    """All that would fit is said, and annotations that only have another name are found."""
    picture("set/a.jpg")
    message = program("data", "check", "set").refusal()
    assert "set holds images but no class folders; make one folder per class there" in message
    assert "for detection, COCO's annotations/train.json, Pascal VOC's Annotations/*.xml, YOLO's images/" in message
    assert "CrowdHuman's annotation_train.odgt, or OpenImages' class-descriptions-boxable.csv" in message
    assert "for segmentation, images/train with label maps of the same names in labels/train" in message
    text("set/annotations/instances_default.json", "{}")
    hint = "annotations/instances_default.json is named after no split: rename it, or give it as PATH with --images"
    assert hint in program("data", "check", "set").refusal()
    assert hint in program("data", "check", "set", "--task", "detection").refusal()


def test_formats_that_exclude_each_other(program: Program) -> None:
    for kind in ("voc", "yolo"):
        lay_out(kind)
    assert "holds XML files as Pascal VOC's and labels as YOLO's; keep one" in program("data", "check", "set").refusal()
    picture("set/masks/train/a.png", "L")
    picture("set/annotations/train/a.png", "L")
    message = program("data", "check", "set", "--task", "segmentation").refusal()
    assert "several folders of train pictures or label maps: images/train with annotations/train, images/t" in message


def test_objects_and_label_maps_of_the_same_pictures(program: Program) -> None:
    """Objects go first, and the other task is named."""
    path = write_coco(Path("set"), annotation())
    content = json.loads(path.read_bytes())
    for entry in content["images"]:
        picture(f"set/masks/{entry['file_name']}".replace(".jpg", ".png"), "L")
    outcome = program("data", "check", "set")
    assert outcome.out.startswith(LAYOUTS["coco"])
    assert outcome.out.endswith("there are label maps, too: --task segmentation looks at them\n")
    assert program("data", "check", "set", "--task", "segmentation").err.count("\n") == 2, "sizes differ"
