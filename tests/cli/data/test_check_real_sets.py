"""`internimage data check` of parts of real sets: BCCD, the 2018 Data Science Bowl, CamVid."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
Program = Callable[..., Any]
pytestmark = pytest.mark.shared


def open_set(name: str) -> zipfile.ZipFile:
    path = SHARED / name / f"{name}.zip"
    if not path.is_file():
        pytest.skip("the real image sets are not here")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("name", ["bccd", "nuclei"])
def test_objects(program: Program, name: str) -> None:
    """Five pictures of each split; then all annotations, of which the other pictures are missing."""
    with open_set(name) as archive:
        files = [each for each in archive.namelist() if each.startswith("annotations/")]
        archive.extractall(name, files)
        for file in files:
            path = Path(name, file)
            content = json.loads(path.read_bytes())
            few = sorted(content["images"], key=lambda each: each["id"])[:5]
            archive.extractall(name, [f"images/{path.stem}/{each['file_name']}" for each in few])
            ids = {each["id"] for each in few}
            annotations = [each for each in content["annotations"] if each["image_id"] in ids]
            path.write_text(json.dumps({**content, "images": few, "annotations": annotations}), encoding="utf-8")
        outcome = program("data", "check", name)
        assert (outcome.status, outcome.err) == (0, "")
        assert re.search(r"\ntrain +5 +0 +\d+ +\d +0 +\d+\n", outcome.out)
        assert "mended" not in outcome.out
        assert outcome.out.endswith("\nnothing to mend by hand\n")
        archive.extract("annotations/val.json", name)
    outcome = program("data", "check", name)
    assert outcome.status == 1
    number = {"bccd": 82, "nuclei": 95}[name]
    assert outcome.err.splitlines()[0] == f"internimage: listed pictures that are not there: {number}"
    assert outcome.err.count("\n") == 5
    assert outcome.out.endswith(f"\n{number} to mend by hand before training\n")


def test_label_maps(program: Program) -> None:
    """Values as the set's description has them: eleven classes and 11 for what is not labelled."""
    with open_set("camvid") as archive:
        for split in ("train", "val"):
            images = [each for each in archive.namelist() if each.startswith(f"images/{split}/")][:4]
            labels = [each.replace("images", "labels").replace(".jpg", ".png") for each in images]
            archive.extractall("camvid", [*images, *labels])
    outcome = program("data", "check", "camvid")
    assert (outcome.status, outcome.err) == (0, "")
    assert "train: 4 of 4 pairs can be read and fit, 480 x 360 pixels" in outcome.out
    values = [int(line.split()[0]) for line in outcome.out.splitlines() if re.match(r"\d+ ", line)]
    assert set(values) <= set(range(12))
    assert len(values) > 8
    Path("camvid/labels").rename("camvid/masks")
    assert program("data", "check", "camvid").out == outcome.out
    wrong = program("data", "check", "camvid", "--classes", 11)
    assert wrong.status == 1
    assert re.search(r"camvid/masks/train/\S+.png: value 11 in [\d,]+ pixels, but the 11 classes have the", wrong.err)
    mended = program("data", "check", "camvid", "--classes", 11, "--ignore", 11)
    assert (mended.status, mended.err) == (0, "")
