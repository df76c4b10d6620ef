"""``internimage visualize robustness FOLDER``: what changes of pictures do to a network's accuracy, beside peers."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from internimage.cli.tables import table
from internimage.data import FolderDataset, open_split, to_tensor
from internimage.data.class_folders import SPLIT_FOLDERS, find_split
from internimage.data.class_names import imagenet_labels
from internimage.data.shards import find_shards
from internimage.inference import Classifier
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import LabelMap, Preprocess, Robustness

_TIMM = "timm:"
_STEM = "robustness"


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage visualize robustness",
        description="Accuracy as pictures are shifted, turned, blurred, made noisy, ...: a table and a plot.",
    )
    found.add_argument("folder", type=str, help="pictures in class folders or shards; of splits, the test pictures")
    weights = "a file, a run's folder, a weight name or a hub id; by default the package's own"
    found.add_argument("--weights", type=str, default=DEFAULT_WEIGHTS, help=weights)
    peers = "to measure beside it: timm:NAME, or other weights of ours"
    found.add_argument("--peer", type=str, nargs="+", default=[], help=peers)
    file = "of the timm peer, in place of the hub's: a .safetensors file; it then sees pictures prepared as ours"
    found.add_argument("--peer_weights", type=str | None, default=None, help=file)
    options = "of the timm peer with --peer_weights, as JSON: '{\"depths\": [2, 2, 4, 2]}'"
    found.add_argument("--peer_options", type=str, default="{}", help=options)
    found.add_argument("--images", type=int | None, default=None, help="show this many, spread over the classes")
    found.add_argument("--changes", type=str, nargs="+", default=None, help="some of the changes; by default all")
    found.add_argument("--batch_size", type=int, default=64, help="pictures shown together")
    found.add_argument("--output", type=str, default=_STEM, help="folder for table, numbers and plot")
    found.add_argument("--overwrite", action="store_true", help="replace files that are there")
    found.add_argument("--device", type=str | None, default=None, help="such as cpu or cuda; the fastest by default")
    return found


def run(options: Namespace) -> int:
    """Measure, print the table, write it and the plot; returns the exit status."""
    from internimage.data.corruptions import CORRUPTIONS
    from internimage.inference.robustness import classify_with, evenly, measure_robustness
    from internimage.visualization.robustness import robustness_figure, robustness_table

    files = _files(Path(options.output), options.overwrite)
    if unknown := sorted(set(options.changes or ()) - set(CORRUPTIONS)):
        raise ValueError(f"unknown changes {', '.join(unknown)}; there are {', '.join(CORRUPTIONS)}")
    if options.peer_weights is not None and sum(peer.startswith(_TIMM) for peer in options.peer) != 1:
        raise ValueError("--peer_weights are those of one timm network; name it: --peer timm:NAME")
    if options.images is not None and options.images < 1:
        raise ValueError(f"--images must be at least 1, got {options.images}")
    ours = Classifier(options.weights, device=options.device)
    dataset = _open(options.folder, ours.preprocess)
    classifiers = {str(options.weights): classify_with(ours, dataset.labels)}
    for peer in options.peer:
        if peer.startswith(_TIMM):
            classifiers[peer] = _timm(peer.removeprefix(_TIMM), options, ours, dataset.labels)
        else:
            other = Classifier(peer, device=options.device)
            if other.preprocess.in_chans != ours.preprocess.in_chans:
                raise ValueError(
                    f"{options.weights} and {peer} differ in their channels: one of them sees grey pictures"
                )
            classifiers[peer] = classify_with(other, dataset.labels)
    targets = getattr(dataset, "targets", None)
    chosen = evenly(targets or [dataset.target(index) for index in range(len(dataset))], options.images)
    results = measure_robustness(
        classifiers,
        (dataset[index] for index in chosen),
        corruptions=[CORRUPTIONS[name] for name in options.changes or CORRUPTIONS],
        batch_size=options.batch_size,
        progress=partial(_progress, total=len(chosen)),
    )
    found = robustness_table(results)
    print("\n".join(table(found.header, [[str(cell) for cell in row] for row in found.rows])))
    texts = (_markdown(found.header, found.rows, found.caption), _csv(results), _json(results))
    for file, text in zip(files, texts, strict=False):
        file.write_text(text, encoding="utf-8")
    robustness_figure(results).savefig(files[-1], dpi=150, facecolor="white")
    print("\n".join(map(str, files)))
    return 0


def _files(output: Path, overwrite: bool) -> list[Path]:
    """The files to write; makes their folder."""
    files = [output / f"{_STEM}.{suffix}" for suffix in ("md", "csv", "json", "png")]
    there = [file.name for file in files if file.exists()]
    if there and not overwrite:
        raise ValueError(f"{output} holds {', '.join(there)} already; choose another --output or pass --overwrite")
    output.mkdir(parents=True, exist_ok=True)
    return files


def _open(root: str, preprocess: Preprocess) -> Any:
    """The pictures as the network's preprocessing crops them, in [0, 1], and their classes."""
    channels = preprocess.in_chans
    plain = Preprocess(
        preprocess.size, preprocess.crop_ratio, preprocess.interpolation, (0.0,) * channels, (1.0,) * channels
    )
    how: dict[str, Any] = {"transform": partial(to_tensor, preprocess=plain), "in_chans": channels}
    if (shards := find_shards(root)) is not None:
        return shards.open("test", **how)
    if any(find_split(Path(root), split) for split in SPLIT_FOLDERS):
        return open_split(root, "test", **how)
    return FolderDataset(root, **how)


