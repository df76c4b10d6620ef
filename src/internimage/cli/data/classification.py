"""``internimage data check`` of class folders."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from internimage.data import IMAGE_SUFFIXES, ImageReadError, labels_in, open_split, read_image
from internimage.data.class_folders import Split, class_folders, find_split
from internimage.data.images import images_below, skipped_below
from internimage.structures import LabelMap


def check_classes(root: Path) -> int:
    """Print classes and images as training would see them, and read every image.

    Returns 0; 1 where images can't be read; 2 where training would refuse the folders, which is said in its words.

    Raises:
        ValueError: there are no classes or no images.
    """
    labels = labels_in(root)
    splits: tuple[Split, ...] = ("train", "val", "test") if find_split(root, "test") else ("train", "val")
    print(f"{root}: classification, one folder per class\n")
    refused: list[str] = []
    bad: list[ImageReadError] = []
    num_images = 0
    # Class folders without splits are refused for each split, and read once.
    folders = {split: found for split in splits if (found := find_split(root, split))} or {"train": root}
    for split in splits:
        paths = _open(root, split, labels, folders.get(split), refused)
        num_images += len(paths)
        for path in paths:
            try:
                read_image(path)
            except ImageReadError as error:
                bad.append(error)
    if not num_images:
        raise ValueError(refused[0])
    _print_unused(list(folders.values()))
    for text in dict.fromkeys((*refused, *map(str, bad))):
        print(f"internimage: {text}", file=sys.stderr)
    if refused:
        print("training refuses the folders as they are")
    print("every image can be read" if not bad else f"{len(bad)} images can't be read: mend or remove them")
    return 2 if refused else 1 if bad else 0


def _open(root: Path, split: Split, labels: LabelMap, folder: Path | None, refused: list[str]) -> list[Path]:
    """The images of a split; of one that training would refuse, those in ``folder``."""
    try:
        dataset = open_split(root, split, transform=_same, labels=labels)
    except ValueError as error:
        refused.append(str(error))
        paths = images_below(folder) if folder else []
        if folder:
            print(f"{split:<6} {len(paths):>7,} images, in folders that training refuses", flush=True)
        return paths
    counts = Counter(dataset.targets)
    least, most = min(counts.values()), max(counts.values())
    numbers = f"{len(dataset):>7,} images, {len(dataset.labels)} classes, {least} to {most} images a class"
    print(f"{split:<6} {numbers}", flush=True)
    return dataset.paths


def _print_unused(roots: list[Path]) -> None:
    folders = [folder for root in roots for folder in class_folders(root)]
    skipped = [path for folder in folders for path in skipped_below(folder)]
    if skipped:
        suffixes = sorted({path.suffix.lower() or "none" for path in skipped})
        shown = ", ".join(suffixes[:8]) + (", ..." if len(suffixes) > 8 else "")
        print(f"{len(skipped)} files were skipped for their suffix ({shown})")
    beside = [path for root in roots for path in sorted(root.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    if beside:
        print(f"{len(beside)} images lie beside the class folders and are not used, such as {beside[0]}")


def _same(image: Any) -> Any:
    return image
