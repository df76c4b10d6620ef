"""``internimage convert``: one weight format into another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import ArgumentParser, Namespace
from safetensors.torch import save_file
from torch import nn

from internimage.data.class_names import coco_labels
from internimage.model import (
    Card,
    Checkpoint,
    InternImageClassifier,
    infer_config,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from internimage.model.checkpoints.convert import to_huggingface, to_official
from internimage.model.checkpoints.detector_files import (
    holds_detector,
    load_detector,
    official_detector,
    save_detector,
)
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.loading import IN1K_CLASSES, IN22K_CLASSES
from internimage.model.checkpoints.segmenter_files import (
    holds_segmenter,
    load_segmenter,
    official_contents,
    save_segmenter,
)
from internimage.structures import LabelMap

Format = Literal["ours", "official", "huggingface"]


def main(arguments: Sequence[str]) -> int:
    """Convert one file."""
    parser = ArgumentParser(
        prog="internimage convert",
        description="Translate a weight file. The format of the source is recognised.",
    )
    parser.add_argument("source", type=str, help="a file, folder, weight name or hub id")
    parser.add_argument("output", type=str, help="ours: X.safetensors; official: X.pth; huggingface: a folder")
    parser.add_argument("--format", type=Format, default="ours", help="what to write")
    parser.add_argument("--ema", type=bool | None, default=None, help="true: the moving average; false: raw weights")
    parser.add_argument("--in1k_head", action="store_true", help="take ImageNet-1k's rows of an ImageNet-22k head")
    parser.add_argument("--labels", type=str | None, default=None, help="a text file with one class name per line")
    parser.add_argument("--half", action="store_true", help="16 bits per weight (float16): half the size")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse_args(list(arguments))
    found = read_checkpoint(locate(options.source), ema=options.ema)
    if holds_detector(found):
        return _convert_detector(found, options)
    if holds_segmenter(found):
        return _convert_segmenter(found, options)
    config = infer_config(found)
    if options.in1k_head and config.num_classes != IN22K_CLASSES:
        raise ValueError(
            f"--in1k_head needs ImageNet-22k's {IN22K_CLASSES} classes, {found.path} has {config.num_classes}"
        )
    if options.in1k_head:
        config = replace(config, num_classes=IN1K_CLASSES)
    if not config.num_classes or "head.fc.weight" not in found.state:
        raise ValueError(f"{found.path} has no classification head; use internimage.load_checkpoint for a backbone")
    model = InternImageClassifier(config)
    report = load_checkpoint(model, found)
    labels = found.card.labels if found.card and not options.in1k_head else None
    labels = labels if options.labels is None else _labels(Path(options.labels), config.num_classes)
    card = Card(config, labels, found.card.preprocess if found.card else None)
    _halve(model, options)
    path = write(model, card, Path(options.output), options.format, options.overwrite)
    print(f"{found.path} ({found.origin}): {report}\nwritten: {path}")
    return 0


def _convert_detector(found: Checkpoint, options: Namespace) -> int:
    """Between ours and mmdetection's names; what neither weights nor card say comes from the file's configuration."""
    if options.in1k_head:
        raise ValueError(f"--in1k_head is for classifiers, and {found.path} is a detector; leave it out")
    detector, output = load_detector(found), Path(options.output)
    labels, classes = detector.labels, detector.model.config.num_classes
    _halve(detector.model, options)
    labels = (labels or coco_labels(classes)) if options.labels is None else _labels(Path(options.labels), classes)
    if options.format == "ours":
        save_detector(detector.model, output, labels=labels, framing=detector.framing, overwrite=options.overwrite)
    elif options.format == "official":
        _check_official(output, options.overwrite)
        names = {} if labels is None else {"CLASSES": tuple(labels)}
        torch.save({"state_dict": official_detector(detector.model), "meta": names}, output)
    else:
        raise ValueError("a detector has no Hugging Face form; choose --format ours or official")
    print(f"{found.path} ({found.origin}): a detector of {classes} classes\nwritten: {output}")
    return 0


def _convert_segmenter(found: Checkpoint, options: Namespace) -> int:
    """Between ours and mmsegmentation's names, with how pictures are shown, which a configuration says there."""
    if options.in1k_head:
        raise ValueError(f"--in1k_head is for classifiers, and {found.path} is a segmenter; leave it out")
    loaded, output = load_segmenter(found), Path(options.output)
    model, viewing, classes = loaded.model, loaded.viewing, loaded.model.config.num_classes
    labels = loaded.labels if options.labels is None else _labels(Path(options.labels), classes)
    _halve(model, options)
    if options.format == "ours":
        overwrite: bool = options.overwrite
        save_segmenter(model, output, labels=labels, palette=loaded.palette, viewing=viewing, overwrite=overwrite)
    elif options.format == "official":
        contents = official_contents(model, labels, loaded.palette, viewing)
        _check_official(output, options.overwrite)
        torch.save(contents, output)
    else:
        raise ValueError("a segmenter has no Hugging Face form; choose --format ours or official")
    print(f"{found.path} ({found.origin}): a segmenter of {classes} classes\nwritten: {output}")
    return 0


def _halve(model: nn.Module, options: Namespace) -> None:
    """Weights in float16, where that was asked for; whoever loads them computes in float32 again."""
    if not options.half:
        return
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.isfinite().all() and not tensor.half().isfinite().all():
            raise ValueError(f"{name} has values beyond float16's largest, {torch.finfo(torch.half).max:g}: no --half")
    model.half()


def _check_official(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; choose another name or pass --overwrite")
    if output.suffix != ".pth":
        raise ValueError(f"official files end in .pth, got {output}")
    output.parent.mkdir(parents=True, exist_ok=True)


def write(model: InternImageClassifier, card: Card, output: Path, form: Format, overwrite: bool) -> Path:
    """Write ``model`` in the chosen form; refuses to replace files unless ``overwrite``."""
    if form == "ours":
        return save_checkpoint(model, output, labels=card.labels, preprocess=card.preprocess, overwrite=overwrite)
    official = card.config.to_official()
    if form == "official":
        _check_official(output, overwrite)
        torch.save({"model": to_official(model.state_dict())}, output)
        return output
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; choose another name or pass --overwrite")
    output.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.contiguous() for key, tensor in to_huggingface(model.state_dict()).items()}
    save_file(state, output / "model.safetensors", metadata={"format": "pt"})
    names = {} if card.labels is None else {"id2label": {str(i): name for i, name in enumerate(card.labels)}}
    values = {"model_type": "internimage", **official, **names}
    (output / "config.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return output


def _labels(path: Path, num_classes: int) -> LabelMap:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--labels {path} can't be read as text ({error}); give one class name per line") from None
    labels = LabelMap(tuple(line.strip() for line in lines if line.strip()))
    if len(labels) != num_classes:
        raise ValueError(f"--labels {path} has {len(labels)} names for a model of {num_classes} classes")
    return labels
