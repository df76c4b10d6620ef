"""YOLO's text files as COCO's annotations."""

from __future__ import annotations

import logging

import pytest
from PIL import Image

from internimage.data.detection.coco import find_coco, read_coco
from internimage.data.detection.formats import convert_to_coco, detect_format, yolo_to_coco

NAMES = "names: [dog, cat]\n"


def write(root, label="0 0.5 0.5 0.25 0.2\n", *, images="images/train", name="a.jpg", names=NAMES, **saving):
    """A picture of 40 x 30 pixels, its labels (unless None), and data.yaml."""
    path = root / images / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path, **saving)
    labels = (root / images.replace("images", "labels") / name).with_suffix(".txt")
    labels.parent.mkdir(parents=True, exist_ok=True)
    if label is not None:
        labels.write_bytes(label if isinstance(label, bytes) else label.encode())
    if names is not None:
        (root / "data.yaml").write_text(names)
    return labels


def test_boxes_and_polygons_by_hand(tmp_path):
    """A box in the middle, a triangle, a picture with an empty label file, and one without any."""
    write(tmp_path, "1 0.5 0.5 0.25 0.2\n\n0 0.25 0 0.5 0 0.5 1\n")
    write(tmp_path, "", name="b.jpg")
    write(tmp_path, None, name="sub/c.jpg")
    assert detect_format(tmp_path) == "yolo"
    found = yolo_to_coco(tmp_path, "train")
    assert [each["file_name"] for each in found["images"]] == [
        f"images/train/{name}.jpg" for name in ("a", "b", "sub/c")
    ]
    assert found["images"][0] == {"id": 1, "file_name": "images/train/a.jpg", "width": 40, "height": 30}
    assert found["categories"] == [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
    box, triangle = found["annotations"]
    assert box.pop("bbox") == pytest.approx([15, 12, 10, 6])
    assert box == {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": pytest.approx(60)}
    points = [10, 0, 20, 0, 20, 30]
    assert triangle == {
        "id": 2,
        "image_id": 1,
        "category_id": 0,
        "iscrowd": 0,
        "bbox": [10, 0, 10, 30],
        "area": 150,
        "segmentation": [points],
    }
    with pytest.raises(ValueError, match="has no split val; it has train"):
        yolo_to_coco(tmp_path, "val")


def test_written_and_read_again(tmp_path):
    write(tmp_path, "1 0.5 0.5 0.25 0.2\n0 0.25 0 0.5 0 0.5 1\n")
    write(tmp_path, "0 0.1 0.5 0.2 1.0\n", images="images/val")
    written = convert_to_coco(tmp_path, tmp_path)
    found = find_coco(tmp_path, "train")
    assert found is not None
    assert found == (written[0], tmp_path)
    train = read_coco(*found)
    train.check()
    assert train.findings == ()
    assert train.labels.names == ("dog", "cat")
    box, triangle = train.pictures[0].instances
    assert box.box == pytest.approx((15, 12, 25, 18))
    assert (triangle.box, triangle.area, triangle.segmentation) == ((10, 0, 20, 30), 150, [[10, 0, 20, 0, 20, 30]])
    val = read_coco(written[1], tmp_path, labels=train.labels)
    assert val.pictures[0].instances[0].box == pytest.approx((0, 0, 8, 30))


@pytest.mark.parametrize("images", ["train/images", "images/train2017", "images", "images/training"])
def test_layouts(images, tmp_path):
    """Roboflow's, with a year, without splits (all is for training), and one that only data.yaml tells."""
    write(tmp_path, images=images, names=f"{NAMES}train: {images}\n" if images.endswith("ing") else NAMES)
    assert yolo_to_coco(tmp_path, "train")["images"][0]["file_name"] == f"{images}/a.jpg"


def test_the_upright_picture_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, exif=exif)
    found = yolo_to_coco(tmp_path, "train")
    assert (found["images"][0]["width"], found["images"][0]["height"]) == (30, 40)
    assert found["annotations"][0]["bbox"] == pytest.approx([11.25, 16, 7.5, 8])


@pytest.mark.parametrize(
    "names",
    [NAMES + "nc: 2", "names:\n  0: dog\n  1: cat", "names:\n  1: cat\n  0: dog", "names:\n- dog\n- cat\nval: null"],
)
def test_names_in_yaml(names, tmp_path):
    write(tmp_path, names=names)
    (tmp_path / "data.yaml").rename(tmp_path / "coco128.yml")
    (tmp_path / "a.yaml").write_text("{: none of ours")
    assert [each["name"] for each in yolo_to_coco(tmp_path, "train")["categories"]] == ["dog", "cat"]


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt"])
def test_names_in_text(place, tmp_path):
    write(tmp_path, names=None)
    (tmp_path / place).write_text("dog\n\ncat \n", "utf-8-sig")
    assert [each["name"] for each in yolo_to_coco(tmp_path, "train")["categories"]] == ["dog", "cat"]


def test_numbers_are_names(tmp_path):
    write(tmp_path, names="names: [0, 1]")
    assert [each["name"] for each in yolo_to_coco(tmp_path, "train")["categories"]] == ["0", "1"]


BAD_NAMES = {
    "none": (None, "names no classes; add data.yaml with"),
    "yes": ("names: [yes, no]", r"data\.yaml: class names must be texts \(YAML takes yes, no, on, off for others"),
    "empty": ("names: []", "class names must be texts"),
    "text": ("names: dog", "names must be a list or numbered, got 'dog'"),
    "gap": ("names: {0: dog, 2: cat}", r"the keys of names must be 0 to 1, got \[0, 2\]"),
    "twice": ("names: [dog, cat, dog]", "class names must be unique, but dog occurs more than once"),
    "count": (NAMES + "nc: 3", r"data\.yaml has 2 names, but says nc: 3; make them agree"),
    "yaml": ("names: [dog", r"data\.yaml is not valid YAML: .*line 1"),
    "points": (NAMES + "kpt_shape: [17, 3]", r"is of key points \(kpt_shape\), not of boxes or polygons"),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_bad_names(case, tmp_path):
    names, message = BAD_NAMES[case]
    write(tmp_path, names=names)
    with pytest.raises(ValueError, match=message):
        yolo_to_coco(tmp_path, "train")


FAULTS = {
    "four": ("0 0.5 0.5 0.2", "has 4 values, but must be 'class cx cy width height' or 'class x y x y x y ...'"),
    "score": ("0 0.5 0.5 0.2 0.2 0.9", "has 6 values, but must be"),
    "odd": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 values, but must be"),
    "class": ("2 0.5 0.5 0.2 0.2", ": the class must be a number from 0 to 1, got '2'"),
    "class_name": ("dog 0.5 0.5 0.2 0.2", ": the class must be a number from 0 to 1, got 'dog'"),
    "minus": ("-1 0.5 0.5 0.2 0.2", ": the class must be a number from 0 to 1, got '-1'"),
    "text": ("0 0.5 0,5 0.2 0.2", ": '0,5' is no number; correct it"),
    "nan": ("0 0.5 nan 0.2 0.2", ": nan is no share between 0 and 1"),
    "pixels": ("0 20 15 10 6", ": 20 is no share between 0 and 1; divide pixels by the picture's size"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_malformed_lines(case, tmp_path):
    line, message = FAULTS[case]
    path = write(tmp_path, f"1 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(ValueError, match="one file can't be converted") as error:
        convert_to_coco(tmp_path, tmp_path / "new")
    assert f"{path}, line 3{message if message[0] == ':' else ' ' + message}" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_files_that_are_none(tmp_path):
    write(tmp_path, b"0 \xff")
    with pytest.raises(ValueError, match=r"a\.txt is not a text file"):
        yolo_to_coco(tmp_path, "train")
    write(tmp_path)
    (tmp_path / "images/train/a.jpg").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"one file can't be converted: cannot read .*a\.jpg: it is not an image"):
        yolo_to_coco(tmp_path, "train")


def test_labels_and_pictures_that_do_not_match(tmp_path, caplog):
    write(tmp_path, None, images="images/test")
    write(tmp_path, name="a.jpg")
    assert yolo_to_coco(tmp_path, "train")["images"]
    assert caplog.messages == [f"{tmp_path}/images/test has no labels beside it: left out"]
    write(tmp_path, name="a.png")
    with pytest.raises(ValueError, match="holds pictures that differ in their suffix only"):
        yolo_to_coco(tmp_path, "train")
    for path in (tmp_path / "images/train").iterdir():
        path.unlink()
    with pytest.raises(
        ValueError, match=r"labels/train/a\.txt has no picture in .*images/train; add it, or remove the"
    ):
        yolo_to_coco(tmp_path, "train")
    write(tmp_path, images="train/images")
    with pytest.raises(ValueError, match="holds several folders of train images: images/train, train/images; keep one"):
        yolo_to_coco(tmp_path, "train")


def test_formats_are_told_apart(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(ValueError, match=r"there is no folder .*none"):
        detect_format(tmp_path / "none")
    write(tmp_path, None, images="images/train")
    # Label maps, as for segmentation.
    Image.new("L", (40, 30)).save(tmp_path / "labels/train/a.png")
    with pytest.raises(ValueError, match=r"holds no annotations of a known format: COCO's annotations/train\.json, "):
        detect_format(tmp_path)
    write(tmp_path)
    (tmp_path / "a.xml").write_text("<annotation/>")
    with pytest.raises(ValueError, match="holds XML files as Pascal VOC's and labels as YOLO's; keep one of them"):
        convert_to_coco(tmp_path, tmp_path)
