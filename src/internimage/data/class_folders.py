"""How folder trees hold classes and splits: one folder per class, in folders named train, val and test or not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from internimage.data.images import images_below
from internimage.data.samples.fashion_mnist import folder_name
from internimage.structures import LabelMap

log = logging.getLogger(__name__)
Split = Literal["train", "val", "test"]

# The folder names that each split goes by.
SPLIT_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
# Names that people give to splits and that we don't know as such.
_LIKE_SPLITS = {"training", "trainval", "validate", "validating", "testing", "dev", "eval", "evaluation", "holdout"}
_SPLIT_NAMES = {name for names in SPLIT_FOLDERS.values() for name in names}


def class_folders(root: Path) -> list[Path]:
    """The visible folders in ``root``, sorted by name.

    Raises:
        ValueError: there are fewer than two, or one has a name that no weight file could hold.
    """
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; give the folder that holds one folder per class")
    folders = _subfolders(root)
    if not folders:
        held = "images but no class folders" if images_below(root) else "no class folders"
        raise ValueError(f"{root} holds {held}; make one folder per class there, with its images inside")
    if len(folders) == 1:
        raise ValueError(
            f"{root} holds only the class folder {folders[0].name}; a classifier needs two classes or more"
        )
    for folder in folders:
        try:
            folder.name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the class folder {folder.name!r} in {root} is not named in UTF-8; rename it") from None
    return folders


def labels_in(root: str | Path) -> LabelMap:
    """The classes of a folder tree: the sorted names of its class folders.

    Where ``root`` holds the splits train, val and test, they are those of the first of these that is there.
    """
    root = Path(root)
    splits = [folder for name in SPLIT_FOLDERS if (folder := find_split(root, name))]
    names = tuple(folder.name for folder in class_folders(splits[0] if splits else root))
    if all(name.lower() in _LIKE_SPLITS | _SPLIT_NAMES for name in names):
        fix = "if these are splits, name them train, val and test"
        log.warning("%s: the folders %s are taken as classes; %s", root, ", ".join(names), fix)
    return LabelMap(names)


def is_split(folder: Path) -> bool:
    """Whether ``folder`` holds a split: a class may be called train too, but then it holds no folders."""
    return folder.name.lower() in _SPLIT_NAMES and folder.is_dir() and bool(_subfolders(folder))


def find_split(root: Path, split: Split | str) -> Path | None:
    """The folder of a split in ``root``, in capitals or not; raises ``ValueError`` when there are several."""
    folders = _subfolders(root) if root.is_dir() else []
    found = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS[split] and is_split(folder)]
    if len(found) > 1:
        raise ValueError(f"{root} holds {' and '.join(path.name for path in found)}; keep one of them")
    return found[0] if found else None


def match_folders(root: Path, folders: Mapping[str, Path], labels: LabelMap) -> list[Path]:
    """The folder of each class, in the order of ``labels``; raises ``ValueError`` where the two differ.

    Args:
        root: named in the message.
        folders: the class folders by name.
        labels: the classes; one that is no possible folder name is looked for as `folder_name` writes it.
    """
    names = [name if name in folders else folder_name(name) for name in labels]
    missing = [label for label, name in zip(labels, names, strict=True) if name not in folders]
    unexpected = sorted(set(folders) - set(names))
    if missing or unexpected:
        differences = [f"missing: {', '.join(missing)}"] * bool(missing)
        differences += [f"unexpected: {', '.join(unexpected)}"] * bool(unexpected)
        raise ValueError(f"the class folders in {root} do not match the classes asked for; {'; '.join(differences)}")
    return [folders[name] for name in names]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
