"""Images one after the other: the order of the list, for any tree, without the list; parts that share it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from internimage.data import find_images
from internimage.data.images import images_below
from internimage.data.inputs import ImageInputs, walk_images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Names on both sides of the slash in the order of characters, empty folders, links, hidden files."""
    generator = np.random.default_rng(0)
    pieces = ("a", "b", "a-", "a.", "a0", "é", "a b", "Z", "a!")
    root = tmp_path / "tree"
    for _ in range(150):
        depth = generator.integers(0, 4)
        folder = root.joinpath(*generator.choice(pieces, depth))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{generator.choice(pieces)}{generator.choice(['.png', '.JPG', '.txt', '.jpg/', '.dat'])}"
        if not path.exists():
            path.mkdir() if generator.random() < 0.1 else path.touch()
    (root / ".hidden").mkdir()
    (root / ".hidden/x.png").touch()
    (root / "a/.x.png").touch()
    (root / "linked").symlink_to(root / "a")
    (root / "link.png").symlink_to(root / "nowhere.png")
    return root


def test_the_order_is_that_of_the_list(tree: Path) -> None:
    expected = images_below(tree)
    assert len(expected) > 40
    assert list(walk_images(tree)) == expected
    images = list(ImageInputs([str(tree), str(expected[3])]))
    assert [image.name for image in images] == [str(path) for path in find_images([tree, expected[3]])]
    assert [image.position for image in images] == list(range(len(images)))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_parts_are_all_images_each_once(tree: Path, count: int) -> None:
    sources = [str(tree), str(tree / "link.png")]
    # A link to nothing exists for a folder's list, as a picture that can't be read.
    (tree / "nowhere.png").touch()
    everything = list(ImageInputs(sources))
    parts = [list(ImageInputs(sources, (number + 1, count))) for number in range(count)]
    assert sorted((image for part in parts for image in part), key=lambda image: image.position) == everything
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_after(tree: Path) -> None:
    inputs = ImageInputs([str(tree)], (2, 3))
    assert list(inputs.after(4)) == list(inputs)[4:]


def test_a_folder_that_cannot_be_listed(tree: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may list everything")
    (tree / "a").chmod(0)
    with pytest.raises(ValueError, match="cannot list the folder"):
        list(walk_images(tree))
