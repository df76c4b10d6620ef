"""`internimage data check` of Pascal VOC and YOLO: what COCO's check finds and more, named by their own files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Program = Callable[..., Any]
OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"
SIZE = "<size><width>{}</width><height>30</height></size>"
CONVERT = "note: training reads COCO's format: convert it with `internimage data coco {} OUTPUT`"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def one(name: str, *corners: object, difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    return OBJECT.format(name, difficult, "".join(f"<{side}>{at}</{side}>" for side, at in sides))


def findings(text: str) -> list[str]:
    """Headings and examples, without the tables."""
    lines = [line for line in text.splitlines() if line.startswith(("internimage:", "  "))]
    return [line.removeprefix("internimage:").strip() for line in lines]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three pictures with lists of splits."""
    root = tmp_path / "voc"
    dogs = one("dog", 1, 1, 10, 10), one("dog", 30, 5, 55, 10), one("dog", 9, 1, 2, 2)
    for name, objects in {"a": (*dogs, one("cat", 5, 5, 9, 9, difficult=1)), "b": (), "c": dogs[:1]}.items():
        write(root / f"Annotations/{name}.xml", f"<annotation>{SIZE.format(40)}{''.join(objects)}</annotation>")
        picture(root / f"JPEGImages/{name}.jpg")
    write(root / "ImageSets/Main/train.txt", "a\nb\n")
    write(root / "ImageSets/Main/val.txt", "c\n")
    return root


def test_voc(program: Program, voc: Path) -> None:
    picture(voc / "JPEGImages/plain.jpg")
    outcome = program("data", "check", "voc")
    assert (outcome.status, outcome.err) == (0, "")
    assert "\ntrain         2                1        2        1       1      0\n" in outcome.out
    assert "\nval           1                0        1        1       0      0\n" in outcome.out
    assert f"\n{CONVERT.format('voc')}\n" in outcome.out
    assert findings(outcome.out) == [
        "boxes clipped to their pictures: 1",
        "voc/Annotations/a.xml: object 2 (dog): its bbox [29.0, 4.0, 26.0, 6.0] leaves its picture of 40 x 30 pixels; "
        "clipped",
        "boxes without area left out: 1",
        "voc/Annotations/a.xml: object 3 (dog): its bbox [8.0, 0.0, -6.0, 2.0] has no area; left out",
        "pictures without an XML file: 1",
        "voc/JPEGImages/plain.jpg: it is not used",
    ]


def test_faults_of_voc(program: Program, voc: Path) -> None:
    """All of them at once, once each, and what is left is counted."""
    broken = one("", 1, 1, 9, 9), one("dog", 1, "x", 9, 9), "<object><name>dog</name></object>", one("cow", 1, 1, 9, 9)
    write(voc / "Annotations/b.xml", f"<annotation>{SIZE.format(50)}{''.join(broken)}</annotation>")
    write(voc / "Annotations/c.xml", "<annotation>")
    write(voc / "Annotations/d.xml", "<annotation/>")
    write(voc / "ImageSets/Main/train.txt", "a\nb\nd\nzz\n")
    outcome = program("data", "check", "voc")
    assert outcome.status == 1
    assert "\ntrain         2                0        3        2       1      0\n" in outcome.out
    assert findings(outcome.err) == [
        "listed files that are not there: 1",
        "voc/ImageSets/Main/train.txt, line 4: there is no voc/Annotations/zz.xml; add it, or remove the line",
        "objects without a name or a box: 2",
        "voc/Annotations/b.xml: object 1 has no <name>; add it, or remove the object",
        "voc/Annotations/b.xml: object 3 (dog) has no <bndbox><xmin>; add it, or remove the object",
        "files that can't be read: 1",
        "voc/Annotations/c.xml is not valid XML: no element found: line 1, column 12",
        "coordinates that are no numbers: 1",
        "voc/Annotations/b.xml: object 2 (dog): <ymin> is 'x', which is no finite number; correct it",
        "annotations without one picture: 1",
        "voc/Annotations/d.xml has no picture of its name in the folder of the pictures; there must be one",
        "pictures of another size than the annotations say: 1",
        "voc: image 2 (b.jpg): the file is 40 x 30 pixels, but the annotations say 50 x 30; boxes would not fit: use "
        "the pictures that were annotated",
    ]
    assert outcome.out.endswith("\n7 to mend by hand before training\n")


