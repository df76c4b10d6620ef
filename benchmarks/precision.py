"""``python -m benchmarks.precision WEIGHTS --root FOLDER``: what other runtimes and fewer bits cost on real images."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.comparison import Settings, relative_rms
from benchmarks.machine import describe
from benchmarks.report import keep, one_table
from internimage.data import open_samples, open_split, to_tensor
from internimage.export import export_onnx, export_openvino
from internimage.export.openvino import shared_core
from internimage.inference.loading import load_classifier
from internimage.model import Card

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "internimage, float32"
_CALIBRATION, _BATCH = 300, 100
_HEAD = ("", "top-1 accuracy", "change in points", "same class as float32", "relative RMS of the logits", "file in MB")

Run = Callable[[Tensor], Tensor]


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write it beside the other results."""
    parser = ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("weights", type=str, help="a classifier's weights: file, run folder or name")
    parser.add_argument("--root", type=str, default="sample", help="images in class folders, or the shipped samples")
    parser.add_argument("--limit", type=int, default=0, help="evaluate on so many images only; 0 for all")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    model, card = load_classifier(options.weights)
    tests = open_images(options.root, "test", card)
    if options.limit:
        # Files of one class lie together.
        tests = Subset(tests, np.linspace(0, len(cast(Any, tests)) - 1, options.limit).astype(int).tolist())
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(model, tests, calibration_images(options.root, card), Path(folder))
    facts = describe(Settings(threads=torch.get_num_threads()), "precision")
    # Where weights and images lie on this machine says nothing.
    root = options.root if options.root == "sample" else Path(options.root).name
    facts["command"] = f"python -m benchmarks.precision {Path(options.weights).name} --root {root}"
    facts["network"] = f"{sum(each.numel() for each in model.parameters()) / 1e6:.2f} M parameters"
    facts["images"] = f"{rows[0]['images']} to test, {_CALIBRATION} of the training split to calibrate int8"
    page = as_markdown(facts, rows)
    print(page)
    numbers = json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n"
    for file in keep(Path(options.output), f"{facts['date'][:10]}_precision_cpu", numbers, page):
        print(f"wrote {file}")
    return 0


def open_images(root: str, split: Any, card: Card) -> Dataset[tuple[Tensor, int]]:
    """As the network takes them."""
    assert card.preprocess is not None
    transform, in_chans = partial(to_tensor, preprocess=card.preprocess), card.preprocess.in_chans
    if root == "sample":
        return open_samples(split, transform=transform, in_chans=in_chans)
    return open_split(root, split, transform=transform, labels=card.labels, in_chans=in_chans)


def calibration_images(root: str, card: Card) -> list[Tensor]:
    """300 images of the training split, evenly from all."""
    dataset = open_images(root, "train", card)
    places = np.linspace(0, len(cast(Any, dataset)) - 1, _CALIBRATION).astype(int)
    return [dataset[int(place)][0][None] for place in places]


def measure(
    model: nn.Module, tests: Dataset[tuple[Tensor, int]], calibration: list[Tensor], folder: Path
) -> list[dict[str, Any]]:
    """A row for ours, then one for each runtime and precision: accuracy, agreement, error and size."""
    labels = torch.tensor([])
    expected = torch.tensor([])
    rows: list[dict[str, Any]] = []
    for name, run, size in runtimes(model, calibration, folder):
        batches = [(run(images), targets) for images, targets in DataLoader(tests, _BATCH)]
        logits = torch.cat([scores.float() for scores, _ in batches])
        if not rows:
            expected, labels = logits, torch.cat([targets for _, targets in batches])
        rows.append(
            {
                "name": name,
                "images": len(labels),
                "accuracy": float((logits.argmax(1) == labels).float().mean()),
                "same_class": float((logits.argmax(1) == expected.argmax(1)).float().mean()),
                "relative_rms": relative_rms(logits, expected),
                "megabytes": size,
            }
        )
    return rows


def runtimes(model: nn.Module, calibration: list[Tensor], folder: Path) -> Iterator[tuple[str, Run, float | None]]:
    """(name, images (N, C, H, W) to logits, size of the file), ours first."""
    yield OURS, torch.inference_mode()(model), None
    for half in (False, True):
        path = export_onnx(model, folder / f"half_{half}.onnx", half=half)
        yield f"onnxruntime, {'float16' if half else 'float32'}", _onnxruntime(path, half), _megabytes(path)
    plain = export_openvino(model, folder / "plain.xml")
    half_weights = export_openvino(model, folder / "half.xml", half=True)
    int8 = export_openvino(model, folder / "int8.xml", calibration=calibration)
    for name, path, hint in (
        ("OpenVINO, float32", plain, "f32"),
        ("OpenVINO, bfloat16", plain, "bf16"),
        ("OpenVINO, weights in float16", half_weights, "f32"),
        ("OpenVINO, int8", int8, "f32"),
    ):
        yield name, _openvino(path, hint), _megabytes(path.with_suffix(".bin"))


def as_markdown(facts: dict[str, str], rows: Sequence[dict[str, Any]]) -> str:
    """A page: the facts, then the table."""
    table: list[list[str]] = []
    for row in rows:
        change = 100 * (row["accuracy"] - rows[0]["accuracy"])
        cells = [row["name"], f"{100 * row['accuracy']:.2f}%"]
        if row is rows[0]:
            cells += ["", "", "", ""]
        else:
            cells += [f"{change:+.2f}", f"{100 * row['same_class']:.2f}%", f"{row['relative_rms']:.1e}"]
            cells.append(f"{row['megabytes']:.1f}")
        table.append(cells)
    return one_table("precision", facts, _HEAD, table)


def _onnxruntime(path: Path, half: bool) -> Run:
    import onnxruntime

    session = cast(Any, onnxruntime).InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dtype = torch.float16 if half else torch.float32
    return lambda images: torch.from_numpy(session.run(None, {"image": images.to(dtype).numpy()})[0])


def _openvino(path: Path, hint: str) -> Run:
    compiled = shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda images: torch.from_numpy(compiled(images.numpy())["logits"].copy())


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
