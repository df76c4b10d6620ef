"""Detectors and segmenters behind the page, with tiny ones; and how the server ends."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from internimage import Detector, Framing, InternImageConfig, LabelMap, Segmenter, Viewing
from internimage.model.checkpoints.detector_files import save_detector
from internimage.model.checkpoints.segmenter_files import save_segmenter
from internimage.model.detection import DetectorConfig, InternImageDetector
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from support.demo import running

NAMES = LabelMap(("coat", "bag", "boot"))
BACKBONE = InternImageConfig(channels=8, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), num_classes=0)


def detector(path: Path) -> Path:
    """Random weights that are sure of what they find."""
    torch.manual_seed(0)
    small = {"fpn_channels": 16, "head_channels": 32, "proposals_per_level": 20, "proposals": 20, "detections": 8}
    model = InternImageDetector(DetectorConfig(BACKBONE, 3, **small))
    for head in model.roi_heads.box_heads:
        torch.nn.init.normal_(head.cls.weight, std=2.0)
    return save_detector(model, path, labels=NAMES, framing=Framing((96, 160)))


def segmenter(path: Path) -> Path:
    torch.manual_seed(0)
    model = InternImageSegmenter(SegmenterConfig(BACKBONE, 3, "segformer", channels=16))
    return save_segmenter(model, path, labels=NAMES, viewing=Viewing(frame=(64, 128), multiple=32))


def picture_in(page: Any, selector: str) -> Image.Image:
    page.wait_for_selector(selector)
    return Image.open(io.BytesIO(page.request.get(page.get_attribute(selector, "src")).body()))


def test_a_detector_for_everybody(open_page: Callable[..., Any], photo: Path, tmp_path: Path) -> None:
    weights = detector(tmp_path / "coats.safetensors")
    with running(tmp_path / "server", "--weights", weights, "--host", "0.0.0.0") as server:
        page = open_page(server.url)
        assert "find 3 classes (coat, bag, boot), with their boxes and masks" in page.inner_text(".about")
        page.click("#cat")
        drawn = picture_in(page, "#found img")
        found = Detector(weights, device="cpu", score=0.3)(photo)
        assert page.inner_text("#verdict .verdict") == ", ".join(
            f"{count} {name}" for name, count in Counter(found.names).most_common()
        )
        assert len(found) > 0
        assert drawn.size == (2 * 451, 2 * 300)
        assert not page.is_visible("#shares")
        # A detector sees the whole picture; the longer side of its input is 96 * 451 / 300 pixels.
        page.wait_for_selector("#view img")
        assert "of the network's 144 x 96 pixels" in page.inner_text("#readout")
        status, said = server.stop(signal.SIGINT)
    assert (status, said) == (0, "stopped\n")
    assert list(server.files.parent.iterdir()) == []


@pytest.mark.slow
def test_the_picture_of_the_guide_is_made_by_its_command(browser: Any, tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "docs" / "images" / "demo_page.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "page.jpg")], check=True, timeout=200)
    made, shown = (Image.open(path) for path in (tmp_path / "page.jpg", script.with_suffix(".jpg")))
    with made, shown:
        assert made.width == shown.width == 1280
        assert abs(made.height - shown.height) < 100
    assert script.with_suffix(".jpg").stat().st_size < 250_000


def test_a_segmenter(open_page: Callable[..., Any], photo: Path, tmp_path: Path) -> None:
    weights = segmenter(tmp_path / "coats.safetensors")
    with running(tmp_path / "server", "--weights", weights) as server:
        page = open_page(server.url)
        assert "give every pixel one of 3 classes (coat, bag, boot)" in page.inner_text(".about")
        page.click("#cat")
        drawn = picture_in(page, "#found img")
        shares = Segmenter(weights, device="cpu")(photo).shares()
        words = ", ".join(f"{name} {100 * share:.0f}%" for name, share in shares.items())
        assert page.inner_text("#verdict .verdict") == words
        # The legend lies below the picture.
        assert drawn.width >= 451
        assert drawn.height > 300
        assert np.asarray(drawn).std() > 5
        page.wait_for_selector("#view img")
        assert "pixels" in page.inner_text("#readout")
        # The page is still open, and so is its connection.
        status, said = server.stop(signal.SIGTERM)
    assert (status, said) == (0, "stopped\n")
    assert list(server.files.parent.iterdir()) == []
