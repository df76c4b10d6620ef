"""The cost that the paper and the model tables publish, counted by PyTorch on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from internimage import create_model

# Image size and published multiply-adds in billions (they call them FLOPs).
PUBLISHED = {
    "t": (224, 5),
    "s": (224, 8),
    "b": (224, 16),
    "l": (384, 108),
    "xl": (384, 163),
    "h": (640, 1478),
    "g": (512, 2700),
}


def multiply_adds(name: str, size: int, batch: int = 1) -> float:
    """In billions."""
    with torch.device("meta"):
        model, image = create_model(name).eval(), torch.empty(batch, 3, size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert model(image).shape == (batch, 1000)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("variant", PUBLISHED)
def test_multiply_adds_are_the_published_ones(variant: str) -> None:
    size, published = PUBLISHED[variant]
    assert multiply_adds(f"internimage_{variant}", size) == pytest.approx(published, rel=0.05)


def test_multiply_adds_grow_with_pixels_and_images() -> None:
    once = multiply_adds("internimage_pico", 64)
    assert multiply_adds("internimage_pico", 64, batch=3) == pytest.approx(3 * once)
    # But for the last linear layer, four times the pixels are four times the work.
    assert multiply_adds("internimage_pico", 128) == pytest.approx(4 * once, rel=0.02)
