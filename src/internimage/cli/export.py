"""``internimage export``: weights as a file for another runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from internimage.data import find_images, read_image, to_tensor
from internimage.export import Agreement, export_onnx, export_openvino, export_package, export_program
from internimage.inference.loading import published_size
from internimage.model import create_model, infer_config, read_checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.structures import Preprocess

Format = Literal["onnx", "openvino", "program", "package"]
# Options that not every format has.
_FORMATS = {"half": ("onnx", "openvino"), "sampling": ("onnx",), "int8": ("openvino",)}
# NNCF's own default: more images change the ranges little.
_CALIBRATION = 300


def main(arguments: Sequence[str]) -> int:
    """Export one network."""
    parser = ArgumentParser(
        prog="internimage export",
        description="Write a network for another runtime, and compare what that computes with what ours does.",
    )
    parser.add_argument("source", type=str, help="a weight file, folder, weight name or hub id")
    parser.add_argument("output", type=str, help="onnx: X.onnx; openvino: X.xml; program and package: X.pt2")
    parser.add_argument(
        "--format",
        type=Format,
        default="onnx",
        help="program: for torch.export.load; package: compiled by AOTInductor for this machine's processor",
    )
    parser.add_argument("--features", action="store_true", help="the four maps in place of class scores")
    parser.add_argument(
        "--half", action="store_true", help="onnx: float16 in place of float32; openvino: the same for weights"
    )
    parser.add_argument(
        "--int8",
        type=str,
        default=None,
        metavar="IMAGES",
        help="openvino: weights and activations in int8, their ranges from (up to 300 of) the images in this folder",
    )
    parser.add_argument(
        "--sampling",
        choices=["deform_conv", "grid_sample"],
        help="onnx: what DCNv3 rests on; deform_conv, the default, is faster, grid_sample runs in more places",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse_args(list(arguments))
    named: dict[str, Any] = {}
    for option, formats in _FORMATS.items():
        if given := getattr(options, option):
            if options.format not in formats:
                raise ValueError(f"--{option} is for --format {' and '.join(formats)}, not {options.format}")
            named[option] = given
    model, metadata = load(options.source, options.features)
    if folder := named.pop("int8", None):
        named["calibration"] = calibration_images(folder, metadata.get("preprocess"))
    if options.format in ("onnx", "openvino"):
        named["metadata"] = metadata
    write: dict[Format, Callable[..., Path]] = {
        "onnx": export_onnx,
        "openvino": export_openvino,
        "program": export_program,
        "package": export_package,
    }
    seen: list[Agreement] = []
    path = write[options.format](model, options.output, overwrite=options.overwrite, report=seen.append, **named)
    print("\n".join(map(str, seen)))
    print(f"written: {path}")
    return 0


def load(source: str, features_only: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and what a file says of its classes and images."""
    path = locate(source)
    found = read_checkpoint(path)
    config = infer_config(found)
    model = create_model(config, pretrained=path, features_only=features_only).eval()
    metadata: dict[str, Any] = {}
    preprocess = found.card.preprocess if found.card is not None else None
    if preprocess is None and config.in_chans == 3:
        preprocess = Preprocess(size=published_size(source, found.path))
    if preprocess is not None:
        metadata["preprocess"] = preprocess.to_dict()
    if found.card is not None and found.card.labels is not None and not features_only:
        metadata["labels"] = list(found.card.labels)
    return model.to(torch.float32), metadata


def calibration_images(folder: str, preprocess: dict[str, Any] | None) -> list[Tensor]:
    """Up to 300 images (1, C, size, size), evenly from all: files of one class lie together."""
    if preprocess is None:
        raise ValueError("the weight file does not say how images are prepared; save it with preprocess=...")
    how, paths = Preprocess.from_dict(preprocess), find_images(folder)
    step = math.ceil(len(paths) / _CALIBRATION)
    return [to_tensor(read_image(path, in_chans=how.in_chans), how)[None] for path in paths[::step]]
