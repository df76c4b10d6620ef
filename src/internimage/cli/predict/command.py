"""``internimage predict``: name images, their objects or their pixels, as a table, JSON, CSV and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.predict.bulk import add_bulk_arguments, check_bulk, predict_many
from internimage.cli.predict.classes import predict_classes
from internimage.cli.predict.names import FILES, remove_earlier
from internimage.data import find_images
from internimage.inference import Classifier
from internimage.inference.bulk import ClassRows, MapRows, ObjectRows
from internimage.model import Checkpoint, read_checkpoint
from internimage.model.checkpoints.detector_files import holds_detector
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.segmenter_files import holds_segmenter
from internimage.model.weights import DEFAULT_WEIGHTS, SHIPPED
from internimage.structures import MergeRule

log = logging.getLogger(__name__)

# Of detections; below it most are mistakes.
_SCORE = 0.3
# What each option is for; the others are for all.
_FOR = {
    "top": ("classifier",),
    "score": ("detector",),
    "nms": ("detector",),
    "limit": ("detector",),
    "sides": ("detector",),
    "merge": ("detector",),
    "flip": ("detector", "segmenter"),
    "scales": ("segmenter",),
    "own_size": ("segmenter",),
    "window": ("segmenter",),
    "stride": ("segmenter",),
}


def main(arguments: Sequence[str]) -> int:
    """Predict; 0 if every image could be read, 1 otherwise."""
    options = _parser().parse_args(list(arguments))
    for name in ("top", "batch_size"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(options, name)}")
    if options.weights is None:
        options.weights = DEFAULT_WEIGHTS
        row = SHIPPED[DEFAULT_WEIGHTS]
        log.info("no --weights: %s, which come with the package (%s, %d pixels)", row.name, row.data, row.image_size)
    check_bulk(options)
    if options.output is None:
        return _show(options)
    if options.format != "json":
        return _predict_many(options)
    output = prepare_output(Path(options.output), options.overwrite)
    paths = find_images(options.images)
    found = read_checkpoint(locate(options.weights))
    if holds_detector(found):
        _check(options, found, "detector")
        return _find(options, found, paths, output)
    if holds_segmenter(found):
        _check(options, found, "segmenter")
        return _segment(options, found, paths, output)
    _check(options, found, "classifier")
    classifier = Classifier(options.weights, device=options.device)
    remove_earlier(output, paths)
    return predict_classes(classifier, paths, output, batch_size=options.batch_size or 32, top=options.top or 5)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="internimage predict", description="Name images, their objects, or their pixels.")
    parser.add_argument("images", nargs="+", type=str, help="image files, folders, and (jsonl, parquet) sets of shards")
    weights = "a file, a run's folder, a weight name or a hub id; by default a small classifier of the package's own"
    parser.add_argument("--weights", type=str | None, default=None, help=weights)
    output = "folder for what is found; a classifier's findings are only printed without one"
    parser.add_argument("--output", type=str | None, default=None, help=output)
    add_bulk_arguments(parser)
    parser.add_argument(
        "--batch_size",
        type=int | None,
        default=None,
        help="images (segmenters: windows of an image) that go through the network together",
    )
    parser.add_argument("--top", type=int | None, default=None, help="classifiers: classes per image; 5 by default")
    parser.add_argument("--score", type=float | None, default=None, help="detectors: least score; 0.3 by default")
    parser.add_argument("--nms", type=float | None, default=None, help="detectors: largest overlap (IoU) in a class")
    parser.add_argument("--limit", type=int | None, default=None, help="detectors: most objects of an image")
    parser.add_argument("--sides", type=list[int], default=[], help="detectors: look at several sizes, as [640,800]")
    parser.add_argument("--flip", action="store_true", help="detectors, segmenters: look at each image also mirrored")
    merge = "detectors: put several sizes together by nms (default), soft_nms, soft_nms_linear, box_voting, box_fusion"
    parser.add_argument("--merge", type=MergeRule | None, default=None, help=merge)
    parser.add_argument("--scales", type=list[float], default=[], help="segmenters: several sizes, as [0.75,1,1.25]")
    parser.add_argument(
        "--own_size", action="store_true", help="segmenters: large images at their own size, in windows"
    )
    parser.add_argument("--window", type=list[int] | None, default=None, help="segmenters: of windows, as [512,512]")
    parser.add_argument("--stride", type=list[int] | None, default=None, help="segmenters: from window to window")
    parser.add_argument("--device", type=str | None, default=None, help="cpu, cuda, ...; the fastest by default")
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that are there")
    return parser


def _show(options: Namespace) -> int:
    """Print what a classifier sees, and write nothing."""
    found = read_checkpoint(locate(options.weights))
    kinds = {"detector": holds_detector(found), "segmenter": holds_segmenter(found)}
    kind = next((name for name, holds in kinds.items() if holds), None)
    if kind is not None or options.format != "json":
        what = f"a {kind}'s" if kind else f"--format {options.format}'s"
        raise ValueError(f"{what} findings go into a folder; give one as --output FOLDER")
    _check(options, found, "classifier")
    classifier = Classifier(options.weights, device=options.device)
    paths = find_images(options.images)
    return predict_classes(classifier, paths, None, batch_size=options.batch_size or 32, top=options.top or 5)


def _check(options: Namespace, found: Checkpoint, kind: str) -> None:
    """Raise ``ValueError`` for an option that other networks have."""
    for name, kinds in _FOR.items():
        given = getattr(options, name)
        is_given = not (given is None or given is False or given == [])
        if kind not in kinds and is_given:
            meant = " and ".join(f"{each}s" for each in kinds)
            raise ValueError(f"--{name} is for {meant}, and {found.path} is a {kind}; leave it out")


def _find(options: Namespace, found: Checkpoint, paths: Sequence[Path], output: Path) -> int:
    # A classifier's users need none of what detection needs.
    from internimage.cli.predict.objects import predict_objects
    from internimage.inference.detection import Detector

    detector = Detector(found, device=options.device, **_detector_settings(options))
    remove_earlier(output, paths)
    return predict_objects(detector, paths, output, batch_size=options.batch_size or 1)


def _segment(options: Namespace, found: Checkpoint, paths: Sequence[Path], output: Path) -> int:
    from internimage.cli.predict.maps import predict_maps
    from internimage.inference.segmentation import Segmenter

    segmenter = Segmenter(found, device=options.device, **_segmenter_settings(options))
    remove_earlier(output, paths)
    return predict_maps(segmenter, paths, output, batch_size=options.batch_size or 1)


def _predict_many(options: Namespace) -> int:
    """Rows only, written as they come."""
    found = read_checkpoint(locate(options.weights))
    if holds_detector(found):
        from internimage.inference.detection import Detector

        _check(options, found, "detector")
        settings = _detector_settings(options)
        return predict_many(options, found, partial(Detector, **settings), ObjectRows(), settings)
    if holds_segmenter(found):
        from internimage.inference.segmentation import Segmenter

        _check(options, found, "segmenter")
        settings = _segmenter_settings(options)
        make_row = MapRows(str(Path(options.output).absolute()))
        return predict_many(options, found, partial(Segmenter, **settings), make_row, settings)
    _check(options, found, "classifier")
    top = options.top or 5
    return predict_many(options, found, Classifier, ClassRows(top), {"top": top})


def _detector_settings(options: Namespace) -> dict[str, Any]:
    score = _SCORE if options.score is None else options.score
    names = ("nms", "limit", "sides", "flip")
    merge = {} if options.merge is None else {"merge": options.merge}
    return {"score": score, **{name: getattr(options, name) for name in names}, **merge}


def _segmenter_settings(options: Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("scales", "flip", "own_size", "window", "stride")}


def prepare_output(output: Path, overwrite: bool) -> Path:
    """Make the folder; predictions that are there stay unless ``overwrite``."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; give a folder")
    there = [name for name in FILES if (output / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{output} holds {', '.join(there)} already; choose another --output or pass --overwrite")
    output.mkdir(parents=True, exist_ok=True)
    return output
