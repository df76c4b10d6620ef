"""`internimage data check` of label maps: what has no partner, does not fit or holds no class numbers; which values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Program = Callable[..., Any]


def picture(name: str, size: tuple[int, int] = (40, 30)) -> None:
    path = Path("set/images") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def label_map(name: str, values: Any, *, shape: tuple[int, int] = (30, 40), folder: str = "labels") -> Path:
    """Values are repeated along the rows."""
    path = Path("set") / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.array(values, np.uint16 if np.max(values) > 255 else np.uint8), shape)
    Image.fromarray(pixels).save(path)
    return path


def test_counts_and_values(program: Program) -> None:
    """Shares of the pixels of all pictures of a split, whatever their sizes; 16 bits too."""
    picture("train/a.jpg")
    label_map("train/a.png", [0, 0, 1, 255])
    picture("train/b.jpg", (80, 30))
    label_map("train/b.png", [0, 0, 3, 3], shape=(30, 80))
    picture("val/c.jpg")
    label_map("val/c.png", [300])
    outcome = program("data", "check", "set", "--ignore", 255, 300, "--all")
    assert outcome.err.splitlines() == [
        "internimage: label maps of ignored pixels only: 1",
        "    set/labels/val/c.png: all its pixels are ignored, so that it teaches nothing; correct it, or remove it "
        "and its picture",
    ]
    assert outcome.out.splitlines() == [
        "set: segmentation, pictures with label maps",
        "",
        "split  pictures  label maps  pairs",
        "train         2           2      2",
        "val           1           1      1",
        "",
        "train: 2 of 2 pairs can be read and fit, 40 x 30 to 80 x 30 pixels",
        "val: 1 of 1 pairs can be read and fit, 40 x 30 pixels",
        "",
        "value         train      val",
        "0            50.00%        -",
        "1             8.33%        -",
        "3            33.33%        -",
        "255 ignored   8.33%        -",
        "300 ignored       -  100.00%",
        "",
        "1 to mend by hand before training",
    ]


def test_everything_at_once(program: Program) -> None:
    for name in "abcdefgh":
        picture(f"train/{name}.jpg")
    good = label_map("train/a.png", [0, 1])
    colours = np.resize(np.array([[0, 0, 0], [128, 0, 0]], np.uint8), (30, 40, 3))
    Image.fromarray(colours).save("set/labels/train/b.png")
    Image.open(good).convert("RGB").save("set/labels/train/c.png")
    Image.open(good).save("set/labels/train/d.jpg")
    label_map("train/e.png", [0, 1], shape=(40, 30))
    Path("set/labels/train/f.png").write_bytes(good.read_bytes()[:50])
    label_map("train/g.png", [0, 1])
    Path("set/images/train/g.jpg").write_bytes(b"none")
    label_map("train/gone.png", [0, 1])
    picture("test/z.jpg")
    outcome = program("data", "check", "set")
    assert outcome.status == 1
    assert "\ntrain         8           8      7\n" in outcome.out
    assert "\ntrain: 1 of 7 pairs can be read and fit, 40 x 30 pixels\n" in outcome.out
    assert outcome.out.splitlines()[-7:] == [
        "mended whenever the set is read:",
        "  pictures without a label map: 1",
        "    set/images/train/h.jpg: it has no label map of its name; it is not used",
        "  splits left out: 1",
        "    set/images/test: it has no label maps beside it",
        "",
        "7 to mend by hand before training",
    ]
    convert = "`internimage data labels FOLDER OUTPUT --palette FILE` makes these of its colours"
    fix = "write the number of each pixel's class (0, 1, 2, ...) into a PNG file of one channel"
    lines = outcome.err.splitlines()
    assert lines[:10] == [
        "internimage: label maps without a picture: 1",
        "    set/labels/train/gone.png: it has no picture of its name; add it, or remove the label map",
        "internimage: label maps in colour: 1",
        f"    cannot read set/labels/train/b.png: it is in colour (RGB, 2 colours), not class numbers; {convert}",
        "internimage: label maps of several channels: 1",
        f"    cannot read set/labels/train/c.png: it has 3 channels, not 1; {fix}",
        "internimage: label maps in JPEG files: 1",
        f"    cannot read set/labels/train/d.jpg: it is a JPEG file, which blurs values along edges; {fix}",
        "internimage: label maps of another size than their pictures: 1",
        "    set/labels/train/e.png: it is 30 x 40 pixels, but set/images/train/e.jpg is 40 x 30; give both the same "
        "size (label maps by nearest neighbour), upright",
    ]
    assert [line for line in lines[10:] if line.startswith("internimage")] == [
        "internimage: label maps that can't be read: 1",
        "internimage: pictures that can't be read: 1",
    ]


def test_no_pair_at_all(program: Program) -> None:
    """Another ending of the names: every file is told to have no partner, and there are no values."""
    for name in "abcd":
        picture(f"{name}.jpg")
        label_map(f"{name}_mask.png", [0, 1], folder="masks")
    outcome = program("data", "check", "set")
    assert outcome.status == 1
    assert "\ntrain         4           4      0\n" in outcome.out
    assert "pictures without a label map: 4" in outcome.out
    assert outcome.err.splitlines()[::4] == [
        "internimage: label maps without a picture: 4",
        "    ... and 1 more; --all names them",
    ]
    assert "value" not in outcome.out
    assert program("data", "check", "set", "--all").err.count("\n") == 5


def test_nothing_but_ignored_pixels(program: Program) -> None:
    """Nobody knows how many classes there are, and the check is not the one to fail."""
    picture("train/a.jpg")
    label_map("train/a.png", [255])
    outcome = program("data", "check", "set")
    assert outcome.status == 1
    assert outcome.err.startswith("internimage: label maps of ignored pixels only: 1\n")
    assert "255 ignored  100.00%" in outcome.out


@pytest.mark.parametrize(("values", "is_told"), [([0, 255], True), ([0, 1, 255], False), ([0, 0], False)])
def test_masks_of_black_and_white(program: Program, values: list[int], is_told: bool) -> None:
    picture("a.jpg")
    label_map("a.png", values)
    outcome = program("data", "check", "set")
    note = "note: if 255 is the object, write 1 in its place: 255 usually means that a pixel is ignored"
    assert (note in outcome.out) == is_told


def test_many_values(program: Program) -> None:
    picture("a.jpg")
    label_map("a.png", list(range(0, 1000, 10)))
    outcome = program("data", "check", "set")
    assert "\n250           1.00%\n260 no class  1.00%\n" in outcome.out
    assert "\n590 no class  1.00%\n... and 40 more values up to 990; --all names them\n" in outcome.out
    assert "\n990 no class  1.00%\n" in program("data", "check", "set", "--all").out
