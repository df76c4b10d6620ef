"""Annotation files as they should be, and what is mended in them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from internimage.data.detection.coco import Finding, Instance, deep_check, read_coco
from internimage.structures import LabelMap
from support.annotations import CATEGORIES, IMAGES, TRIANGLE, annotation, read, write_coco

SQUARE = {"size": [30, 40], "counts": [30 * 5 + 3, 4, 26, 4, 30 * 34 - 7]}


def test_a_file_by_hand(tmp_path):
    """Pictures in the file's order, classes by ascending category id, one picture without objects."""
    crowd = annotation(18, category_id=2, bbox=[0, 0, 40, 30], iscrowd=1, area=None, segmentation=SQUARE)
    found = read(tmp_path, annotation(segmentation=[TRIANGLE]), crowd)
    found.check()
    assert found.summary() == ""
    assert found.findings == ()
    assert found.labels == LabelMap(("cat", "dog"))
    assert found.category_ids == (2, 7)
    first, second = found.pictures
    assert (first.id, first.path, first.size) == (3, tmp_path / "images" / "a.jpg", (30, 40))
    assert (second.id, second.size, second.instances) == (1, (10, 20), ())
    assert first.instances == (
        Instance(17, (1, 2, 11, 22), 1, [TRIANGLE], area=150.5),
        Instance(18, (0, 0, 40, 30), 0, SQUARE, is_crowd=True, area=1200),
    )


def test_the_training_sets_classes_count(tmp_path):
    """Another order, other ids, and a class less."""
    labels = LabelMap(("dog", "elk", "cat"))
    found = read(tmp_path, annotation(), annotation(18, category_id=2), labels=labels)
    assert found.labels is labels
    assert [each.label for each in found.pictures[0].instances] == [0, 2]
    assert found.category_ids == (7, -1, 2)


MENDED = {
    "box outside": (
        annotation(bbox=[-5, 2, 10, 20]),
        Instance(17, (0, 2, 5, 22), 1, None, area=150.5),
        "its bbox [-5, 2, 10, 20] leaves its picture of 40 x 30 pixels; clipped",
        "boxes clipped to their pictures: 1",
    ),
    "box a hair outside": (
        annotation(bbox=[30.5, 2, 10, 28.5]),
        Instance(17, (30.5, 2, 40, 30), 1, None, area=150.5),
        "its bbox leaves its picture by no more than a pixel; clipped",
        "boxes clipped by no more than a pixel: 1",
    ),
    "box from segmentation": (
        annotation(bbox=None, segmentation=[TRIANGLE, [20, 1.5, 25, 1.5, 25, 9]]),
        Instance(17, (1, 1.5, 25, 22), 1, [TRIANGLE, [20, 1.5, 25, 1.5, 25, 9]], area=150.5),
        "it has no bbox; taken from its segmentation",
        "boxes taken from segmentations: 1",
    ),
    "iscrowd missing": (
        annotation(iscrowd=None),
        Instance(17, (1, 2, 11, 22), 1, None, area=150.5),
        "iscrowd is missing; taken as 0",
        "annotations without iscrowd taken as no crowds: 1",
    ),
    "broken polygon left out": (
        annotation(segmentation=[[1, 2, 3, 4], TRIANGLE, [1, 2, 3, 4, 5, 6, 7]]),
        Instance(17, (1, 2, 11, 22), 1, [TRIANGLE], area=150.5),
        "of its 3 polygons, one has 4 numbers, and a polygon needs an even number, 6 or more; left out",
        "objects with a broken polygon beside good ones: 1",
    ),
    "box without area": (
        annotation(bbox=[1, 2, 10, 0]),
        None,
        "its bbox [1, 2, 10, 0] has no area; left out",
        "boxes without area left out: 1",
    ),
}


@pytest.mark.parametrize("kind", MENDED)
def test_mended(kind, tmp_path):
    """The message names file, annotation and image; the next annotation is read as ever."""
    raw, expected, text, summary = MENDED[kind]
    found = read(tmp_path, raw, annotation(18, bbox=[5, 5, 5, 5]))
    found.check()
    assert found.findings == (Finding(kind, "train.json: annotation 17 (image 3, a.jpg)", text, is_fixed=True),)
    assert str(found.findings[0]) == f"train.json: annotation 17 (image 3, a.jpg): {text}"
    assert found.summary() == summary
    *instances, other = found.pictures[0].instances
    assert instances == [expected] * (expected is not None)
    assert other.id == 18


@pytest.mark.parametrize("bbox", [[1, 2, -3, 4], [50, 2, 10, 20], [-9, 2, 9, 20], [1, 30, 5, 5]])
def test_boxes_without_area_in_the_picture(bbox, tmp_path):
    found = read(tmp_path, annotation(bbox=bbox))
    assert [finding.kind for finding in found.findings] == ["box without area"]
    assert found.pictures[0].instances == ()


def test_rounding_is_no_fault(tmp_path):
    """In floating point 39.7 + 0.3 may be more than 40."""
    found = read(tmp_path, annotation(bbox=[10.0000000001, 2, 30, 20]))
    assert found.findings == ()
    assert found.pictures[0].instances[0].box[2] == 40


def test_box_of_run_lengths(tmp_path):
    """Two columns with rows 3 to 6, from x = 5."""
    found = read(tmp_path, annotation(bbox=None, segmentation=SQUARE))
    assert found.pictures[0].instances[0].box == (5, 3, 7, 7)


def test_box_of_polygons_that_leave_the_picture(tmp_path):
    found = read(tmp_path, annotation(bbox=None, segmentation=[[-3, 1, 9, 1, 9, 8]]))
    assert found.pictures[0].instances[0].box == (0, 1, 9, 8)
    text = "its bbox [-3.0, 1.0, 12.0, 7.0] leaves its picture of 40 x 30 pixels; clipped"
    assert [finding.text for finding in found.findings] == ["it has no bbox; taken from its segmentation", text]


