"""``python -m benchmarks.transfer``: what weights of another set are worth where there are few images."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from PIL import Image

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.report import keep, one_table
from internimage.cli.main import main as internimage
from internimage.data.samples.fashion_mnist import load_sample_arrays, sample_path
from internimage.inference import Classifier
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import Classification
from internimage.tasks.callbacks import read_rows

RESULTS = Path(__file__).resolve().parent / "results"
_VALIDATION = 500
_HEAD = ("training images", "begin with", "peak lr", "top-1 on 1,000 test images", "of each seed")


def main(arguments: Sequence[str]) -> int:
    """Fine-tune on shares of Fashion-MNIST from weights and from scratch, print the table, and keep it."""
    parser = ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("--weights", type=str, default=DEFAULT_WEIGHTS, help="of internimage_pico")
    parser.add_argument("--counts", type=list[int], default=[500], help="training images, of 5,000")
    parser.add_argument("--rates", type=list[float], default=[5e-4, 2e-3], help="peak learning rates to choose from")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.counts:
            root = write_set(Path(folder) / str(count), count)
            for name in (None, options.weights):
                rows.append(best_rate(root, name, options) | {"count": count, "weights": name})
                print(rows[-1], flush=True)
    facts = describe(Settings(threads=torch.get_num_threads()), "transfer")
    facts["command"] = "python -m benchmarks.transfer"
    facts["training"] = f"recipe classification/cifar10 for {options.epochs} epochs, no cutmix, batches of 25"
    facts["learning rate"] = f"of {options.rates}, the one with the best mean on {_VALIDATION} validation images"
    page = one_table("From CIFAR-10 to Fashion-MNIST", facts, _HEAD, list(_cells(rows)))
    print(page)
    numbers = json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n"
    for file in keep(Path(options.output), f"{facts['date'][:10]}_transfer_cpu", numbers, page):
        print(f"wrote {file}")
    return 0


def write_set(root: Path, count: int) -> Path:
    """``count`` images of the shipped training part, 500 others to choose the epoch by, and all test images."""
    for name, split, begin, end in (
        ("train", "train", 0, count),
        ("val", "train", 5000 - _VALIDATION, 5000),
        ("test", "test", 0, 1000),
    ):
        images, labels = load_sample_arrays(split)
        for index in range(begin, end):
            path = root / name / sample_path(split, index, int(labels[index]))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(path)
    return root


def best_rate(root: Path, weights: str | None, options: Any) -> dict[str, Any]:
    """The test accuracies of all seeds, at the rate that is best on the validation images."""
    tried = {
        rate: [train(root, weights, rate, seed, options.epochs) for seed in range(options.seeds)]
        for rate in options.rates
    }
    rate = max(tried, key=lambda rate: statistics.mean(val for val, _ in tried[rate]))
    return {"rate": rate, "test": [test for _, test in tried[rate]], "tried": tried}


def train(root: Path, weights: str | None, rate: float, seed: int, epochs: int) -> tuple[float, float]:
    """One training through the program; the best epoch's accuracy on the validation and on the test images."""
    run = root / f"{'scratch' if weights is None else 'weights'}_{rate}_{seed}"
    model, data = "--model.init_args", "--data.init_args"
    status = internimage(
        [
            *("fit", "--config", "classification/cifar10", "--run", str(run), "--seed_everything", str(seed)),
            *(f"{data}.root", str(root), f"{data}.batch_size", "25", f"{data}.num_workers", "0"),
            *(f"{data}.augmentation.cutmix", "0", "--trainer.max_epochs", str(epochs), "--trainer.logger", "false"),
            *(f"{model}.pretrained", "false" if weights is None else weights, f"{model}.optimizer.lr", str(rate)),
            # Of few steps, an average would lag behind.
            *("--ema", "null"),
        ]
    )
    if status:
        raise RuntimeError(f"the training in {run} ended with status {status}")
    best = max(row["val/accuracy"] for row in read_rows(run / "metrics.csv"))
    return best, accuracy(run / "model.safetensors", root / "test")


def accuracy(weights: Path, folder: Path) -> float:
    """Share of the images in class folders that a classifier names rightly."""
    classifier, paths = Classifier(weights, device="cpu"), sorted(folder.rglob("*.png"))
    found = [result for result in classifier.stream(paths) if isinstance(result, Classification)]
    right = [result.label == path.parent.name for result, path in zip(found, paths, strict=True)]
    return sum(right) / len(paths)


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        mean, each = statistics.mean(row["test"]), ", ".join(f"{100 * value:.1f}" for value in row["test"])
        begin = "nothing" if row["weights"] is None else Path(row["weights"]).name
        yield [f"{row['count']:,}", begin, f"{row['rate']:g}", f"{100 * mean:.1f}%", each]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