def test_voc_without_objects(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "a.xml", "<annotation/>")
    picture(tmp_path / "a.jpg")
    assert "no XML file has an object, so there are no classes" in program("data", "check", ".").refusal()
    write(tmp_path / "a.xml", "<annotation>")
    outcome = program("data", "check", ".")
    assert (outcome.status, findings(outcome.err)[0]) == (1, "files that can't be read: 1")


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A box, a triangle, a picture without labels; one to validate; and a test folder without labels."""
    root = tmp_path / "yolo"
    for name in ("train/a", "train/b", "val/c", "test/d"):
        picture(root / f"images/{name}.jpg")
    write(root / "labels/train/a.txt", "0 .5 .5 .2 .2\n\n1 .1 .1 .5 .1 .5 .5\n")
    write(root / "labels/val/c.txt", "0 0 .5 .2 .2\n1 .5 .5 0 .2\n")
    write(root / "data.yaml", "names: [dog, cat]\n")
    return root


def test_yolo(program: Program, yolo: Path) -> None:
    outcome = program("data", "check", yolo)
    assert (outcome.status, outcome.err) == (0, "")
    assert "\ntrain         2                1        2        2       0      1\n" in outcome.out
    assert f"\n{CONVERT.format(yolo)}\n" in outcome.out
    assert findings(outcome.out) == [
        "pictures without a label file: 1",
        f"{yolo}/images/train/b.jpg: taken as without objects",
        "boxes clipped to their pictures: 1",
        f"{yolo}/labels/val/c.txt, line 1: its bbox [-4.0, 12.0, 8.0, 6.0] leaves its picture of 40 x 30 pixels; "
        "clipped",
        "boxes without area left out: 1",
        f"{yolo}/labels/val/c.txt, line 2: its bbox [20.0, 12.0, 0.0, 6.0] has no area; left out",
        "splits left out: 1",
        f"{yolo}/images/test: it has no labels beside it; left out",
    ]


def test_faults_of_yolo(program: Program, yolo: Path) -> None:
    lines = ("0 .5 .5 .2 .2", "", "5 .5 .5 .2 .2", "0 20 15 10 6", "0 nan .5 .2 .2", "0 .5 x .2 .2", "0 1 2")
    write(yolo / "labels/train/a.txt", "\n".join(lines))
    write(yolo / "labels/train/gone.txt", "0 .5 .5 .2 .2")
    (yolo / "labels/train/b.txt").write_bytes(b"0 \xff")
    (yolo / "images/val/c.jpg").write_bytes(b"none")
    picture(yolo / "images/train/a.png")
    outcome = program("data", "check", "yolo")
    assert outcome.status == 1
    assert "\ntrain         1                0        1        1       0      0\n" in outcome.out
    assert findings(outcome.err) == [
        "label files without a picture: 1",
        "yolo/labels/train/gone.txt has no picture in yolo/images/train; add it, or remove the labels",
        "files that differ in their suffix only: 1",
        "yolo/images/train/a.jpg has the name of another but for its suffix; labels can't tell them apart",
        "objects of an unknown class: 1",
        "yolo/labels/train/a.txt, line 3: the class must be a number from 0 to 1, got '5'",
        "coordinates outside 0 to 1: 1",
        "yolo/labels/train/a.txt, line 4: 20 is no share between 0 and 1; divide pixels by the picture's size",
        "coordinates that are no numbers: 2",
        "yolo/labels/train/a.txt, line 5: nan is no share between 0 and 1; divide pixels by the picture's size",
        "yolo/labels/train/a.txt, line 6: 'x' is no number; correct it",
        "lines of another form: 1",
        "yolo/labels/train/a.txt, line 7 has 3 values, but must be 'class cx cy width height' or 'class x y x y x y "
        "...'",
        "files that can't be read: 1",
        "yolo/labels/train/b.txt is not a text file: 'utf-8' codec can't decode byte 0xff in position 2: invalid start "
        "byte",
        "pictures that can't be read: 1",
        "cannot read yolo/images/val/c.jpg: it is not an image of a known format, or its header is damaged; save it as "
        "PNG",
    ]


def test_yolo_without_class_names(program: Program, yolo: Path) -> None:
    (yolo / "data.yaml").unlink()
    assert "yolo names no classes; add data.yaml with 'names: [cat, dog]'" in program("data", "check", "yolo").refusal()
