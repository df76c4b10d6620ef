"""Pascal VOC's XML files as COCO's annotations."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from internimage.data.detection.coco import find_coco, read_coco
from internimage.data.detection.formats import convert_to_coco, detect_format, voc_to_coco

OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"
CORNERS = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def one(name, *corners, difficult=0):
    return OBJECT.format(name, difficult, CORNERS.format(*corners))


def write(path, *objects, size=SIZE, image=None):
    """An XML file, and its picture of 40 x 30 pixels."""
    for each in (path, image := image or path.with_suffix(".jpg")):
        each.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{image.name}</filename>{size}{''.join(objects)}</annotation>")
    Image.new("RGB", (40, 30)).save(image)


@pytest.fixture
def devkit(tmp_path):
    """Three pictures in VOCdevkit/VOC2012: two to train, one to validate; the latter alone has a cow."""
    home = tmp_path / "VOCdevkit" / "VOC2012"
    objects = {
        "2007_1": (one("dog", 1, 1, 40, 30), one("cat", 11, 6, 11, 6, difficult=1)),
        "2007_2": (),
        "2007_3": (one("cow", 2.5, 3, 10.5, 9),),
    }
    for name, each in objects.items():
        write(home / "Annotations" / f"{name}.xml", *each, image=home / "JPEGImages" / f"{name}.jpg")
    (home / "ImageSets/Main").mkdir(parents=True)
    (home / "ImageSets/Main/train.txt").write_text("2007_2\n2007_1  1\n\n")
    (home / "ImageSets/Main/val.txt").write_text("2007_3\n")
    (home / "ImageSets/Main/cow_val.txt").write_text("2007_3 -1\n")
    return tmp_path / "VOCdevkit"


def test_the_devkit_by_hand(devkit):
    """A box over the whole picture, one of a single pixel (difficult: a crowd region), and fractions."""
    assert detect_format(devkit) == detect_format(devkit / "VOC2012") == "voc"
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}, {"id": 3, "name": "dog"}]
    names = ["VOC2012/JPEGImages/2007_2.jpg", "VOC2012/JPEGImages/2007_1.jpg"]
    box = {"id": 1, "image_id": 2, "category_id": 3, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0}
    pixel = {"id": 2, "image_id": 2, "category_id": 1, "bbox": [10, 5, 1, 1], "area": 1, "iscrowd": 1}
    assert voc_to_coco(devkit, "train") == {
        "images": [{"id": at, "file_name": name, "width": 40, "height": 30} for at, name in enumerate(names, start=1)],
        "annotations": [box, pixel],
        "categories": categories,
    }
    val = voc_to_coco(devkit / "VOC2012", "val")
    assert [each["bbox"] for each in val["annotations"]] == [[1.5, 2, 9, 7]]
    assert val["categories"] == categories
    assert val["images"][0]["file_name"] == "JPEGImages/2007_3.jpg"
    with pytest.raises(ValueError, match="has no split test; it has train, val"):
        voc_to_coco(devkit, "test")


@pytest.mark.parametrize("place", [".", "VOC2012", "../elsewhere/deep"])
def test_written_and_read_again(place, devkit):
    """In place or elsewhere: what was written is found, with its images; COCO's files go first from then on."""
    output = devkit / place
    written = convert_to_coco(devkit, output)
    assert written == [output / "annotations" / f"{split}.json" for split in ("train", "val")]
    found = find_coco(output, "train")
    assert found is not None
    assert found == (written[0], output)
    train = read_coco(*found)
    train.check()
    assert train.summary() == "images in the folders that the file does not list: 1"
    empty, full = train.pictures
    assert empty.instances == ()
    assert [(each.box, train.labels[each.label], each.is_crowd) for each in full.instances] == [
        ((0, 0, 40, 30), "dog", False),
        ((10, 5, 11, 6), "cat", True),
    ]
    val = read_coco(written[1], output, labels=train.labels)
    val.check()
    assert val.pictures[0].instances[0].label == 1
    with pytest.raises(ValueError, match=r"train\.json, .*val\.json would be overwritten; move it away, or"):
        convert_to_coco(devkit if place != "." else devkit / "VOC2012", output)


def test_a_converted_folder_is_cocos(devkit):
    convert_to_coco(devkit, devkit)
    assert detect_format(devkit) == "coco"
    with pytest.raises(ValueError, match="is in COCO's format already; nothing to convert"):
        convert_to_coco(devkit, devkit / "new")


def test_xml_files_beside_images(tmp_path):
    """Without splits all is for training; a picture without an XML file is not annotated, so it is left out."""
    write(tmp_path / "a.xml", one("cat", 1, 1, 2, 2))
    Image.new("RGB", (40, 30)).save(tmp_path / "b.jpg")
    assert [each["file_name"] for each in voc_to_coco(tmp_path, "train")["images"]] == ["a.jpg"]
    for split in ("train", "valid"):
        write(tmp_path / split / "c.xml", one("dog", 1, 1, 2, 2), image=tmp_path / split / "c.PNG")
    assert voc_to_coco(tmp_path, "train")["images"][0]["file_name"] == "train/c.PNG"
    assert voc_to_coco(tmp_path, "val")["images"][0]["file_name"] == "valid/c.PNG"


