"""Small stand-ins for the files that the documentation's reader has: photos, folders of pictures, runs."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image

import internimage
from internimage.cli.main import main
from internimage.data import SAMPLE_LABELS, export_samples, sample_photo
from internimage.data.segmentation.palettes import read_classes, read_palette
from internimage.model import read_checkpoint
from internimage.model.checkpoints.convert import to_official
from internimage.model.checkpoints.hub import weights_folder
from internimage.model.weights import DEFAULT_WEIGHTS, SHIPPED, WEIGHTS
from internimage.structures import Preprocess
from support.documentation.changes import FEW, SMALL_STEPS
from support.documentation.commands import PAGES, blocks


def prepare(folder: Path, command: str, made: str | None) -> None:
    """Put what a command names into a folder, where it is not there already and the command does not make it."""
    words = set(re.findall(r"[\w./]+", command))
    for name, build in STAND_INS.items():
        is_named = any(word == name or word.startswith(f"{name}/") for word in words)
        if is_named and name != made and not (folder / name).exists():
            build(folder / name)


def _photo(path: Path) -> None:
    Image.open(sample_photo()).save(path)


def _photos(path: Path) -> None:
    path.mkdir()
    with Image.open(sample_photo()) as photo:
        for number, width in enumerate((451, 300)):
            photo.crop((0, 0, width, 300)).save(path / f"{number}.jpg")


def _classes(path: Path) -> None:
    for split, source in (("train", "train"), ("val", "test"), ("test", "test")):
        export_samples(path / split, source, 20)


def _cifar10(path: Path) -> None:
    """Pictures under the names of CIFAR-10's classes, which the package's own weights know."""
    _classes(path)
    names = read_checkpoint(SHIPPED[DEFAULT_WEIGHTS].path).card.labels
    for split in path.iterdir():
        for folder, name in zip(sorted(split.iterdir()), names, strict=True):
            folder.rename(split / name)


def _scenes(path: Path) -> None:
    _run("data", "scenes", path, "--train", "4", "--val", "2")


def _tar_files(path: Path) -> None:
    """Shards of somebody else, without an index."""
    classes = path.with_name("classes of the tar files")
    export_samples(classes / "train", "train", 20)
    _run("data", "pack", classes, path)
    for index in path.rglob("*index*"):
        index.unlink()


def _label_maps(path: Path) -> None:
    """Scenes, called by the names of what is in a street."""
    _scenes(path)
    shutil.rmtree(path / "annotations")
    classes = path / "classes.txt"
    count = len(classes.read_text().splitlines())
    classes.write_text("".join(f"{name}\n" for name in tuple(read_classes("cityscapes").labels)[:count]))


def _yolo(path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "labels"):
            (path / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (96, 128, 3), np.uint8)
            Image.fromarray(pixels).save(path / "images" / split / f"{number}.jpg")
            (path / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.3 0.4 0.2 0.2\n")
    (path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, white]\n")


def _coloured(path: Path) -> None:
    """The label maps of `streets` to train on, in Cityscapes' colours, in place of those with numbers."""
    _, colours = read_palette("cityscapes")
    numbered = path.parent / "streets" / "labels" / "train"
    path.mkdir()
    for file in sorted(numbered.iterdir()):
        Image.fromarray(np.array(colours, np.uint8)[np.asarray(Image.open(file))]).save(path / file.name)
        file.unlink()


def _network(path: Path) -> None:
    labels = internimage.LabelMap(tuple(SAMPLE_LABELS))
    model = internimage.create_model("internimage_femto", num_classes=len(labels))
    path.parent.mkdir(parents=True, exist_ok=True)
    internimage.save_checkpoint(model, path, labels=labels, preprocess=Preprocess(64))


def _module(path: Path) -> None:
    """The module that docs/extend.md shows."""
    name = f"{path.name.partition('.')[0]}.py"
    (block,) = (
        each for each in blocks(PAGES["docs/extend.md"].read_text(), "python") if each.startswith(f'"""{name}:')
    )
    path.with_name(name).write_text(block)


def _placed(path: Path) -> None:
    """A small network under the released file's name, where files that were placed by hand are found first."""
    weights_folder().mkdir(parents=True, exist_ok=True)
    _official(weights_folder() / WEIGHTS[path.name].file)


def _official(path: Path) -> None:
    torch.save({"model": to_official(internimage.create_model("internimage_femto").state_dict())}, path)


def _run_folder(path: Path) -> None:
    """What a training leaves, of one training for all pages."""
    shutil.copytree(_trained(), path)


def _streets_run(path: Path) -> None:
    _run("fit", "--config", "segmentation/scenes", "--run", path, *shlex.split(FEW), *shlex.split(SMALL_STEPS))


@cache
def _trained() -> Path:
    folder = Path(mkdtemp()) / "run"
    _run(
        "fit",
        "--config",
        "smoke/classification",
        "--run",
        folder,
        "--trainer.max_epochs",
        "1",
        "--model.init_args.optimizer.warmup_epochs",
        "0",
    )
    return folder


def _run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


# In the order in which they are made.
STAND_INS: dict[str, Callable[[Path], None]] = {
    "photo.jpg": _photo,
    "street.jpg": _photo,
    "map.tif": _photo,
    "photos": _photos,
    "my_photos": _photos,
    "flowers": _classes,
    "cifar10": _cifar10,
    "clothes": _classes,
    "cells": _scenes,
    "streets": _label_maps,
    "my_yolo_folder": _yolo,
    "coloured": _coloured,
    "weights/femto.safetensors": _network,
    "internimage_t.in1k_224": _placed,
    "internimage_t_1k_224.pth": _official,
    "runs/flowers": _run_folder,
    "runs/flowers_2": _run_folder,
    "runs/other": _run_folder,
    "runs/pets": _run_folder,
    "runs/cifar10": _run_folder,
    "runs/streets": _streets_run,
    "FOLDER": _tar_files,
    "colours.Colours": _module,
}
