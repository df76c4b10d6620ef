"""``internimage data``: look at a folder of images before training; write the sample images as files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from internimage.data import FolderDataset, ImageReadError, export_samples, open_split, read_image
from internimage.data.class_folders import class_folders, find_split, labels_in
from internimage.data.images import skipped_below
from internimage.data.samples.fashion_mnist import check_export


def main(arguments: Sequence[str]) -> int:
    """``check FOLDER`` or ``samples FOLDER``."""
    parser = ArgumentParser(prog="internimage data", description="Look at image folders; write the sample images.")
    commands = parser.add_subcommands(required=True, dest="what")
    check = ArgumentParser(description="Count classes and images as training would see them, and read every image.")
    check.add_argument("folder", type=str, help="train/ and val/ with class folders, or class folders directly")
    commands.add_subcommand("check", check, help="count classes and images, and read every one")
    samples = ArgumentParser(description="Write the sample images, one folder per class, in train/ and val/.")
    samples.add_argument("folder", type=str, help="a new or empty folder")
    samples.add_argument("--train", type=int, default=500, help="images in train/")
    samples.add_argument("--val", type=int, default=100, help="images in val/")
    commands.add_subcommand("samples", samples, help="write the sample images as PNG files")
    options = parser.parse_args(list(arguments))
    if options.what == "check":
        return _check(options.check.folder)
    target = Path(options.samples.folder)
    check_export(target, {"train": options.samples.train, "test": options.samples.val})
    export_samples(target / "train", "train", options.samples.train)
    export_samples(target / "val", "test", options.samples.val)
    print(f"{options.samples.train} + {options.samples.val} images in {target}/train and {target}/val")
    return 0


def _check(folder: str) -> int:
    bad: list[ImageReadError] = []
    labels, roots = labels_in(folder), set[Path]()
    has_test = find_split(Path(folder), "test") is not None
    for split in ("train", "val", "test") if has_test else ("train", "val"):
        dataset: FolderDataset = open_split(folder, split, transform=_same, labels=labels)
        roots.add(dataset.root)
        counts = Counter(dataset.targets)
        least, most = min(counts.values()), max(counts.values())
        print(f"{split:<6} {len(dataset):>7,} images, {len(dataset.labels)} classes, {least} to {most} images a class")
        for path in dataset.paths:
            try:
                read_image(path)
            except ImageReadError as error:
                bad.append(error)
    skipped = [path for root in roots for below in class_folders(root) for path in skipped_below(below)]
    if skipped:
        suffixes = sorted({path.suffix.lower() or "none" for path in skipped})
        shown = ", ".join(suffixes[:8]) + (", ..." if len(suffixes) > 8 else "")
        print(f"{len(skipped)} files were skipped for their suffix ({shown})")
    for error in bad:
        print(f"internimage: {error}", file=sys.stderr)
    print("every image can be read" if not bad else f"{len(bad)} images can't be read: mend or remove them")
    return 1 if bad else 0


def _same(image: Any) -> Any:
    return image