def test_annotations_without_lists_are_all_for_training(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"Annotations/{name}.xml", one("cat", 1, 1, 2, 2), image=tmp_path / f"images/{name}.jpg")
    found = voc_to_coco(tmp_path, "train")
    assert [each["file_name"] for each in found["images"]] == ["images/a.jpg", "images/b.jpg"]


@pytest.mark.parametrize("size", ["", SIZE.replace("40", "0"), SIZE.replace("30", "x"), "<size/>"])
def test_missing_sizes_come_from_the_pictures(size, tmp_path):
    write(tmp_path / "a.xml", one("cat", 1, 1, 2, 2), size=size)
    assert voc_to_coco(tmp_path, "train")["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}


def test_swapped_corners_are_left_to_the_reading(tmp_path):
    write(tmp_path / "a.xml", one("cat", 9, 1, 2, 2))
    (path,) = convert_to_coco(tmp_path, tmp_path)
    assert read_coco(path, tmp_path).summary() == "boxes without area left out: 1"


FAULTS = {
    "no_xml": ("<annotation>\n<object></annotation>", r"a\.xml is not valid XML: mismatched tag: line 2, column 10"),
    "doctype": (
        '<!DOCTYPE annotation [<!ENTITY a "b">]><annotation>&a;</annotation>',
        r"a\.xml: it has a DOCTYPE, which annotations never need; remove it",
    ),
    "encoding": ('<?xml version="1.0" encoding="none"?><annotation/>', r"a\.xml is not valid XML: unknown encoding"),
    "name": (OBJECT.format("", 0, CORNERS), r"a\.xml: object 1 has no <name>; add it, or remove the object"),
    "box": (one("cat", 1, 1, 2, 2) + OBJECT.format("cat", 0, ""), r"object 2 \(cat\) has no <bndbox><xmin>; add it"),
    "text": (one("cat", 1, 1, "two", 2), r"a\.xml: object 1 \(cat\): <xmax> is 'two', which is no finite number"),
    "nan": (one("cat", 1, 1, 2, "nan"), r"a\.xml: object 1 \(cat\): <ymax> is 'nan', which is no finite number"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_malformed_files(case, tmp_path):
    content, message = FAULTS[case]
    write(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text(content if "annotation" in content else f"<annotation>{content}</annotation>")
    with pytest.raises(ValueError, match=rf"one file can't be converted: .*{message}"):
        convert_to_coco(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_faults_are_counted(tmp_path):
    for at in range(5):
        write(tmp_path / f"{at}.xml", one("cat", 1, 1, 2, "x"))
    with pytest.raises(
        ValueError, match=r"5 files can't be converted: .*0\.xml.*; .*1\.xml.*; .*2\.xml.*; `internimage"
    ) as error:
        voc_to_coco(tmp_path, "train")
    assert "3.xml" not in str(error.value)


def test_pictures_that_are_not_there_or_not_clear(tmp_path, devkit):
    home = tmp_path / "plain"
    write(home / "a.xml", image=home / "b.jpg")
    with pytest.raises(ValueError, match=r"a\.xml has no picture of its name in the folder of the pictures"):
        voc_to_coco(home, "train")
    for name in ("a.png", "a.jpg"):
        write(home / "a.xml", image=home / name)
    assert voc_to_coco(home, "train")["images"][0]["file_name"] == "a.jpg"
    (home / "a.xml").write_text("<annotation/>")
    with pytest.raises(ValueError, match=r"a\.xml has several pictures: a\.jpg, a\.png of its name"):
        voc_to_coco(home, "train")
    (devkit / "VOC2012/ImageSets/Main/val.txt").write_text("2007_3\n2007_4\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 2: there is no .*Annotations/2007_4\.xml; add it, or remove"):
        voc_to_coco(devkit, "train")
    (devkit / "VOC2007/Annotations").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds several VOC folders: VOC2007, VOC2012; give one of them"):
        detect_format(devkit)


def test_years_are_joined_as_detectors_are_compared(tmp_path):
    """Both years' trainval to train on; the test pictures of 2007 to validate, of which the other year has no list."""
    for year, lists in (("2007", {"trainval": "a b", "test": "c", "train": "a"}), ("2012", {"trainval": "d"})):
        home = tmp_path / f"VOC{year}"
        (home / "ImageSets/Main").mkdir(parents=True)
        for name, stems in lists.items():
            (home / f"ImageSets/Main/{name}.txt").write_text("\n".join(stems.split()))
            for stem in stems.split():
                write(home / f"Annotations/{stem}.xml", one("dog", 1, 1, 9, 9), image=home / f"JPEGImages/{stem}.jpg")
    written = convert_to_coco(tmp_path, tmp_path)
    assert [path.name for path in written] == ["train.json", "val.json"]
    listed = [[picture.path.stem for picture in read_coco(path, tmp_path).pictures] for path in written]
    assert listed == [["a", "b", "d"], ["c"]]


def test_a_full_disk_leaves_no_half_file(devkit, tmp_path, monkeypatch):
    whole = Path.write_text

    def written_in_part(self, text, **settings):
        whole(self, text[:10], **settings)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", written_in_part)
    with pytest.raises(OSError, match="No space left"):
        convert_to_coco(devkit, tmp_path / "new")
    assert not list((tmp_path / "new").rglob("*.*"))
