"""`internimage data check` of objects: every fault is counted, named with file and id, and mended or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.annotations import CATEGORIES, IMAGES, TRIANGLE, annotation, write_coco

Program = Callable[..., Any]
RUNS = {"size": [30, 40], "counts": [1000, 200]}
NAN = float("nan")
HEADER = "split  pictures  without objects  objects  classes  crowds  masks"


def write(*annotations: Any, **parts: Any) -> Path:
    return write_coco(Path("set"), *annotations, **parts)


def groups(text: str) -> dict[str, list[str]]:
    """The headings of findings, and the lines below each."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("    "):
            found[list(found)[-1]].append(line.strip())
        elif line.startswith(("  ", "internimage: ")):
            found[line.removeprefix("internimage:").strip()] = []
    return found


def test_a_good_set(program: Program) -> None:
    """Two splits with other category ids; a crowd, a mask, a picture without objects, and a class without any."""
    crowd = annotation(18, iscrowd=1, bbox=[0, 0, 40, 30], segmentation=RUNS)
    write(annotation(segmentation=[TRIANGLE]), annotation(19, bbox=[3, 3, 3, 3]), crowd)
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    content = {"images": IMAGES[1:], "annotations": [annotation(image_id=1, category_id=1)], "categories": categories}
    content["annotations"][0]["bbox"] = [1, 1, 5, 5]
    Path("set/val.json").write_text(json.dumps(content), encoding="utf-8")
    outcome = program("data", "check", "set")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "set: detection, COCO's format",
        "",
        HEADER,
        "train         2                1        2        1       1      2",
        "val           1                0        1        1       0      0",
        "",
        "objects of  train  val",
        "cat             0    0",
        "dog             2    1",
        "",
        "note: train has no objects of cat",
        "note: 2 of 3 objects and crowds of train have masks: boxes alone are learned unless all have one",
        "note: 1 pictures are in train and in val: measured there, results are too good",
        "",
        "train: 2 of 2 pictures can be read and have the annotated size",
        "val: 1 of 1 pictures can be read and have the annotated size",
        "",
        "nothing to mend by hand",
    ]


MENDED = {
    "outside": (annotation(bbox=[-5, 2, 10, 20]), "boxes clipped to their pictures", "its bbox [-5, 2, 10, 20] leaves"),
    "no area": (annotation(bbox=[1, 2, 0, 20]), "boxes without area left out", "its bbox [1, 2, 0, 20] has no area"),
    "no image": (annotation(image_id=9), "annotations of no listed image left out", "the file lists no image 9"),
    "twice": (annotation(18), "repeated annotations left out", "the image has the same object already; left out"),
}


@pytest.mark.parametrize("case", MENDED)
def test_what_is_mended(program: Program, case: str) -> None:
    raw, heading, text = MENDED[case]
    write(annotation(), {**raw, "id": 18})
    outcome = program("data", "check", "set")
    assert (outcome.status, outcome.err) == (0, "")
    ((found, lines),) = groups(outcome.out).items()
    assert found == f"{heading}: 1"
    assert lines[0].startswith("train.json: annotation 18 (image ")
    assert text in lines[0]
    assert "\nmended whenever the set is read:\n" in outcome.out
    assert outcome.out.endswith("\nnothing to mend by hand\n")


