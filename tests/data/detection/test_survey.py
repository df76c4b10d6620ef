"""What a set of any format holds: counts by hand, and findings of all its splits."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from internimage.data.detection.coco import read_content
from internimage.data.detection.formats import MisreadError, convert_split, find_format, splits_of
from internimage.data.detection.survey import survey_file, survey_folder
from support.annotations import CATEGORIES, IMAGES, TRIANGLE, annotation, write_coco


def test_counts_by_hand(tmp_path):
    """An object with a mask and one without in the first picture; a crowd alone in the second one, which is empty."""
    crowd = annotation(19, image_id=1, iscrowd=1, bbox=[0, 0, 20, 10], segmentation=[TRIANGLE])
    cat = annotation(18, category_id=2)
    path = write_coco(tmp_path, annotation(segmentation=[TRIANGLE]), cat, crowd)
    (survey,), findings = survey_file(path, tmp_path / "images")
    assert findings == []
    assert (survey.name, survey.num_pictures, survey.num_empty) == ("train.json", 2, 1)
    assert (survey.num_objects, survey.num_crowds, survey.num_masks) == (2, 1, 2)
    assert survey.num_per_class == {"cat": 1, "dog": 1}
    assert [each.name for each in survey_folder(tmp_path, "coco")[0]] == ["train"]


def test_the_first_split_that_can_be_read_sets_the_classes(tmp_path):
    write_coco(tmp_path).write_text("[]")
    for split, category in (("val", "cat"), ("test", "elk")):
        content = {"images": IMAGES[:1], "annotations": [], "categories": [{"id": 1, "name": category}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    surveys, findings = survey_folder(tmp_path, "coco")
    assert [each.name for each in surveys] == ["val", "test"]
    assert [each.kind for each in findings if not each.is_fixed] == ["split that can't be read", "unknown category"]
    assert findings[0].where == "train"


def test_pictures_of_a_file_are_looked_for(tmp_path):
    """Beside it, above it, and nowhere else."""
    path = write_coco(tmp_path)
    assert survey_file(path, None)[0][0].num_pictures == 2
    (tmp_path / "annotations").mkdir()
    path = path.rename(tmp_path / "annotations" / "instances_val2017.json")
    assert survey_file(path, None)[0][0].num_pictures == 2
    path = path.rename(tmp_path / "annotations" / "mine.json")
    with pytest.raises(ValueError, match=r"say where the pictures of .*mine\.json are: --images FOLDER"):
        survey_file(path, None)


def test_places_of_another_format(tmp_path):
    """A finding names the file that was converted; without places, it names the annotation."""
    write_coco(tmp_path)
    content = {"images": IMAGES, "annotations": [annotation(bbox=[1, 2, 0, 3])], "categories": CATEGORIES}
    found = read_content(content, tmp_path, tmp_path / "images", places=["a.xml: object 1"])
    assert [each.where for each in found.findings] == ["a.xml: object 1"]
    (finding,) = read_content(content, tmp_path, tmp_path / "images").findings
    assert finding.where == f"{tmp_path.name}: annotation 17 (image 3, a.jpg)"


def test_what_cannot_be_converted_is_collected(tmp_path):
    """A line that can't be read leaves the others, and each object knows where it came from."""
    for folder in ("images/train", "labels/train", "images/val"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (40, 30)).save(tmp_path / f"images/train/{name}.jpg")
    labels = tmp_path / "labels/train/a.txt"
    labels.write_text("0 .5 .5 .2 .2\n\n0 2 .5 .2 .2\n0 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text("names: [dog]")
    assert (find_format(tmp_path), splits_of(tmp_path, "yolo")) == ("yolo", ["train"])
    faults: list[MisreadError] = []
    found = convert_split(tmp_path, "yolo", "train", faults)
    assert [(each.kind, str(each)[: len(f"{labels}, line 3: 2")]) for each in faults] == [
        ("coordinate outside 0 to 1", f"{labels}, line 3: 2")
    ]
    assert found.places == (f"{labels}, line 1", f"{labels}, line 4")
    assert [each["id"] for each in found.content["annotations"]] == [1, 2]
    assert found.without_file == (tmp_path / "images/train/b.jpg",)
    assert find_format(tmp_path / "images") is None
    with pytest.raises(ValueError, match=r"one file can't be converted: .*line 3: 2 is no share"):
        convert_split(tmp_path, "yolo", "train")


def test_looking_for_a_format_says_nothing_of_folders_without_labels(tmp_path, caplog):
    """They may be pictures of another task."""
    (tmp_path / "images/train").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "images/train/a.jpg")
    assert find_format(tmp_path) is None
    assert caplog.messages == []
