"""``python -m benchmarks.robustness``: the shipped weights and a ConvNeXt trained alike, on changed pictures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.peer import load_peer
from benchmarks.report import keep, one_table
from internimage.data import FolderDataset, to_tensor
from internimage.data.corruptions import CORRUPTIONS
from internimage.inference import Classifier
from internimage.inference.robustness import classify_with, evenly, measure_robustness
from internimage.structures import Preprocess
from internimage.visualization.robustness import robustness_figure, robustness_table

RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and keep it with the numbers and the plot."""
    parser = ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("--root", type=str, required=True, help="CIFAR-10: train, val and test, a folder per class")
    parser.add_argument("--peer", type=str, required=True, help="the run of benchmarks.peer")
    parser.add_argument("--images", type=int, default=10000, help="test images, as many of each class")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    ours = Classifier(device="cpu")
    peer, trained = load_peer(Path(options.peer))
    size, channels = ours.preprocess.size, ours.preprocess.in_chans
    plain = Preprocess(size, mean=(0.0,) * channels, std=(1.0,) * channels)
    pictures = FolderDataset(
        Path(options.root) / "test", labels=ours.labels, transform=partial(to_tensor, preprocess=plain)
    )
    chosen = evenly(pictures.targets, options.images)
    facts = describe(Settings(threads=torch.get_num_threads()), "robustness")
    started = time.monotonic()
    results = measure_robustness(
        {"InternImage-pico": classify_with(ours, ours.labels), "ConvNeXt": _classify(peer, ours.preprocess)},
        (pictures[index] for index in chosen),
        progress=lambda done: print(f"{done} of {len(chosen)}", file=sys.stderr),
    )
    facts["command"] = f"python -m benchmarks.robustness --root CIFAR10 --peer RUN --images {options.images}"
    facts["measuring took"] = f"{time.monotonic() - started:.0f} s"
    facts["pictures"] = f"{len(chosen):,} of CIFAR-10's test pictures, as many of each class"
    facts["InternImage-pico"] = f"the weights that ship with the package, {_size(ours.model)}"
    facts["ConvNeXt"] = f"timm's blocks by python -m benchmarks.peer, {_size(peer)}; {trained}"
    facts["same class"] = "share of the pictures that are named, rightly or not, as without the change"
    table = robustness_table(results)
    page = one_table("Robustness", facts, table.header, [[str(cell) for cell in row] for row in table.rows])
    page += "\nEach number is the mean over five severities:\n\n" + "\n".join(_severities()) + "\n"
    numbers = json.dumps({"facts": facts, "results": [each.to_dict() for each in results]}, indent=1) + "\n"
    print(page)
    files = keep(Path(options.output), f"{facts['date'][:10]}_robustness_cifar10", numbers, page)
    files.append(files[0].with_suffix(".png"))
    robustness_figure(results).savefig(files[-1], dpi=110, facecolor="white")
    for file in files:
        print(f"wrote {file}")
    return 0


def _classify(network: nn.Module, preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    mean_C11, std_C11 = (torch.tensor(each).view(-1, 1, 1) for each in (preprocess.mean, preprocess.std))

    def classify(picture_NCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            return network((picture_NCHW - mean_C11) / std_C11).argmax(1)

    return classify


def _size(network: nn.Module) -> str:
    return f"{sum(each.numel() for each in network.parameters()) / 1e6:.2f}M parameters"


def _severities() -> list[str]:
    lines = ["| change | unit | 1 | 2 | 3 | 4 | 5 |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, each in CORRUPTIONS.items():
        lines.append(f"| {name} | {each.unit} | {' | '.join(f'{value:.4g}' for value in each.strengths)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
