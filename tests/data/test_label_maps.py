"""Label maps: values as stored, a clear word where there are none, and which picture each belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.data import ImageReadError
from internimage.data.label_maps import label_map_folders, pair_label_maps, read_label_map, read_pairs

VALUES = np.array([[0, 1, 2], [11, 254, 255]], np.uint8)
WIDE = np.array([[0, 1, 2], [300, 65534, 65535]], np.uint16)


def with_palette(values: np.ndarray) -> Image.Image:
    """Indices to colours in another order than their brightness."""
    image = Image.fromarray(values).convert("L")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_values_of_eight_bits(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(VALUES).save(path)
    found = read_label_map(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, VALUES)
    assert found.flags.writeable
    np.testing.assert_array_equal(read_label_map(str(path)), VALUES)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_values_of_sixteen_bits(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(WIDE).save(tmp_path / f"a.{suffix}")
    found = read_label_map(tmp_path / f"a.{suffix}")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, WIDE)


def test_values_of_thirty_two_bits_that_are_small(tmp_path: Path) -> None:
    Image.fromarray(WIDE.astype(np.int32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif"), WIDE)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_indices_of_a_palette(bits: int, tmp_path: Path) -> None:
    """The colours do not matter."""
    values = VALUES & np.uint8(2**bits - 1)
    with_palette(values).save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), values)


def test_one_bit_is_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(VALUES > 2).save(tmp_path / "a.png")
    found = read_label_map(tmp_path / "a.png")
    assert (found.dtype, found.tolist()) == (np.uint8, [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("values", [VALUES, WIDE], ids=["8 bits", "16 bits"])
def test_the_upright_label_map_counts(values: np.ndarray, tmp_path: Path) -> None:
    """As that of the picture it belongs to."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), np.rot90(values, -1))


