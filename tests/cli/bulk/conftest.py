"""Small networks of each task with random weights, and folders of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from internimage import InternImageConfig, LabelMap, Preprocess, create_model, save_checkpoint
from internimage.model.checkpoints.detector_files import save_detector
from internimage.model.checkpoints.segmenter_files import save_segmenter
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import Framing, Viewing

NAMES = LabelMap(("coat", "bag", "boot"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose answers differ from picture to picture."""
    torch.manual_seed(0)
    model = create_model("internimage_femto", num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 2 / parameter[0].numel() ** 0.5)
    file = tmp_path_factory.mktemp("weights") / "classes.safetensors"
    return save_checkpoint(model, file, labels=NAMES, preprocess=Preprocess(32))


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Which finds something everywhere."""
    torch.manual_seed(0)
    small = {"fpn_channels": 16, "head_channels": 32, "proposals_per_level": 40, "proposals": 40, "detections": 5}
    backbone = InternImageConfig(channels=8, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), num_classes=0)
    model = InternImageDetector(DetectorConfig(backbone, 3, masks=True, **small)).eval()
    for head in model.roi_heads.box_heads:
        torch.nn.init.normal_(head.cls.weight, std=1.0)
        torch.nn.init.normal_(head.reg.weight, std=0.2)
    file = tmp_path_factory.mktemp("weights") / "objects.safetensors"
    return save_detector(model, file, labels=NAMES, framing=Framing((64, 96)))


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same classes."""
    torch.manual_seed(0)
    config = SegmenterConfig.from_variant("internimage_femto", num_classes=3, head="segformer", channels=64)
    file = tmp_path_factory.mktemp("weights") / "maps.safetensors"
    return save_segmenter(InternImageSegmenter(config), file, labels=NAMES, viewing=Viewing((64, 64)))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A dozen JPEG files of different sizes and contents."""
    generator = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("pictures") / "one.jpg"
    contents: list[bytes] = []
    for number in range(12):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((40 + 3 * number, 64), Image.Resampling.BICUBIC).save(file)
        contents.append(file.read_bytes())
    return contents


@pytest.fixture
def lay_out(pictures: list[bytes]) -> Callable[[Path, int], list[Path]]:
    """Writes so many pictures into two folders of a folder, and returns their paths in order; the files are links."""

    def write(folder: Path, count: int) -> list[Path]:
        paths: list[Path] = []
        for number in range(count):
            path = folder / ("first" if number < count // 2 else "second") / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < len(pictures):
                path.write_bytes(pictures[number])
            else:
                os.link(paths[number % len(pictures)], path)
            paths.append(path)
        return paths

    return write
