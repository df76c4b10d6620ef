"""Make ``fashion_mnist.npz`` from the original Fashion-MNIST files.

Run ``python -m internimage.data.samples.build_fashion_mnist SOURCE_DIR OUTPUT``, where ``SOURCE_DIR`` holds the four
``*-ubyte.gz`` files of the original release. The same files always give the same arrays.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_CLASSES = 10
SEED = 0
IMAGES_PER_CLASS = {"train": 500, "test": 100}
ORIGINAL_STEM = {"train": "train", "test": "t10k"}
# The magic numbers of the IDX format: unsigned bytes in 3 dimensions (images) and in 1 (labels).
IDX_MAGIC = {3: 0x00000803, 1: 0x00000801}


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The uint8 array of a gzipped IDX file with ``ndim`` dimensions; raises ``ValueError`` for any other file."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}; the original Fashion-MNIST files are needed") from error
    if len(content) < 4 * (1 + ndim):
        raise ValueError(f"{path} is too short for an IDX file; the original Fashion-MNIST files are needed")
    magic, *shape = struct.unpack_from(f">{1 + ndim}I", content)
    values = np.frombuffer(content, np.uint8, offset=4 * (1 + ndim))
    if magic != IDX_MAGIC[ndim] or values.size != np.prod(shape):
        raise ValueError(f"{path} is not an IDX file of {ndim} dimensions; the original Fashion-MNIST files are needed")
    return values.reshape(shape)


def select(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], per_class: int, taken: set[bytes]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``per_class`` images of every class, classes taking turns, none equal to another or to one in ``taken``.

    ``taken`` holds the SHA-256 digests of images that are already used, and receives those of the chosen ones.
    """
    # RandomState and not a Generator: its stream is frozen, so every numpy draws the same images.
    order = np.random.RandomState(SEED).permutation(len(images))
    chosen: list[list[int]] = [[] for _ in range(NUM_CLASSES)]
    for index in order:
        of_class = chosen[labels[index]]
        digest = hashlib.sha256(images[index].tobytes()).digest()
        if len(of_class) < per_class and digest not in taken:
            taken.add(digest)
            of_class.append(int(index))
    if short := [label for label, of_class in enumerate(chosen) if len(of_class) < per_class]:
        raise ValueError(f"classes {short} have fewer than {per_class} different images")
    turns = np.array(chosen).T.ravel()
    return images[turns], labels[turns]


def write_npz(arrays: dict[str, NDArray[np.uint8]], output: Path) -> None:
    """Write a compressed npz whose bytes depend on the arrays alone: no times, no file modes."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            # Entries opened by name carry the fixed date 1980-01-01.
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def build(source: Path, output: Path) -> None:
    """Select the sample images from the original files in ``source`` and write them to ``output``."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    taken: set[bytes] = set()
    for split, per_class in IMAGES_PER_CLASS.items():
        stem = ORIGINAL_STEM[split]
        images = read_idx(source / f"{stem}-images-idx3-ubyte.gz", ndim=3)
        labels = read_idx(source / f"{stem}-labels-idx1-ubyte.gz", ndim=1)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = select(images, labels, per_class, taken)
    write_npz(arrays, output)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m internimage.data.samples.build_fashion_mnist SOURCE_DIR OUTPUT")
    build(Path(sys.argv[1]), Path(sys.argv[2]))