def _timm(name: str, options: Namespace, ours: Classifier, labels: LabelMap) -> Callable[[Tensor], Tensor]:
    """A network of timm's as `measure_robustness` asks it."""
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise ImportError(f"{_TIMM}{name} needs timm: pip install 'internimage-torch[timm]'") from error
    file = options.peer_weights
    settings = {"num_classes": len(labels), **_settings(options.peer_options)} if file is not None else {}
    if file is None and options.peer_options != "{}":
        raise ValueError("--peer_options goes with --peer_weights: other networks have no weights on the hub")
    if file is not None and Path(file).suffix != ".safetensors":
        raise ValueError(f"--peer_weights must be a .safetensors file, which runs no code; got {file}")
    try:
        network: Any = timm.create_model(name, pretrained=file is None, **settings)
        if file is not None:
            network.load_state_dict(load_file(file))
    except (RuntimeError, TypeError, SafetensorError) as error:
        raise ValueError(f"timm can't build {name}: {str(error).splitlines()[0]}") from None
    network.eval().to(ours.device)
    order = _order(network.num_classes, labels, f"{_TIMM}{name}")
    config = resolve_model_data_config(network)
    mean, std = (ours.preprocess.mean, ours.preprocess.std) if file is not None else (config["mean"], config["std"])
    size = None if file is not None else tuple(config["input_size"][-2:])
    mean_C11, std_C11 = (torch.tensor(each, device=ours.device).view(-1, 1, 1) for each in (mean, std))

    def classify(picture_NCHW: Tensor) -> Tensor:
        picture_NCHW = picture_NCHW.to(ours.device)
        if size is not None and picture_NCHW.shape[-2:] != size:
            picture_NCHW = F.interpolate(picture_NCHW, size, mode="bicubic", antialias=True).clamp(0, 1)
        with torch.inference_mode():
            scores_NK = network((picture_NCHW - mean_C11) / std_C11)
        return scores_NK[:, order].argmax(1).cpu()

    side = ours.preprocess.size
    try:
        classify(torch.zeros(1, ours.preprocess.in_chans, side, side))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{_TIMM}{name} can't take pictures of {side} x {side} pixels ({reason})") from None
    return classify


def _settings(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--peer_options is no JSON ({error}); give it as '{{\"depths\": [2, 2, 4, 2]}}'") from None
    if not isinstance(found, dict):
        raise ValueError(f"--peer_options must be a JSON object, got {text}")
    return found


def _order(num_classes: int, labels: LabelMap, name: str) -> Tensor:
    """Which of a network's outputs stands for each class of the pictures."""
    if num_classes == len(labels):
        return torch.arange(num_classes)
    known = imagenet_labels(num_classes)
    if known is None:
        raise ValueError(f"{name} has {num_classes} classes without names, the pictures have {len(labels)}")
    return torch.tensor([known.index(label) for label in labels])


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} pictures", end=end, file=sys.stderr, flush=True)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> str:
    lines = [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    return "\n".join([caption, "", *lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"


def _csv(results: Sequence[Robustness]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("network", "change", "severity", "accuracy", "same_class"))
    for each in results:
        writer.writerow((each.name, "", 0, each.clean, 1.0))
        for change, values in each.accuracy.items():
            for severity, pair in enumerate(zip(values, each.consistency[change], strict=True), 1):
                writer.writerow((each.name, change, severity, *pair))
    return text.getvalue()


def _json(results: Sequence[Robustness]) -> str:
    return json.dumps([each.to_dict() for each in results], indent=1) + "\n"
