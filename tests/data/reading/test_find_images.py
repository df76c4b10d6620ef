"""Which files a list of paths stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from internimage.data import IMAGE_SUFFIXES, find_images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ["b.png", "a.JPEG", "notes.txt", "sub/deep/c.webp", "sub/d.tif", ".hidden.png", ".cache/e.png", "sub.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names_below(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_folders_are_searched_through_and_sorted(tree):
    assert names_below(tree, find_images([tree])) == ["a.JPEG", "b.png", "sub.png", "sub/d.tif", "sub/deep/c.webp"]


def test_files_are_taken_as_given_and_the_order_is_kept(tree):
    given = [tree / "notes.txt", str(tree / "sub"), tree / ".hidden.png"]
    assert names_below(tree, find_images(given)) == ["notes.txt", "sub/d.tif", "sub/deep/c.webp", ".hidden.png"]


def test_one_path_is_not_taken_for_letters(tree):
    assert names_below(tree, find_images(str(tree / "b.png"))) == ["b.png"]
    assert names_below(tree, find_images(tree / "sub")) == ["sub/d.tif", "sub/deep/c.webp"]


def test_a_folder_that_is_hidden_itself_can_be_given(tree):
    assert names_below(tree, find_images([tree / ".cache"])) == [".cache/e.png"]


def test_linked_subfolders_are_not_followed(tree):
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "linked.png").symlink_to(tree / "b.png")
    found = names_below(tree, find_images([tree]))
    assert found == ["a.JPEG", "b.png", "linked.png", "sub.png", "sub/d.tif", "sub/deep/c.webp"]


def test_no_paths_give_no_images():
    assert find_images([]) == []


def test_missing_path(tree):
    with pytest.raises(ValueError, match=r"missing\.png does not exist; check the path"):
        find_images([tree, tree / "missing.png"])


def test_folder_without_images(tree):
    empty = tree / "empty"
    empty.mkdir()
    (empty / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"empty holds no images; known suffixes are \.bmp, \.gif"):
        find_images([tree, empty])


def test_suffixes_are_lower_case_with_a_dot():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
