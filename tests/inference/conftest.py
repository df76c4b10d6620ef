"""One small network, saved in every form that a classifier can start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from internimage import LabelMap, Preprocess, create_model, save_checkpoint

LABELS = LabelMap(("ant", "bee", "cow", "dog", "elk"))
PREPROCESS = Preprocess(size=40, crop_ratio=0.8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def labels() -> LabelMap:
    return LABELS


@pytest.fixture
def preprocess() -> Preprocess:
    return PREPROCESS


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """Five classes, weights large enough that images differ in their answers."""
    torch.manual_seed(3)
    model = create_model("internimage_femto", num_classes=5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 2 / parameter[0].numel() ** 0.5)
        # Centred, or one class would win everywhere.
        smooth = torch.nn.functional.interpolate(torch.randn(64, 3, 5, 5), 40, mode="bicubic")
        model.head.fc.weight.mul_(3)
        model.eval().head.fc.bias.copy_(-model(smooth).mean(0))
    return model


@pytest.fixture(scope="session")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own format, with names and preprocessing."""
    path = tmp_path_factory.mktemp("weights") / "animals.safetensors"
    return save_checkpoint(network, path, labels=LABELS, preprocess=PREPROCESS)


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """Seven pictures of different sizes and contents."""
    generator = np.random.default_rng(5)
    coarse = [generator.integers(0, 256, (4 + n, 5, 3), dtype=np.uint8) for n in range(7)]
    sizes = [(60 + 9 * n, 50 + 5 * n) for n in range(7)]
    return [
        np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        for picture, size in zip(coarse, sizes, strict=True)
    ]


@pytest.fixture(scope="session")
def folder(pictures: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same pictures as PNG files."""
    root = tmp_path_factory.mktemp("some pictures")
    paths = [root / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths
