"""``internimage export``: weights as a file for another runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import nn

from internimage.export import Agreement, export_onnx, export_openvino, export_package, export_program
from internimage.model import create_model, read_checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.loading import infer_config

Format = Literal["onnx", "openvino", "program", "package"]


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
        "--sampling",
        choices=["deform_conv", "grid_sample"],
        help="onnx: what DCNv3 rests on; deform_conv, the default, is faster, grid_sample runs in more places",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse_args(list(arguments))
    if options.half and options.format not in ("onnx", "openvino"):
        raise ValueError(f"--half is for --format onnx and openvino, not {options.format}")
    if options.sampling is not None and options.format != "onnx":
        raise ValueError(f"--sampling is for --format onnx, not {options.format}")
    model, metadata = load(options.source, options.features)
    seen: list[Agreement] = []
    named: dict[str, Any] = {"overwrite": options.overwrite, "report": seen.append}
    write: Callable[..., Path]
    if options.sampling is not None:
        named["sampling"] = options.sampling
    if options.format in ("onnx", "openvino"):
        write = export_onnx if options.format == "onnx" else export_openvino
        path = write(model, options.output, half=options.half, metadata=metadata, **named)
    else:
        write = export_program if options.format == "program" else export_package
        path = write(model, options.output, **named)
    print("\n".join(map(str, seen)))
    print(f"written: {path}")
    return 0


def load(source: str, features_only: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and what a file says of its classes and images."""
    path = locate(source)
    found = read_checkpoint(path)
    model = create_model(infer_config(found), pretrained=path, features_only=features_only).eval()
    metadata: dict[str, Any] = {}
    if found.card is not None:
        if found.card.labels is not None and not features_only:
            metadata["labels"] = list(found.card.labels)
        if found.card.preprocess is not None:
            metadata["preprocess"] = found.card.preprocess.to_dict()
    return model.to(torch.float32), metadata
