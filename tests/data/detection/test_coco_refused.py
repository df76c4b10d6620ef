"""What an annotation file must not hold: training on it is refused, with file and id."""

from __future__ import annotations

from pathlib import Path

import pytest

from internimage.data.detection.coco import read_coco
from internimage.structures import LabelMap
from support.annotations import CATEGORIES, IMAGES, TRIANGLE, annotation, read, write_coco

RUNS = {"size": [30, 40], "counts": [1000, 200]}
WHERE = "annotation 17 (image 3, a.jpg)"
NAN, INFINITE = float("nan"), float("inf")

ANNOTATIONS = {
    "nan": (annotation(bbox=[1, NAN, 3, 4]), WHERE, "its bbox [1, nan, 3, 4] holds nan, which is not finite"),
    "infinite": (annotation(bbox=[1, 2, INFINITE, 4]), WHERE, "holds inf, which is not finite; correct it"),
    "text": (annotation(bbox=[1, 2, 3, "4"]), WHERE, "holds '4', which is no number; correct it"),
    "truth": (annotation(bbox=[1, 2, 3, True]), WHERE, "holds True, which is no number"),
    "huge": (annotation(bbox=[1, 2, 3, 10**400]), WHERE, "which is not finite"),
    "three": (annotation(bbox=[1, 2, 3]), WHERE, "bbox must be [x, y, width, height], got [1, 2, 3]"),
    "named": (annotation(bbox={"x": 1, "y": 2, "w": 3, "h": 4}), WHERE, "bbox must be [x, y, width, height], got {'x'"),
    "nothing": (annotation(bbox=None), WHERE, "it has no bbox and no segmentation; add one, or remove it"),
    "empty": (annotation(bbox=[], segmentation=[]), WHERE, "it has no bbox and no segmentation"),
    "category": (annotation(category_id=5), WHERE, "its category_id 5 is not in the file's categories; add the"),
    "category_text": (annotation(category_id="7"), WHERE, "its category_id '7' is not in the file's categories"),
    "iscrowd": (annotation(iscrowd="no"), WHERE, "iscrowd must be 0 or 1, got 'no'"),
    "id": (annotation(id="x"), "annotations[0] (image 3, a.jpg)", "its id must be a whole number, got 'x'"),
    "image_id": (annotation(image_id="3"), "annotation 17", "its image_id must be a whole number, got '3'"),
    "no_object": ([1, 2], "annotations[0]", "an annotation must be a JSON object, got [1, 2]"),
    "odd": (annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), WHERE, "one has 7 numbers, and a polygon needs an even"),
    "short": (annotation(segmentation=[[1, 2, 3, 4]]), WHERE, "one has 4 numbers, and a polygon needs an even number"),
    "flat": (annotation(segmentation=TRIANGLE), WHERE, "one is 1, not a list of numbers; draw it again, or remove the"),
    "points": (annotation(segmentation=[[[1, 2]] * 6]), WHERE, "its segmentation holds [1, 2], which is no number"),
    "polygon_nan": (annotation(segmentation=[TRIANGLE, [*TRIANGLE, NAN, 1]]), WHERE, "holds nan, which is not finite"),
    "polygon_text": (annotation(segmentation=[[*TRIANGLE, "a", "b"]]), WHERE, "holds 'a', which is no number"),
    "polygon_huge": (annotation(segmentation=[[*TRIANGLE, 10**400, 1]]), WHERE, "which is not finite"),
    "far": (annotation(segmentation=[[*TRIANGLE, -2e9, 1]]), WHERE, "holds -2000000000.0, far outside any picture"),
    "mask_text": (annotation(segmentation="abc"), WHERE, "segmentation must be polygons or run lengths, got 'abc'"),
    "mask_sum": (
        annotation(segmentation={**RUNS, "counts": [1000, 100]}),
        WHERE,
        "its run-length encoded mask is broken: its counts sum to 1100, not to 30 x 40 = 1200 pixels; export it again",
    ),
    "mask_size": (annotation(segmentation={**RUNS, "size": [40, 30]}), WHERE, "size is [40, 30], but the picture's is"),
    "mask_letters": (annotation(segmentation={**RUNS, "counts": "1~"}), WHERE, "hold the character '~', which"),
}


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_annotations(case, tmp_path):
    """Nothing but the refused annotation is lost."""
    raw, where, text = ANNOTATIONS[case]
    found = read(tmp_path, raw, annotation(18, bbox=[5, 5, 5, 5]))
    (finding,) = found.findings
    assert finding.where == f"train.json: {where}"
    assert text in finding.text
    assert not finding.is_fixed
    assert [each.id for each in found.pictures[0].instances] == [18]
    assert found.summary() == ""
    with pytest.raises(ValueError, match=r"has one thing to mend first: train\.json: annotation") as error:
        found.check()
    assert str(error.value).endswith("; `internimage data check PATH` lists all")


def test_an_id_for_two_annotations(tmp_path):
    found = read(tmp_path, annotation(), annotation(image_id=1, bbox=[1, 1, 2, 2]))
    (finding,) = found.findings
    text = "another annotation, of image 3, has the same id; give each annotation its own"
    assert str(finding) == f"train.json: annotation 17 (image 1, b.jpg): {text}"
    assert not finding.is_fixed


