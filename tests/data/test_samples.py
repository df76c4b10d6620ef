"""The shipped images: balanced, distinct, as the README says, and made by the script beside them."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from internimage.data import (
    SAMPLE_LABELS,
    SAMPLE_PREPROCESS,
    FolderDataset,
    SampleDataset,
    export_samples,
    load_sample_arrays,
    open_samples,
    read_image,
    to_tensor,
)
from internimage.data.samples.build_fashion_mnist import build, read_idx

TRANSFORM = partial(to_tensor, preprocess=SAMPLE_PREPROCESS)
COUNTS = {"train": 5000, "test": 1000}
FOLDER = resources.files("internimage.data.samples")


@pytest.mark.parametrize("split", COUNTS)
def test_balanced(split):
    images, labels = load_sample_arrays(split)
    assert (images.shape, images.dtype) == ((COUNTS[split], 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((COUNTS[split],), np.int64)
    assert np.bincount(labels).tolist() == [COUNTS[split] // 10] * 10
    assert labels[:20].tolist() == [*range(10), *range(10)]


def test_all_images_are_different():
    images = np.concatenate([load_sample_arrays(split)[0] for split in COUNTS])
    assert len({image.tobytes() for image in images}) == 6000


def test_statistics_are_those_of_the_training_images():
    values = load_sample_arrays("train")[0] / 255
    assert SAMPLE_PREPROCESS.mean == pytest.approx((values.mean(),), abs=5e-5)
    assert SAMPLE_PREPROCESS.std == pytest.approx((values.std(),), abs=5e-5)
    assert (SAMPLE_PREPROCESS.size, SAMPLE_PREPROCESS.in_chans) == (28, 1)


def test_names():
    names = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
    assert ", ".join(SAMPLE_LABELS) == names


def test_classes_look_as_they_should():
    images, labels = load_sample_arrays("train")
    width_at_top = (images[:, 4:8] > 30).mean((1, 2))
    filled = (images > 30).mean((1, 2))
    by_class = {name: labels == index for index, name in enumerate(SAMPLE_LABELS)}
    assert filled[by_class["Pullover"]].mean() > 2 * filled[by_class["Sandal"]].mean()
    assert width_at_top[by_class["Coat"]].mean() > 3 * width_at_top[by_class["Sneaker"]].mean()


def test_unknown_split():
    with pytest.raises(ValueError, match="have the splits train and test, got 'val'"):
        load_sample_arrays("val")


@pytest.mark.parametrize("split", COUNTS)
def test_dataset(split):
    dataset = SampleDataset(split, transform=TRANSFORM)
    images, labels = load_sample_arrays(split)
    assert len(dataset) == len(dataset.paths) == len(dataset.targets) == COUNTS[split]
    assert dataset.labels is SAMPLE_LABELS
    image, target = dataset[13]
    assert target == labels[13] == 3
    assert torch.equal(
        image, (torch.tensor(images[13])[None] / 255 - SAMPLE_PREPROCESS.mean[0]) / SAMPLE_PREPROCESS.std[0]
    )


def test_dataset_in_rgb():
    seen = []
    SampleDataset("test", transform=lambda image: seen.append(image.mode) or torch.zeros(1), in_chans=3)[0]
    assert seen == ["RGB"]


def test_export_is_the_dataset_in_folders(tmp_path):
    paths = export_samples(tmp_path / "new" / "set", "test", 30)
    samples = SampleDataset("test", transform=TRANSFORM)
    assert paths == [tmp_path / "new" / "set" / path for path in samples.paths[:30]]
    assert (tmp_path / "new" / "set" / "T-shirt-top" / "test_0000.png").is_file()
    assert np.array_equal(read_image(paths[7], in_chans=1), load_sample_arrays("test")[0][7])
    folders = FolderDataset(tmp_path / "new" / "set", labels=SAMPLE_LABELS, transform=TRANSFORM, in_chans=1)
    for path, (image, target) in zip(folders.paths, folders, strict=True):
        index = paths.index(path)
        assert target == samples.targets[index]
        assert torch.equal(image, samples[index][0])


def test_export_of_everything(tmp_path):
    assert len(export_samples(tmp_path, "test")) == 1000
    assert len(list(tmp_path.rglob("*.png"))) == 1000


def test_export_refuses_to_mix_with_other_files(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not empty; give the path of a new or empty folder"):
        export_samples(tmp_path, "test", 10)
    with pytest.raises(ValueError, match="file is a file; give the path of a new or empty folder"):
        export_samples(tmp_path / "file", "test", 10)


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_export_of_an_impossible_count(tmp_path, count):
    with pytest.raises(ValueError, match=f"count must be between 1 and 1000, .* got {count}"):
        export_samples(tmp_path / "new", "test", count)
    assert not (tmp_path / "new").exists()


def test_licence_and_readme_lie_beside_the_images():
    licence = FOLDER.joinpath("LICENSE-fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence
    readme = FOLDER.joinpath("README.md").read_text()
    assert all(name in readme for name in SAMPLE_LABELS)
    assert f"{SAMPLE_PREPROCESS.mean[0]:.4f} and {SAMPLE_PREPROCESS.std[0]:.4f}" in readme


def write_originals(folder: Path, seed: int = 0) -> Path:
    """Files in the format of the original ones, with enough images of each class, some of them twice."""
    generator = np.random.default_rng(seed)
    for stem, count in (("train", 5500), ("t10k", 1200)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        images[:100] = images[100:200]
        labels = np.arange(count, dtype=np.uint8) % 10
        headers = struct.pack(">4I", 0x803, *images.shape), struct.pack(">2I", 0x801, count)
        for kind, header, array in zip(("images-idx3", "labels-idx1"), headers, (images, labels), strict=True):
            (folder / f"{stem}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))
    return folder


def test_the_script_builds_the_same_bytes_every_time(tmp_path):
    write_originals(tmp_path)
    command = [sys.executable, "-m", "internimage.data.samples.build_fashion_mnist", tmp_path, tmp_path / "a.npz"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    build(tmp_path, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as arrays:
        assert {name: array.shape[0] for name, array in arrays.items()} == {
            "train_images": 5000,
            "train_labels": 5000,
            "test_images": 1000,
            "test_labels": 1000,
        }
        images = [image.tobytes() for name in ("train_images", "test_images") for image in arrays[name]]
    assert len(set(images)) == 6000


def test_the_script_refuses_other_files(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*train-images.*; the original Fashion-MNIST files are needed"):
        build(tmp_path, tmp_path / "out.npz")
    (tmp_path / "labels.gz").write_bytes(gzip.compress(struct.pack(">2I", 0x801, 5) + bytes(4)))
    with pytest.raises(ValueError, match="is not an IDX file of 1 dimensions"):
        read_idx(tmp_path / "labels.gz", 1)
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"abc"))
    with pytest.raises(ValueError, match="is too short for an IDX file"):
        read_idx(tmp_path / "short.gz", 1)


def test_the_three_splits_share_no_image_and_are_balanced() -> None:
    splits = {split: open_samples(split, transform=np.asarray) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 4500, "val": 500, "test": 1000}
    pictures = {split: {image.tobytes() for image, _ in dataset} for split, dataset in splits.items()}
    assert not pictures["train"] & pictures["val"]
    assert not pictures["train"] & pictures["test"]
    assert np.bincount([target for _, target in splits["val"]]).tolist() == [50] * 10