REFUSED = {
    "nan": (
        annotation(18, bbox=[1, NAN, 3, 4]),
        "coordinates that are no numbers",
        "its bbox [1, nan, 3, 4] holds nan",
    ),
    "category": (
        annotation(18, category_id=5),
        "objects of an unknown class",
        "its category_id 5 is not in the file's",
    ),
    "rle": (
        annotation(18, segmentation={**RUNS, "counts": [1000, 100]}),
        "broken masks",
        "its run-length encoded mask is broken: its counts sum to 1100, not to 30 x 40 = 1200 pixels; export it again",
    ),
    "id": (
        annotation(17, bbox=[1, 2, 3, 4]),
        "annotations with the id of another",
        "another annotation, of image 3, has",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(program: Program, case: str) -> None:
    raw, heading, text = REFUSED[case]
    write(annotation(), raw)
    outcome = program("data", "check", "set")
    assert outcome.status == 1
    ((found, lines),) = groups(outcome.err).items()
    assert found == f"{heading}: 1"
    assert f"train.json: annotation {raw['id']} (image 3, a.jpg): " in lines[0]
    assert text in lines[0]
    assert outcome.out.endswith("\n1 to mend by hand before training\n")
    assert "mended" not in outcome.out


def test_images_and_categories(program: Program) -> None:
    """Listed and not there, there and not listed, ids and names twice, damaged, of another size."""
    images = [*IMAGES, {"id": 3, "file_name": "c.jpg"}, {"id": 4, "file_name": "gone.jpg"}]
    images += [
        {"id": at, "file_name": name, "width": 9, "height": 9} for at, name in ((5, "small.jpg"), (6, "cut.jpg"))
    ]
    write(annotation(), images=images, categories=[*CATEGORIES, {"id": 2, "name": "elk"}, {"id": 4, "name": "dog"}])
    Image.new("RGB", (8, 9)).save("set/images/small.jpg")
    Path("set/images/cut.jpg").write_bytes(Path("set/images/a.jpg").read_bytes()[:300])
    for name in ("d.jpg", "e.jpg"):
        Image.new("RGB", (8, 9)).save(f"set/images/{name}")
    outcome = program("data", "check", "set")
    assert outcome.status == 1
    assert list(groups(outcome.err)) == [
        "categories with the id of another: 1",
        "categories with the name of another: 1",
        "images with the id of another: 1",
        "listed pictures that are not there: 1",
        "pictures of another size than the annotations say: 1",
        "pictures that can't be read: 1",
    ]
    assert "\ntrain: 2 of 4 pictures can be read and have the annotated size\n" in outcome.out
    text = "train.json: set/images/d.jpg: the file does not list this image; it is not used (and 1 more)"
    assert groups(outcome.out) == {"images in the folders that the file does not list: 2": [text]}
    assert outcome.out.endswith("\n6 to mend by hand before training\n")


def test_many_of_a_kind_and_of_all_kinds(program: Program) -> None:
    """Three examples of each, or all; what is mended and what is refused is told apart."""
    outside = [annotation(20 + at, bbox=[-9, at, 20, 5]) for at in range(5)]
    write(annotation(), *outside, *(annotation(30 + at, bbox=[at]) for at in range(4)), annotation(40, category_id=5))
    outcome = program("data", "check", "set")
    assert outcome.status == 1
    assert {key: len(lines) for key, lines in groups(outcome.out).items()} == {"boxes clipped to their pictures: 5": 4}
    refused = groups(outcome.err)
    sizes = {key: len(lines) for key, lines in refused.items()}
    assert sizes == {"boxes that are not four numbers: 4": 4, "objects of an unknown class: 1": 1}
    assert refused["boxes that are not four numbers: 4"][-1] == "... and 1 more; --all names them"
    everything = program("data", "check", "set", "--all")
    assert len(groups(everything.out)["boxes clipped to their pictures: 5"]) == 5
    assert "more;" not in everything.out + everything.err


def test_a_split_that_cannot_be_read_does_not_hide_the_others(program: Program) -> None:
    write(annotation(bbox=[1, NAN, 3, 4]))
    Path("set/val.json").write_text('{"images": [', encoding="utf-8")
    outcome = program("data", "check", "set")
    found = groups(outcome.err)
    assert outcome.status == 1
    assert list(found) == ["splits that can't be read: 1", "coordinates that are no numbers: 1"]
    assert found["splits that can't be read: 1"][0].startswith("val: set/val.json is not a JSON file: Expecting value")
    assert "note: there is no val split, and training needs both train and val" in outcome.out
    Path("set/train.json").write_text("[]", encoding="utf-8")
    outcome = program("data", "check", "set")
    assert (outcome.status, list(groups(outcome.err))) == (1, ["splits that can't be read: 2"])
    assert outcome.out == "set: detection, COCO's format\n\n2 to mend by hand before training\n"


def test_classes_of_the_validation_split(program: Program) -> None:
    write(annotation())
    content = {"images": IMAGES, "annotations": [], "categories": [{"id": 1, "name": "elk"}]}
    Path("set/val.json").write_text(json.dumps(content), encoding="utf-8")
    found = groups(program("data", "check", "set").err)
    line = "val.json: category 1: the training set has no class 'elk'; its classes are cat, dog"
    assert found == {"classes that the training set does not have: 1": [line]}


def test_a_picture_of_another_split_is_no_news(program: Program) -> None:
    """Where splits share a folder of pictures, only what none of them lists is told, once."""
    content = {"images": IMAGES[:1], "annotations": [annotation()], "categories": CATEGORIES}
    write(images=IMAGES[1:])
    Path("set/val.json").write_text(json.dumps(content), encoding="utf-8")
    assert groups(program("data", "check", "set").out) == {}
    Image.new("RGB", (8, 9)).save("set/images/c.jpg")
    text = "train.json: set/images/c.jpg: the file does not list this image; it is not used"
    expected = {"images in the folders that the file does not list: 1": [text]}
    assert groups(program("data", "check", "set").out) == expected


def test_boxes_of_two_corners(program: Program) -> None:
    """Each alone could be a slip; many are told apart from slips."""
    corners = [[5, 6, 25, 26], [10, 10, 38, 28], [20, 1, 30, 8], [1, 1, 9, 9]]
    write(*(annotation(17 + at, bbox=box) for at, box in enumerate(corners)))
    outcome = program("data", "check", "set")
    note = "note: 3 of 4 boxes of train leave their pictures: COCO's are x, y, width, height, not two corners"
    assert note in outcome.out.splitlines()
    write(annotation(17, bbox=corners[1]), *(annotation(18 + at, bbox=[1, 1, 2, 2 + at]) for at in range(9)))
    assert "two corners" not in program("data", "check", "set").out
    write()
    assert "note: train has no objects at all: there is nothing to learn" in program("data", "check", "set").out


def test_long_lists_of_classes(program: Program) -> None:
    categories = [*CATEGORIES, *({"id": at, "name": f"{'long ' * 9}{at}"} for at in range(10, 73))]
    write(annotation(), categories=categories)
    outcome = program("data", "check", "set")
    assert "\n... and 5 more classes; --all names them\n" in outcome.out
    assert max(map(len, outcome.out.splitlines())) < 280
    assert "more classes" not in program("data", "check", "set", "--all").out
