"""OpenImages' tables as COCO's annotations."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from internimage.data.detection.coco import find_coco, read_coco
from internimage.data.detection.formats import MisreadError, convert_split, convert_to_coco, detect_format
from internimage.data.detection.lvis import Verified

HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
ROWS = (
    "a,xclick,/m/cat,1,0.25,0.5,0,1,0,0,0",
    "b,xclick,/m/dog,1,0,1,0.5,1,1,0,1",
    "a,xclick,/m/dog,1,0,0.1,0,0.1,0,0,0",
)
CLASSES = '/m/dog,Dog\n/m/cat,"Cat, tame"\n'


def write(root: Path, *rows: str, table: str = "oidv6-train", images: str = "train", head: str = HEAD) -> Path:
    """Tables of boxes and classes, and the pictures a and b of 40 x 30 pixels."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations/class-descriptions-boxable.csv").write_text(CLASSES)
    path = root / "annotations" / f"{table}-annotations-bbox.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    for name in ("a", "b"):
        (root / images).mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / images / f"{name}.jpg")
    return path


def test_tables_by_hand(tmp_path: Path) -> None:
    """Shares of the sides become pixels; rows of a picture need not stand together; a group is a crowd."""
    path = write(tmp_path, *ROWS)
    assert detect_format(tmp_path) == "openimages"
    found = convert_split(tmp_path, "openimages", "train")
    assert found.content["categories"] == [{"id": 1, "name": "Dog"}, {"id": 2, "name": "Cat, tame"}]
    assert [each["file_name"] for each in found.content["images"]] == ["train/a.jpg", "train/b.jpg"]
    assert set(found.content["images"][0]) == {"id", "file_name", "width", "height"}
    cat, dog, group = found.content["annotations"]
    assert cat == {"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 0, 10, 30], "area": 300, "iscrowd": 0}
    assert dog["bbox"] == pytest.approx([0, 0, 4, 3])
    assert (group["image_id"], group["bbox"], group["iscrowd"]) == (2, [0, 15, 40, 15], 1)
    assert found.places == (f"{path}, line 2", f"{path}, line 4", f"{path}, line 3")


def test_written_and_read_again_with_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path, *ROWS)
    write(tmp_path, *ROWS, table="validation", images="validation")
    labels = "ImageID,Source,LabelName,Confidence\na,verification,/m/dog,0\na,v,/m/cat,1\nb,v,/m/other,0\n"
    (tmp_path / "annotations/validation-annotations-human-imagelabels-boxable.csv").write_text(labels)
    convert_to_coco(tmp_path, tmp_path)
    found = [find_coco(tmp_path, split) for split in ("train", "val")]
    assert None not in found
    train, val = (read_coco(*each) for each in found if each)
    train.check()
    val.check()
    assert [each.verified for each in train.pictures] == [None, None]
    assert [each.verified for each in val.pictures] == [Verified((1,)), Verified()]
    assert [each.is_crowd for each in val.pictures[1].instances] == [True]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("lost,x,/m/cat,1,0,1,0,1,0,0,0", r"bbox\.csv, line 3: there is no picture 'lost' in the split's folder"),
        ("b,x,/m/elk,1,0,1,0,1,0,0,0", r"line 3: '/m/elk' is not in class-descriptions-boxable\.csv; add it"),
        ("b,x,/m/cat,1,0,17,0,1,0,0,0", r"line 3: XMax must be a share between 0 and 1, got '17'"),
        ("b,x,/m/cat,1,0,1,nan,1,0,0,0", r"line 3: YMin must be a share between 0 and 1, got 'nan'"),
        ("b,x,/m/cat,1,0,1", r"line 3: YMin must be a share between 0 and 1, got None"),
    ],
)
def test_broken_rows_are_named(row: str, match: str, tmp_path: Path) -> None:
    write(tmp_path, ROWS[0], row)
    with pytest.raises(ValueError, match=match):
        convert_to_coco(tmp_path, tmp_path)
    faults: list[MisreadError] = []
    assert len(convert_split(tmp_path, "openimages", "train", faults).content["annotations"]) == 1
    assert len(faults) == 1


def test_tables_of_another_form(tmp_path: Path) -> None:
    write(tmp_path, *ROWS, head=HEAD.replace("LabelName", "Label").replace("XMin", "left"))
    with pytest.raises(ValueError, match=r"bbox\.csv has no column LabelName and no column XMin; it needs ImageID"):
        convert_to_coco(tmp_path, tmp_path)
    write(tmp_path, *ROWS)
    classes = tmp_path / "annotations/class-descriptions-boxable.csv"
    for text, match in (("/m/cat\n", r"got \['/m/cat'\]"), ("/m/a,Cat\n/m/b,Cat\n", "names a class twice")):
        classes.write_text(text)
        with pytest.raises(ValueError, match=match):
            convert_to_coco(tmp_path, tmp_path)
    classes.write_text("LabelName,DisplayName\n" + CLASSES)
    (tmp_path / "train").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"has no folder with the pictures of .*; put them into train/"):
        convert_to_coco(tmp_path, tmp_path)
