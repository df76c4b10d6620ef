"""Where annotation files and their images lie."""

from __future__ import annotations

import json

import pytest

from internimage.data.detection.coco import find_coco

LAYOUTS = {
    "split_folders": ("annotations/train.json", "images/train/a.jpg", "images/train"),
    "official": ("annotations/instances_train2017.json", "train2017/a.jpg", "train2017"),
    "official_below_images": ("annotations/instances_train2017.json", "images/train2017/a.jpg", "images/train2017"),
    "year": ("annotations/instances_train2014.json", "train2014/a.jpg", "train2014"),
    "without_year": ("annotations/instances_train.json", "train/a.jpg", "train"),
    "beside": ("train.json", "train/a.jpg", "train"),
    "flat": ("train.json", "images/a.jpg", "images"),
    "roboflow": ("train/_annotations.coco.json", "train/a.jpg", "train"),
    "folder_in_the_name": ("annotations/train.json", "images/train/a.jpg", "."),
    "capitals": ("annotations/Train.json", "images/Train/a.jpg", "images/Train"),
}


def lay_out(root, *names, first="a.jpg"):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": [{"id": 1, "file_name": first}]}) if path.suffix == ".json" else "")


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts(case, tmp_path):
    annotations, image, folder = LAYOUTS[case]
    lay_out(tmp_path, annotations, image, first=image if folder == "." else "a.jpg")
    assert find_coco(str(tmp_path), "train") == (tmp_path / annotations, tmp_path / folder)
    assert find_coco(tmp_path, "val") is None


@pytest.mark.parametrize("name", ["val", "valid", "validation", "val2017"])
def test_names_of_val(name, tmp_path):
    lay_out(tmp_path, f"annotations/{name}.json", f"images/{name}/a.jpg", "annotations/captions_val2017.json")
    assert find_coco(tmp_path, "val") == (tmp_path / f"annotations/{name}.json", tmp_path / "images" / name)


def test_the_first_image_decides(tmp_path):
    """Both splits have folders, but their images lie in one above."""
    lay_out(tmp_path, "train.json", "images/train/b.jpg", "images/a.jpg", "train/c.jpg")
    assert find_coco(tmp_path, "train") == (tmp_path / "train.json", tmp_path / "images")


def test_names_with_escapes(tmp_path):
    lay_out(tmp_path, "train.json", 'images/ä"b.jpg', "train/a.jpg", first='ä"b.jpg')
    assert find_coco(tmp_path, "train") == (tmp_path / "train.json", tmp_path / "images")


@pytest.mark.parametrize("content", ["", "no JSON", '{"file_name": "\\x"}', '{"images": []}'])
def test_files_without_images_are_left_to_the_reading(content, tmp_path):
    lay_out(tmp_path, "train.json", "images/a.jpg")
    (tmp_path / "train.json").write_text(content)
    assert find_coco(tmp_path, "train") == (tmp_path / "train.json", tmp_path / "images")


def test_a_missing_first_image_is_left_to_the_reading(tmp_path):
    lay_out(tmp_path, "annotations/train.json", "images/train/b.jpg")
    assert find_coco(tmp_path, "train") == (tmp_path / "annotations/train.json", tmp_path / "images/train")


def test_several_fit(tmp_path):
    lay_out(tmp_path, "annotations/instances_train2014.json", "annotations/instances_train2017.json", "images/a.jpg")
    names = r"annotations/instances_train2014\.json, annotations/instances_train2017\.json"
    with pytest.raises(ValueError, match=f"holds several annotation files for train: {names}; keep one of them"):
        find_coco(tmp_path, "train")
    (tmp_path / "annotations/instances_train2014.json").unlink()
    lay_out(tmp_path, "train/a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg, the first image of .*, is in several folders: images, train; keep"):
        find_coco(tmp_path, "train")


def test_links_count_once(tmp_path):
    lay_out(tmp_path, "train.json", "images/train/a.jpg")
    (tmp_path / "train").symlink_to(tmp_path / "images/train")
    assert find_coco(tmp_path, "train") == (tmp_path / "train.json", tmp_path / "images/train")


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*none; give the folder that holds pictures"):
        find_coco(tmp_path / "none", "train")
    with pytest.raises(ValueError, match="split must be train, val or test, got 'dev'"):
        find_coco(tmp_path, "dev")
    lay_out(tmp_path, "annotations/train.json")
    with pytest.raises(ValueError, match=r"has no folder images/train with the pictures of .*train\.json; put them"):
        find_coco(tmp_path, "train")
