"""``internimage data``: look at your pictures before training, convert annotations, write the sample sets as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any, get_args

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.data.check import Task, check
from internimage.cli.data.segmentation import Meant, convert_label_maps
from internimage.cli.data.shards import check_shards, is_sharded, pack_folder, pack_parser
from internimage.cli.tables import table
from internimage.data import export_samples
from internimage.data.detection.formats import convert_to_coco
from internimage.data.samples.fashion_mnist import check_export
from internimage.data.scenes import Scenes, export_coco
from internimage.data.segmentation import KNOWN, SceneMaps
from internimage.data.segmentation.rules import CLASSES_FILE
from internimage.data.segmentation.writing import export_scene_maps

_NEW = "a new or empty folder"
_TASKS = get_args(Task)


def main(arguments: Sequence[str]) -> int:
    """``check PATH``, ``pack FOLDER OUTPUT`` and the others of the parser, each with its own options.

    Returns the exit status.
    """
    options = _parser().parse_args(list(arguments))
    chosen: Namespace = options[options.what]
    if options.what == "check":
        if chosen.task not in (None, *_TASKS):
            raise ValueError(f"--task must be one of {', '.join(_TASKS)}; got {chosen.task!r}")
        images = None if chosen.images is None else Path(chosen.images)
        if chosen.task in (None, "classification") and is_sharded(chosen.path):
            return check_shards(chosen.path, everything=chosen.all)
        meant = Meant(chosen.classes, tuple(chosen.ignore or ()), chosen.reduce_zero, chosen["values"])
        return check(Path(chosen.path), chosen.task, images, meant, everything=chosen.all)
    if options.what == "pack":
        return pack_folder(chosen)
    if options.what == "coco":
        return _convert(Path(chosen.folder), Path(chosen.output))
    if options.what == "labels":
        return convert_label_maps(Path(chosen.folder), Path(chosen.output), chosen.palette, chosen.ignore or ())
    write = _samples if options.what == "samples" else _scenes
    return write(Path(chosen.folder), chosen.train, chosen.val)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="internimage data", description="Look at pictures before training; write sets of them."
    )
    commands = parser.add_subcommands(required=True, dest="what")
    check = ArgumentParser(
        description="Say what a set of pictures holds, read every one of them, and name all that is wrong. Known are "
        "class folders and shards (classification), COCO, Pascal VOC, YOLO, CrowdHuman and OpenImages (detection), and "
        "images/ with labels/ of the same names (segmentation)."
    )
    check.add_argument("path", type=str, help="the folder that holds the set, or one annotation file of COCO's format")
    tasks = f"{', '.join(_TASKS)}: what the set is for, where it fits several"
    check.add_argument("--task", type=str | None, default=None, help=tasks)
    check.add_argument("--images", type=str | None, default=None, help="the pictures' folder, for one annotation file")
    known = ", ".join(KNOWN)
    classes = f"of label maps: how many, a file with a name per line, or one of {known}; else classes.txt of the folder"
    check.add_argument("--classes", type=str | None, default=None, help=classes)
    ignore = "values of label maps that are no class; by default 255"
    check.add_argument("--ignore", type=int, nargs="+", default=None, help=ignore)
    values = "classes of values in label maps that number otherwise, such as '{7: 0, 8: 1}'"
    check.add_argument("--values", type=dict[int, int], default={}, help=values)
    check.add_argument("--reduce_zero", action="store_true", help="in label maps 0 is no class, and 1 the first one")
    check.add_argument("--all", action="store_true", help="name every place, not the first three of each kind")
    commands.add_subcommand("check", check, help="say what a set holds and all that is wrong in it")
    commands.add_subcommand("pack", pack_parser(), help="write class folders as shards: large tar files with an index")
    coco = ArgumentParser(description="Write annotations/train.json and the like in COCO's format; pictures stay.")
    coco.add_argument("folder", type=str, help="a set of Pascal VOC, YOLO, CrowdHuman or OpenImages")
    coco.add_argument("output", type=str, help="where the annotations go; it may be the same folder")
    commands.add_subcommand("coco", coco, help="convert Pascal VOC, YOLO, CrowdHuman or OpenImages to COCO's format")
    labels = ArgumentParser(description="Write label maps in colour as class numbers, PNG files of the same names.")
    labels.add_argument("folder", type=str, help="the folder of the label maps in colour")
    labels.add_argument("output", type=str, help="where the new ones go")
    colours = "ade20k, cityscapes, or a file of lines such as `128 64 128 road`, in the order of the class numbers"
    labels.add_argument("--palette", type=str, required=True, help=colours)
    ignore = "colours of pixels of no class, such as 0,0,0"
    labels.add_argument("--ignore", type=str, nargs="+", default=None, help=ignore)
    commands.add_subcommand("labels", labels, help="convert label maps in colour to class numbers")
    samples = ArgumentParser(description="Write the sample images, one folder per class, in train/ and val/.")
    samples.add_argument("folder", type=str, help=_NEW)
    samples.add_argument("--train", type=int, default=500, help="images in train/")
    samples.add_argument("--val", type=int, default=100, help="images in val/")
    commands.add_subcommand("samples", samples, help="write the sample images as PNG files")
    scenes = ArgumentParser(
        description="Write pictures composed of the sample images, with boxes, masks and label maps."
    )
    scenes.add_argument("folder", type=str, help=_NEW)
    scenes.add_argument("--train", type=int, default=1000, help="pictures to train on")
    scenes.add_argument("--val", type=int, default=200, help="pictures to validate with, made of other images")
    commands.add_subcommand(
        "scenes", scenes, help="write pictures with boxes and masks in COCO's format, and label maps"
    )
    return parser


def _samples(target: Path, train: int, val: int) -> int:
    check_export(target, {"train": train, "test": val})
    export_samples(target / "train", "train", train)
    export_samples(target / "val", "test", val)
    print(f"{train} + {val} images in {target}/train and {target}/val")
    return 0


def _scenes(target: Path, train: int, val: int) -> int:
    scenes = Scenes("train", train), Scenes("val", val)
    _print_written(export_coco(target, *scenes))
    folders = export_scene_maps(target, *map(SceneMaps, scenes))
    print(f"label maps in {' and '.join(map(str, folders))}, their classes in {target}/{CLASSES_FILE}")
    data = f"--data.init_args.root {quote(str(target))} --data.init_args.frame '[128,128]'"
    print(f"\ntrain on it: internimage fit --config detection/scenes {data} --run runs/scenes")
    print(f"or:          internimage fit --config segmentation/scenes {data} --run runs/scene_maps")
    return 0


def _convert(folder: Path, output: Path) -> int:
    _print_written(convert_to_coco(folder, output))
    root = quote(str(output))
    print(f"\nlook at it:  internimage data check {root}")
    print(f"train on it: internimage fit --config finetune_detector --data.init_args.root {root} --run runs/mine")
    return 0


def _print_written(files: Sequence[Path]) -> None:
    rows: list[list[str]] = []
    for path in files:
        content: dict[str, list[Any]] = json.loads(path.read_bytes())
        numbers = [f"{len(content[key]):,}" for key in ("images", "annotations", "categories")]
        rows.append([str(path), *numbers])
    print("\n".join(table(["written", "pictures", "objects", "classes"], rows)))
