"""A very large picture through a small segmenter's windows: time, and the most memory that the process ever held.

    python -m benchmarks.large_image --side 8192 --window 512

The picture is scenes of the shipped images side by side; the weights are random, since neither time nor memory depends
on them. Every size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import numpy as np
import torch
from PIL import Image

from benchmarks.memory import process_peak_mib
from internimage.data.scenes import Scenes
from internimage.inference.scanning import Look, label_map
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import Viewing

_TILE = 256


def picture(height: int, width: int) -> Image.Image:
    """Scenes side by side, RGB."""
    tiles = Scenes("val", 8, size=(_TILE, _TILE))
    row = np.concatenate([np.asarray(tiles.read(index).image) for index in range(8)], 1)
    repeats = (-(-height // _TILE), -(-width // row.shape[1]), 1)
    return Image.fromarray(np.tile(row, repeats)[:height, :width])


def measure(height: int, width: int, window: int, classes: int) -> tuple[float, float, float]:
    """Seconds, and the process's peak in MiB before and after."""
    torch.manual_seed(0)
    config = SegmenterConfig.from_variant("internimage_femto", num_classes=classes, head="segformer", channels=64)
    network = InternImageSegmenter(config).eval()
    pixels_CHW = torch.from_numpy(np.array(picture(height, width))).permute(2, 0, 1).contiguous()
    before, start = process_peak_mib(), time.perf_counter()
    with torch.inference_mode():
        labels_HW = label_map(
            network, [Look(pixels_CHW, Viewing(frame=None, window=(window, window)))], (height, width)
        )
    assert labels_HW.shape == (height, width)
    return time.perf_counter() - start, before, process_peak_mib()


def main() -> None:
    """Print a row per size: a quarter of the height first, so that growth shows."""
    parser = argparse.ArgumentParser(description="Memory and time of a segmenter on a very large picture.")
    parser.add_argument("--side", type=int, default=8192, help="height and width in pixels")
    parser.add_argument("--window", type=int, default=512, help="height and width of the windows")
    parser.add_argument("--classes", type=int, default=19, help="outputs of the network")
    options = parser.parse_args()
    print("| picture | windows | classes | seconds | peak before, MiB | peak, MiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for height in (options.side // 4, options.side):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = (height, options.side, options.window, options.classes)
            seconds, before, after = pool.apply(measure, arguments)
        size = f"{height} x {options.side}"
        print(
            f"| {size} | {options.window} | {options.classes} | {seconds:.0f} | {before:.0f} | {after:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
