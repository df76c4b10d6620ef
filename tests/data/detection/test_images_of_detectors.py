"""Pictures as the released detectors took them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from internimage.data.detection.images import fitted_size, pad_batch, prepare, resize_bilinear
from internimage.structures import Framing, Placement


@pytest.mark.shared
def test_bit_for_bit_as_opencv(golden: Path) -> None:
    """One picture becomes larger, one smaller."""
    with safe_open(golden / "detection/mask_rcnn.safetensors", framework="pt") as file:
        metas = json.loads(file.metadata()["img_metas"])
        raw = [file.get_tensor(f"raw_bgr_uint8.{number}").numpy() for number in range(2)]
        expected = file.get_tensor("input")
    prepared = [prepare(Image.fromarray(each[..., ::-1].copy()), Framing((152, 224))) for each in raw]
    torch.testing.assert_close(pad_batch([image for image, _ in prepared]), expected, rtol=0, atol=1e-6)
    for (_, placement), meta in zip(prepared, metas, strict=True):
        assert (*placement.size, 3) == tuple(meta["img_shape"])
        assert (*placement.original_size, 3) == tuple(meta["ori_shape"])
        assert placement.scale_xy == pytest.approx(meta["scale_factor"][:2], rel=1e-7)


def test_sizes_by_hand() -> None:
    assert fitted_size((427, 640)) == (800, 1199)
    assert fitted_size((640, 427)) == (1199, 800)
    assert fitted_size((100, 1000)) == (133, 1333)
    assert fitted_size((1, 5000)) == (1, 1333)


def test_pixels_by_hand() -> None:
    """0 and 200 side by side, twice as wide: a quarter and three quarters between the centres."""
    pixels = np.array([[[0], [200]]], np.uint8)
    assert resize_bilinear(pixels, 1, 4)[0, :, 0].tolist() == [0, 50, 150, 200]
    assert resize_bilinear(pixels.transpose(1, 0, 2), 4, 1)[:, 0, 0].tolist() == [0, 50, 150, 200]
    constant = np.full((7, 5, 3), 255, np.uint8)
    assert (resize_bilinear(constant, 20, 3) == 255).all()


def test_padding_and_placement() -> None:
    batch = pad_batch([torch.ones(3, 33, 64), torch.ones(3, 20, 65)])
    assert batch.shape == (2, 3, 64, 96)
    assert batch.sum((1, 2, 3)).tolist() == [3 * 33 * 64, 3 * 20 * 65]
    assert Placement.fit((10, 20), (25, 40)) == Placement((25, 40), (10, 20), (2.0, 2.5))


def test_grey_is_refused() -> None:
    with pytest.raises(ValueError, match="takes RGB, got an image of mode L"):
        prepare(Image.new("L", (8, 8)))
