"""A balanced part of Fashion-MNIST: 5,000 images to train on and 1,000 to test with, grey, 28 x 28 pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.structures import LabelMap, Preprocess

SampleSplit = Literal["train", "test"]

SAMPLE_LABELS = LabelMap(
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
)
# Mean and standard deviation were measured on the 5,000 training images, pixels in [0, 1].
SAMPLE_PREPROCESS = Preprocess(size=28, mean=(0.2860,), std=(0.3540,))


def load_sample_arrays(split: SampleSplit) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 28, 28) in uint8, white on black, and class indices (N,) in the order of `SAMPLE_LABELS`.

    The ten classes take turns, so that every run of ten images holds each class once.

    >>> images, labels = load_sample_arrays("test")
    >>> images.shape, labels[:4].tolist()
    ((1000, 28, 28), [0, 1, 2, 3])
    """
    if split not in get_args(SampleSplit):
        raise ValueError(f"the sample images have the splits train and test, got {split!r}")
    content = resources.files("internimage.data.samples").joinpath("fashion_mnist.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int64)


def folder_name(label: str) -> str:
    """``label`` as the name of a class folder, with a dash for what file systems do not allow.

    >>> folder_name("T-shirt/top")
    'T-shirt-top'
    """
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", label)


def sample_path(split: SampleSplit, index: int, label: int) -> Path:
    """Where `export_samples` puts an image, relative to its folder: ``Bag/test_0008.png``."""
    return Path(folder_name(SAMPLE_LABELS[label]), f"{split}_{index:04d}.png")


def check_export(directory: Path, counts: Mapping[SampleSplit, int]) -> None:
    """Raise ``ValueError`` unless ``directory`` is new or empty and there are so many images in each split."""
    for split, count in counts.items():
        total = len(load_sample_arrays(split)[1])
        if not 1 <= count <= total:
            raise ValueError(f"count must be between 1 and {total}, the number of {split} images, got {count}")
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give the path of a new or empty folder")
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty; give the path of a new or empty folder")


def export_samples(directory: Path, split: SampleSplit, count: int | None = None) -> list[Path]:
    """Write the first ``count`` images (all by default) as PNG files, one folder per class, and return their paths.

    Raises:
        ValueError: ``directory`` exists and is not an empty folder, or ``count`` is not between 1 and the number of
            images.
    """
    images, labels = load_sample_arrays(split)
    count = len(images) if count is None else count
    directory = Path(directory)
    check_export(directory, {split: count})
    paths = [directory / sample_path(split, index, int(labels[index])) for index in range(count)]
    for path, image in zip(paths, images, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return paths