COLOURS = np.stack([VALUES, 0 * VALUES, VALUES], -1)
UNFIT = {
    "colour": (
        "a.png",
        Image.fromarray(COLOURS),
        "it is in colour (RGB, 6 colours), not class numbers; `internimage data labels",
    ),
    "alpha": (
        "a.png",
        Image.fromarray(COLOURS).convert("RGBA"),
        "it is in colour (RGBA, 6 colours), not class numbers",
    ),
    "photo": (
        "a.png",
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)),
        "it is in colour (RGB, more than 1,000 colours)",
    ),
    "equal": ("a.png", Image.fromarray(VALUES).convert("RGB"), "it has 3 channels, not 1; write the number of each"),
    "grey_alpha": ("a.png", Image.fromarray(VALUES).convert("LA"), "it has 2 channels, not 1"),
    "jpeg": (
        "a.jpg",
        Image.fromarray(VALUES),
        "it is a JPEG file, which blurs values along edges; write the number of",
    ),
    "fractions": ("a.tif", Image.fromarray(VALUES.astype(np.float32)), "its values are floating-point numbers"),
    "negative": ("a.tif", Image.fromarray(-WIDE.astype(np.int32)), "its values reach from -65535 to 0, not 0 to 65535"),
    "large": ("a.tif", Image.fromarray(WIDE.astype(np.int32) * 2), "its values reach from 0 to 131070, not 0 to 65535"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_pictures_without_class_numbers(case: str, tmp_path: Path) -> None:
    name, image, message = UNFIT[case]
    image.save(tmp_path / name)
    with pytest.raises(ImageReadError) as caught:
        read_label_map(tmp_path / name)
    assert str(caught.value).startswith(f"cannot read {tmp_path / name}: {message}")
    fix = (
        "makes these of its colours"
        if "in colour" in message
        else "class (0, 1, 2, ...) into a PNG file of one channel"
    )
    assert str(caught.value).endswith(fix)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"none")
    Image.new("L", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    for name, message in {"a.png": "not an image", "b.png": "truncated", "c.png": "there is no such file"}.items():
        with pytest.raises(ImageReadError, match=rf"cannot read .*{name}: .*{message}"):
            read_label_map(tmp_path / name)


def save(path: Path, size: tuple[int, int] = (4, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 1).save(path)
    return path


def test_pairs_by_name(tmp_path: Path) -> None:
    """In subfolders too; suffixes do not matter, all else does."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    for name in ("a.jpg", "b.c.JPG", "town/a.png", "only.jpg", "x.jpg", "x.png", "y.jpg"):
        save(images / name)
    for name in ("a.png", "b.c.png", "town/a.png", "town/only.png", "x.png", "y.png", "y.tif", "notes.txt.png"):
        save(labels / name)
    (labels / "a.txt").touch()
    found = pair_label_maps(images, labels)
    assert found.both == tuple(
        (images / a, labels / b) for a, b in (("a.jpg", "a.png"), ("b.c.JPG", "b.c.png"), ("town/a.png", "town/a.png"))
    )
    assert found.without_map == (images / "only.jpg",)
    assert found.without_picture == (labels / "notes.txt.png", labels / "town/only.png")
    assert found.alike == (images / "x.jpg", images / "x.png", labels / "y.png", labels / "y.tif")


def test_pairs_of_cityscapes_and_coco_stuff(tmp_path: Path) -> None:
    """Of Cityscapes' several maps of a picture the one with class numbers counts."""
    images, labels = tmp_path / "leftImg8bit/train", tmp_path / "gtFine/train"
    save(images / "ulm/ulm_000001_000019_leftImg8bit.png")
    for kind in ("color", "instanceIds", "labelIds", "labelTrainIds"):
        save(labels / f"ulm/ulm_000001_000019_gtFine_{kind}.png")
    assert label_map_folders(tmp_path) == {"train": (images, labels)}
    found = pair_label_maps(images, labels)
    assert [path.name for path in found.both[0]] == [
        "ulm_000001_000019_leftImg8bit.png",
        "ulm_000001_000019_gtFine_labelTrainIds.png",
    ]
    assert (found.without_map, found.without_picture, found.alike) == ((), (), ())
    stuff = save(tmp_path / "stuff/images/09.jpg"), save(tmp_path / "stuff/labels/09_labelTrainIds.png")
    assert pair_label_maps(stuff[0].parent, stuff[1].parent).both == (stuff,)


LAYOUTS = {
    "beside": ("images/train", "labels/train", "train"),
    "masks": ("images/val", "masks/valid", "val"),
    "capitals": ("Images/Test", "Masks/TEST", "test"),
    "ade20k": ("images/training", "annotations/training", "train"),
    "inside": ("train/images", "train/masks", "train"),
    "year": ("images/val2017", "labels/val", "val"),
    "plain": ("images", "labels", "train"),
    "deep": ("images", "annotations/town", "train"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts(case: str, tmp_path: Path) -> None:
    images, labels, split = LAYOUTS[case]
    save(tmp_path / images / "a.jpg")
    save(tmp_path / labels / "a.png")
    expected = labels.split("/")[0] if case == "deep" else labels
    assert label_map_folders(tmp_path) == {split: (tmp_path / images, tmp_path / expected)}


def test_folders_without_label_maps(tmp_path: Path) -> None:
    save(tmp_path / "images/train/a.jpg")
    save(tmp_path / "images/test/a.jpg")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").touch()
    assert label_map_folders(tmp_path) == {}
    save(tmp_path / "labels/train/a.png")
    left_out: list[Path] = []
    assert list(label_map_folders(tmp_path, left_out)) == ["train"]
    assert left_out == [tmp_path / "images/test"]
    with pytest.raises(ValueError, match=r"there is no folder .*none"):
        label_map_folders(tmp_path / "none")


def test_several_folders_that_fit(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "labels/a.png", "masks/a.png"):
        save(tmp_path / name)
    with pytest.raises(ValueError, match="holds several folders of label maps: labels, masks; keep one of them"):
        label_map_folders(tmp_path)
    for name in ("images/train/a.jpg", "labels/train/a.png", "masks/train/a.png"):
        save(tmp_path / name)
    message = "several folders of train pictures or label maps: images/train with labels/train, images/train with masks"
    with pytest.raises(ValueError, match=message):
        label_map_folders(tmp_path)


def test_contents_examined(tmp_path: Path) -> None:
    """Of each label map that can be read and fits; the fault is said of its file."""
    pairs = [(save(tmp_path / f"{at}.jpg"), save(tmp_path / f"{at}.png")) for at in range(2)]
    Image.fromarray(np.full((3, 4), 9, np.uint8)).save(pairs[1][1])
    found = read_pairs(
        pairs, lambda counts: ("kind", f"{counts[-1]} of {len(counts) - 1}") if len(counts) > 2 else None
    )
    assert [(each.kind, str(each), each.is_fixed) for each in found.findings] == [
        ("kind", f"{pairs[1][1]}: 12 of 9", False)
    ]


def test_contents_by_hand(tmp_path: Path) -> None:
    """Pixels are counted where both files can be read and fit."""
    pairs = [(save(tmp_path / f"{at}.jpg"), tmp_path / f"{at}.png") for at in range(4)]
    for (_, path), values in zip(pairs, (VALUES, WIDE, VALUES, VALUES), strict=True):
        Image.fromarray(values).resize((4, 3), Image.Resampling.NEAREST).save(path)
    pairs[2][0].write_bytes(b"none")
    save(pairs[3][1], (3, 4))
    found = read_pairs(pairs)
    expected = np.zeros(2**16, np.int64)
    for _, path in pairs[:2]:
        np.add.at(expected, read_label_map(path).ravel(), 1)
    np.testing.assert_array_equal(found.num_pixels, expected)
    assert found.sizes == {(3, 4): 2}
    assert [(finding.kind, finding.is_fixed) for finding in found.findings] == [
        ("unreadable image", False),
        ("label map of another size", False),
    ]
    text = f"{pairs[3][1]}: it is 3 x 4 pixels, but {pairs[3][0]} is 4 x 3; give both the same size (label maps by"
    assert str(found.findings[1]).startswith(text)