PARTS = {
    "missing": (
        {"images": [*IMAGES, {"id": 5, "file_name": "sub/none.jpg", "width": 9, "height": 9}]},
        "image 5 (sub/none.jpg)",
        "images/sub/none.jpg; correct file_name, the folder of the images, or remove the entry",
    ),
    "id_twice": (
        {"images": [*IMAGES, {**IMAGES[1], "id": 3}]},
        "image 3 (b.jpg)",
        "a.jpg has the same id; list each image once, with an id of its own",
    ),
    "image_twice": ({"images": [*IMAGES, IMAGES[1]]}, "image 1 (b.jpg)", "it is listed twice; list each image once"),
    "file_twice": (
        {"images": [*IMAGES, {**IMAGES[1], "id": 5}]},
        "image 5 (b.jpg)",
        "image 1 is the same file; list it once, with all its annotations",
    ),
    "no_name": ({"images": [*IMAGES, {"id": 5}]}, "images[2]", "an image must have a whole number as id and a text as"),
    "no_dict": ({"images": [*IMAGES, "c.jpg"]}, "images[2]", "an image must have a whole number as id"),
    "category_id_twice": (
        {"categories": [*CATEGORIES, {"id": 2, "name": "elk"}]},
        "category 2",
        "'cat' and 'elk' have the same id; give each category its own",
    ),
    "category_name_twice": (
        {"categories": [*CATEGORIES, {"id": 3, "name": "cat"}]},
        "categories 2, 3",
        "several categories have the name 'cat'; rename or merge them",
    ),
    "category_without_name": (
        {"categories": [*CATEGORIES, {"id": 3}]},
        "categories[2]",
        "a category must have a whole number as id and a text as name, got {'id': 3}",
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_images_and_categories(case, tmp_path):
    parts, where, text = PARTS[case]
    found = read(tmp_path, annotation(), **parts)
    (finding,) = found.findings
    assert finding.where == f"train.json: {where}"
    assert text in finding.text
    assert [each.id for each in found.pictures] == [3, 1]
    assert [each.id for each in found.pictures[0].instances] == [17]
    with pytest.raises(ValueError, match=r"train.json has one thing to mend first: train.json: "):
        found.check()


@pytest.mark.parametrize(
    "name", ["x" * 300, "\ud800.jpg", "\ud800/a.jpg", "a.jpg/b.jpg", "images", "../images", "/none"]
)
def test_names_that_no_file_has(name, tmp_path):
    found = read(tmp_path, images=[*IMAGES, {"id": 5, "file_name": name, "width": 9, "height": 9}])
    assert [(finding.kind, finding.is_fixed) for finding in found.findings] == [("missing image", False)]


def test_annotations_of_a_refused_image_are_no_news(tmp_path):
    found = read(tmp_path, annotation(image_id=5), images=[*IMAGES, {"id": 5, "file_name": "c.jpg"}])
    assert [finding.kind for finding in found.findings] == ["missing image"]


def test_a_picture_without_size_that_is_none(tmp_path):
    path = write_coco(tmp_path, images=[*IMAGES, {"id": 5, "file_name": "c.jpg"}])
    (tmp_path / "images" / "c.jpg").write_bytes(b"no picture")
    (finding,) = read_coco(path, tmp_path / "images").findings
    assert (finding.kind, finding.where) == ("unreadable image", "train.json: image 5 (c.jpg)")


def test_a_class_that_the_training_set_does_not_have(tmp_path):
    found = read(tmp_path, annotation(), annotation(18, category_id=2), labels=LabelMap(("cat", "elk")))
    (finding,) = found.findings
    text = "the training set has no class 'dog'; its classes are cat, elk"
    assert str(finding) == f"train.json: category 7: {text}"
    assert [each.id for each in found.pictures[0].instances] == [18]


def test_check_shows_three_and_counts_all(tmp_path):
    found = read(tmp_path, *(annotation(17 + at, bbox=[at]) for at in range(1234)))
    with pytest.raises(
        ValueError, match=r"train.json has 1,234 things to mend first: .*annotation 17 .*18 .*19 "
    ) as error:
        found.check()
    assert "annotation 20 " not in str(error.value)


FILES = {
    "empty": ("", "train.json is not a JSON file: Expecting value: line 1 column 1"),
    "broken": ('{"images": [\n1, }', "train.json is not a JSON file: Expecting value: line 2 column 4"),
    "binary": (b"\xff\xd8\xff\xe0\x80", "train.json is not a JSON file: "),
    "deep": ("[" * 100_000, "train.json is not a JSON file: "),
    "list": ("[]", "is not in COCO's format: it has no list of images, no list of annotations, no list of categories"),
    "other": (
        '{"images": [], "annotations": {}}',
        "is not in COCO's format: it has no list of annotations, no list of",
    ),
    "no_images": ('{"images": [], "annotations": [], "categories": []}', "train.json lists no images"),
    "no_classes": ('{"images": [1], "annotations": [], "categories": [1]}', "train.json has no categories; list at"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_another_kind(case, tmp_path):
    content, message = FILES[case]
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"train\.json") as error:
        read_coco(path, tmp_path)
    assert message in str(error.value)


def test_files_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the annotation file .*train.json: No such file or directory"):
        read_coco(tmp_path / "train.json", tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder .*images with the images of .*train.json"):
        read_coco(tmp_path / "train.json", Path(tmp_path, "images"))
