"""``python -m benchmarks.large_image``: a very large picture through a small segmenter's windows, its time and memory.

The picture is scenes of the shipped images side by side, in a PNG file; the weights are random, since neither time nor
memory depends on them. Every size runs in a process of its own, as ``Segmenter(..., own_size=True)`` does.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from PIL import Image

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.memory import process_peak_mib
from benchmarks.report import keep, one_table
from internimage import Segmenter
from internimage.data.scenes import Scenes
from internimage.model.checkpoints.segmenter_files import save_segmenter
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import LabelMap, Viewing

RESULTS = Path(__file__).resolve().parent / "results"
_TILE, _TILES = 256, 8
_HEAD = ("picture", "pixels in MiB", "seconds", "before, MiB", "peak, MiB", "added, MiB")


def main(arguments: Sequence[str]) -> int:
    """Measure a quarter of the height and all of it, so that growth shows; print the table, write it beside others."""
    parser = ArgumentParser(prog="python -m benchmarks.large_image", description=__doc__)
    parser.add_argument("--side", type=int, default=8192, help="height and width in pixels")
    parser.add_argument("--window", type=int, default=512, help="height and width of the windows")
    parser.add_argument("--classes", type=int, default=19, help="outputs of the network")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        _write_weights(weights, options.classes)
        for height in (options.side // 4, options.side):
            file = Path(folder) / f"{height}.png"
            picture(height, options.side).save(file, compress_level=1)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (weights, file, options.window)))
    facts = describe(Settings(threads=torch.get_num_threads()), "large_image")
    facts["command"] = f"python -m benchmarks.large_image --side {options.side} --window {options.window}"
    facts["command"] += f" --classes {options.classes}"
    facts["network"] = f"femto with SegFormer's head, {options.classes} classes, windows of {options.window} pixels"
    page = as_markdown(facts, rows)
    print(page)
    numbers = json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n"
    for file in keep(Path(options.output), f"{facts['date'][:10]}_large_image_cpu", numbers, page):
        print(f"wrote {file}")
    return 0


def picture(height: int, width: int) -> Image.Image:
    """Scenes side by side, RGB."""
    tiles = Scenes("val", _TILES, size=(_TILE, _TILE))
    row = np.concatenate([np.asarray(tiles.read(index).image) for index in range(_TILES)], 1)
    repeats = (-(-height // _TILE), -(-width // row.shape[1]), 1)
    return Image.fromarray(np.tile(row, repeats)[:height, :width])


def measure(weights: Path, file: Path, window: int) -> dict[str, Any]:
    """From the file to the label map: seconds, and the process's peak in MiB before and after."""
    segmenter = Segmenter(weights, device="cpu", own_size=True, window=(window, window))
    before, start = process_peak_mib(), time.perf_counter()
    labels_HW = segmenter(file).labels
    seconds = time.perf_counter() - start
    height, width = labels_HW.shape
    return {
        "picture": f"{height} x {width}",
        "pixels_mib": 3 * height * width / 2**20,
        "seconds": seconds,
        "before_mib": before,
        "peak_mib": process_peak_mib(),
    }


def as_markdown(facts: dict[str, str], rows: Sequence[dict[str, Any]]) -> str:
    """A page: the facts, then the table."""
    cells: list[list[str]] = []
    for row in rows:
        numbers = (row["pixels_mib"], row["seconds"], row["before_mib"], row["peak_mib"])
        cells.append([row["picture"], *(f"{each:.0f}" for each in (*numbers, row["peak_mib"] - row["before_mib"]))])
    return one_table("large image", facts, _HEAD, cells)


def _write_weights(path: Path, classes: int) -> None:
    torch.manual_seed(0)
    config = SegmenterConfig.from_variant("internimage_femto", num_classes=classes, head="segformer", channels=64)
    save_segmenter(InternImageSegmenter(config), path, labels=LabelMap.numbered(classes), viewing=Viewing(frame=None))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