@pytest.mark.parametrize("area", [None, "x", -1, float("nan"), float("inf"), 10**400])
def test_areas_that_are_none_are_those_of_the_boxes(area, tmp_path):
    assert read(tmp_path, annotation(area=area)).pictures[0].instances[0].area == 200


def test_what_all_entries_lack_is_one_finding(tmp_path):
    boxes = ([at % 30, at // 30 % 10, 10, 1 + at // 300] for at in range(1200))
    found = read(tmp_path, *(annotation(17 + at, bbox=bbox, iscrowd=None) for at, bbox in enumerate(boxes)))
    (crowds,) = found.findings
    assert (crowds.kind, crowds.count) == ("iscrowd missing", 1200)
    assert str(crowds).endswith("annotation 17 (image 3, a.jpg): iscrowd is missing; taken as 0 (and 1,199 more)")
    assert found.summary() == "annotations without iscrowd taken as no crowds: 1,200"


@pytest.mark.parametrize("same", [annotation(), annotation(18), annotation(18, area=3)], ids=["whole", "id", "area"])
def test_repeated_objects_count_once(same, tmp_path):
    found = read(tmp_path, annotation(segmentation=[TRIANGLE]), {**same, "segmentation": [TRIANGLE]})
    assert [each.id for each in found.pictures[0].instances] == [17]
    assert found.findings[0].kind == "same object twice"
    assert found.summary() == "repeated annotations left out: 1"


def test_objects_that_differ_in_one_thing_all_count(tmp_path):
    others = ({"category_id": 2}, {"iscrowd": 1}, {"bbox": [1, 2, 10, 19]}, {"segmentation": [TRIANGLE]})
    found = read(tmp_path, annotation(), *(annotation(18 + at, **each) for at, each in enumerate(others)))
    assert len(found.pictures[0].instances) == 5
    assert found.findings == ()


def test_annotations_of_no_listed_image_are_left_out(tmp_path):
    found = read(tmp_path, annotation(image_id=99))
    found.check()
    assert [str(finding) for finding in found.findings] == [
        "train.json: annotation 17 (image 99): the file lists no image 99; left out"
    ]
    assert found.summary() == "annotations of no listed image left out: 1"


def test_image_sizes_come_from_the_files_where_they_are_missing(tmp_path):
    """Of a picture that EXIF turns, that of the upright picture; with a header that Pillow must decode, too."""
    names = ("a.jpg", "b.jpg", "turned.jpg", "turned.png")
    images = [{"id": at, "file_name": name, "width": [None, 20.5, 0, "40"][at]} for at, name in enumerate(names)]
    path = write_coco(tmp_path, images=images)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in names[2:]:
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / name, exif=exif)
    found = read_coco(path, tmp_path / "images")
    assert [each.size for each in found.pictures] == [(30, 40), (10, 20), (40, 30), (40, 30)]
    text = "its width and height are not whole numbers above 0; read from the file: 40 x 30"
    assert str(found.findings[0]) == f"train.json: image 0 (a.jpg): {text}"
    assert found.summary() == "image sizes read from the files: 4"
    assert deep_check(found) == []


def test_images_that_the_file_does_not_list_are_counted(tmp_path):
    """In the folders of the listed ones only, and only images."""
    path = write_coco(tmp_path, images=[{**IMAGES[0], "file_name": "./a.jpg"}, {**IMAGES[1], "file_name": "sub/c.jpg"}])
    for name in ("sub/c.jpg", "sub/d.PNG", "other/e.jpg", ".f.jpg"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()
    (tmp_path / "images" / "notes.txt").touch()
    found = read_coco(path, tmp_path / "images")
    found.check()
    kind, where = "image without annotations file entry", "train.json: b.jpg"
    text = "the file does not list this image; it is not used"
    assert found.findings == (Finding(kind, where, text, is_fixed=True, count=2),)
    assert str(found.findings[0]) == f"{where}: {text} (and 1 more)"
    assert found.summary() == "images in the folders that the file does not list: 2"


def test_other_encodings_of_json(tmp_path):
    path = write_coco(tmp_path, categories=[{"id": 1, "name": "größer"}])
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False), "utf-8-sig")
    assert read_coco(str(path), str(tmp_path / "images")).labels.names == ("größer",)


def test_deep_check_reads_every_picture(tmp_path):
    """A wrong size, a picture that EXIF turns, and one that is damaged."""
    images = [{"id": at, "file_name": f"{at}.jpg", "width": 40, "height": 30} for at in range(4)]
    path = write_coco(tmp_path, images=images, categories=CATEGORIES)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "0.jpg")
    Image.new("RGB", (41, 30)).save(tmp_path / "images" / "1.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "2.jpg", exif=exif)
    (tmp_path / "images" / "3.jpg").write_bytes(b"no picture")
    found = read_coco(path, tmp_path / "images")
    found.check()
    wrong, turned, damaged = deep_check(found)
    assert str(wrong).startswith(
        "train.json: image 1 (1.jpg): the file is 41 x 30 pixels, but the annotations say 40 x"
    )
    assert "an EXIF rotation is applied, so that boxes must refer to the upright picture; correct" in turned.text
    assert (wrong.kind, turned.kind, damaged.kind) == ("image of another size",) * 2 + ("unreadable image",)
    assert damaged.text.startswith(f"cannot read {tmp_path / 'images' / '3.jpg'}: it is not an image of a known format")
    assert not any(finding.is_fixed for finding in (wrong, turned, damaged))
