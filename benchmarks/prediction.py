"""``python -m benchmarks.prediction FOLDER``: images per second of a classifier over files, by how they are read.

Pictures are decoded and prepared in between, by threads ahead of the network (as ``internimage predict --workers``
does), or by the worker processes of PyTorch's DataLoader; the network alone and the reading alone say what limits.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.report import keep, one_table
from internimage import Classifier, LabelMap, Preprocess, create_model, save_checkpoint
from internimage.data import read_image, to_tensor
from internimage.data.inputs import ImageInputs, NamedImage
from internimage.inference.reading import read_ahead

RESULTS = Path(__file__).resolve().parent / "results"
_BATCH = 32


class _Files(Dataset[Tensor]):
    """What a DataLoader reads: the same files, prepared the same way."""

    def __init__(self, images: Sequence[NamedImage], preprocess: Preprocess) -> None:
        self.images, self.preprocess = images, preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return to_tensor(read_image(self.images[index].file), self.preprocess)


def main(arguments: Sequence[str]) -> int:
    """Measure each way in turn, several rounds; print the table, write it beside others."""
    parser = ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__)
    parser.add_argument("folder", type=str, help="pictures")
    parser.add_argument("--size", type=int, default=64, help="height and width of the network's input")
    parser.add_argument("--rounds", type=int, default=3, help="of each way")
    parser.add_argument("--note", type=str, default="", help="what else the page should say")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    images = list(ImageInputs([options.folder]))
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        weights = Path(folder) / "random.safetensors"
        labels, preprocess = LabelMap.numbered(10), Preprocess(options.size)
        save_checkpoint(
            create_model("internimage_femto", num_classes=10), weights, labels=labels, preprocess=preprocess
        )
        ways = _ways(Classifier(weights, device="cpu"), images)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            # In turn: what else the machine does then hits all alike.
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    facts = describe(Settings(threads=torch.get_num_threads()), "prediction")
    facts["command"] = f"python -m benchmarks.prediction FOLDER --size {options.size} --rounds {options.rounds}"
    facts["pictures"] = f"{len(images)}, the first of {' x '.join(map(str, read_image(images[0].file).size))} pixels"
    facts["network"] = f"internimage_femto at {options.size} pixels, batches of {_BATCH}"
    facts |= {"note": options.note} if options.note else {}
    head = ("way", "images/s, median", "slowest round", "fastest round")
    page = one_table("prediction", facts, head, [_row(name, len(images), each) for name, each in seconds.items()])
    print(page)
    numbers = json.dumps({"facts": facts, "images": len(images), "seconds": seconds}, indent=1) + "\n"
    for file in keep(Path(options.output), f"{facts['date'][:10]}_prediction_cpu", numbers, page):
        print(f"wrote {file}")
    return 0


def _ways(classifier: Classifier, images: Sequence[NamedImage]) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    files = _Files(images, classifier.preprocess)
    one = files[0]

    def stream(workers: int) -> int:
        return sum(1 for _ in classifier.stream(images, batch_size=_BATCH, workers=workers))

    def read(workers: int) -> int:
        return sum(1 for _ in read_ahead(range(len(files)), files.__getitem__, workers=workers, ahead=2 * _BATCH))

    @torch.inference_mode()
    def processes(workers: int) -> None:
        for batch_NCHW in DataLoader(files, batch_size=_BATCH, num_workers=workers):
            classifier.model(batch_NCHW)

    @torch.inference_mode()
    def network() -> None:
        for start in range(0, len(images), _BATCH):
            classifier.model(one.expand(min(_BATCH, len(images) - start), -1, -1, -1))

    return {
        "network alone": network,
        "reading alone, in one thread": lambda: read(0),
        "reading alone, 2 threads": lambda: read(2),
        "in between (--workers 0)": lambda: stream(0),
        "1 thread ahead (--workers 1)": lambda: stream(1),
        "2 threads ahead (--workers 2)": lambda: stream(2),
        "4 threads ahead (--workers 4)": lambda: stream(4),
        "DataLoader, 2 processes": lambda: processes(2),
    }


def _row(name: str, images: int, seconds: Sequence[float]) -> list[str]:
    return [name, *(f"{images / each:.1f}" for each in (median(seconds), max(seconds), min(seconds)))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
