"""The memory of training: the sum against what autograd really keeps, and the record detector's backbone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from internimage import InternImageConfig
from internimage.model.composite import CompositeInternImage
from internimage.model.composite.memory import (
    WIDTHS,
    Precision,
    block_inputs,
    kept_between_blocks,
    kept_on_gpu,
    map_sizes,
    training_memory,
)
from internimage.model.design.cost import kept_bytes

# The form of T, of S to XL, and of H.
FORMS = {
    "pre_norm": {},
    "post_norm": {"post_norm": True, "layer_scale": 1e-5},
    "res_post_norm": {"res_post_norm": True, "level2_post_norm_blocks": (0, 2), "center_feature_scale": True},
}


def outside_blocks(config: InternImageConfig, size: tuple[int, int], images: int, precision: Precision) -> int:
    widths = WIDTHS[precision]
    inputs = block_inputs(config, map_sizes(config, size, images), widths)
    return inputs + kept_between_blocks(config, size, images, widths)


@pytest.mark.parametrize("form", FORMS)
def test_the_sum_is_what_real_tensors_take(base: InternImageConfig, form: str) -> None:
    """To the byte: tolerance is for PyTorch's versions."""
    config = replace(base, gradient_checkpointing=True, stem_strides=(2, 1), **FORMS[form])
    counted = kept_bytes(CompositeInternImage(config).train(), torch.zeros(2, 3, 35, 22))
    assert counted == pytest.approx(outside_blocks(config, (35, 22), 2, "32-true"), rel=1e-3)


@pytest.mark.parametrize(("form", "precision"), [("res_post_norm", "bf16-mixed"), ("pre_norm", "bf16-true")])
def test_the_sum_in_16_bits_is_what_a_gpu_would_keep(base: InternImageConfig, form: str, precision: Precision) -> None:
    few = {"depths": (1, 1, 1, 1), "gradient_checkpointing": True}
    config = replace(base, **few | FORMS[form] | ({"level2_post_norm_blocks": (0,)} if form == "res_post_norm" else {}))
    with torch.device("meta"):
        network = CompositeInternImage(config)
    counted = kept_on_gpu(network, (2, 3, 69, 37), precision)
    assert counted == pytest.approx(outside_blocks(config, (69, 37), 2, precision), rel=1e-3)
    assert not torch.is_autocast_enabled("cuda")


def test_the_record_detectors_backbone_fits_one_gpu_of_80_gb() -> None:
    config = InternImageConfig.from_variant("h")
    memory = training_memory(config, (1024, 2016), more_parameters=1_000_000)
    assert memory.parameters == 2_152_954_720 + 1_000_000
    assert memory.states == 16 * memory.parameters
    # A map of the first stage in float32, for each of its blocks in both networks; the others are half as large each.
    first = 256 * 504 * 320 * 4
    assert memory.inputs == 2 * first * (6 + 6 / 2 + 32 / 4 + 6 / 8)
    # Keeping all blocks would take thirty times the block that is computed again.
    assert 10 * first < memory.block < 20 * first
    parts = memory.states + memory.inputs + memory.between + memory.block + memory.passing
    assert memory.total == parts < 80e9


def test_more_images_take_more_and_16_bits_half(base: InternImageConfig) -> None:
    one, two = (training_memory(base, (64, 64), images=images, precision="bf16-true") for images in (1, 2))
    assert two.inputs == 2 * one.inputs
    assert two.states == one.states == 8 * one.parameters
    assert 2 * one.block == training_memory(base, (64, 64), precision="bf16-true", images=2).block


def test_what_is_no_training_is_refused(base: InternImageConfig) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        training_memory(base, (0, 64))
    with pytest.raises(ValueError, match="precision must be one of 32-true, bf16-mixed, bf16-true, got 'fp8'"):
        training_memory(base, (64, 64), precision="fp8")  # type: ignore[arg-type]
