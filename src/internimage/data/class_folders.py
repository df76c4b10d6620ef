"""How folder trees hold classes and splits: one folder per class, in folders named train, val and test or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from internimage.data.images import images_below
from internimage.data.samples.fashion_mnist import folder_name
from internimage.structures import LabelMap

Split = Literal["train", "val", "test"]

# The folder names that each split goes by.
SPLIT_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}


def class_folders(root: Path) -> list[Path]:
    """The visible folders in ``root``, sorted by name; raises ``ValueError`` when there are fewer than two."""
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
    return folders


def labels_in(root: str | Path) -> LabelMap:
    """The classes of a folder tree: the sorted names of its class folders.

    Where ``root`` holds the splits train, val and test, they are those of the first of these that is there.
    """
    root = Path(root)
    splits = [folder for name in SPLIT_FOLDERS if (folder := find_split(root, name))]
    return LabelMap(tuple(folder.name for folder in class_folders(splits[0] if splits else root)))


def is_split(folder: Path) -> bool:
    """Whether ``folder`` holds a split: a class may be called train too, but then it holds no folders."""
    names = {name for names in SPLIT_FOLDERS.values() for name in names}
    return folder.name in names and folder.is_dir() and bool(_subfolders(folder))


def find_split(root: Path, split: Split | str) -> Path | None:
    """The folder of a split in ``root``, if there is one; raises ``ValueError`` when there are several."""
    found = [root / name for name in SPLIT_FOLDERS[split] if is_split(root / name)]
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
