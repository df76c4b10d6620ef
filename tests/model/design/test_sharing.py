"""What sharing weights saves, against counts of built networks and of hand-made maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from internimage.model import InternImageConfig, create_model
from internimage.model.design.sharing import count_savings

CONFIG = InternImageConfig.stacked(16, 8, 1, 3, num_classes=5, dw_kernel_size=5, center_feature_scale=True)


def test_parameters_are_those_of_built_networks() -> None:
    whole, layers = count_savings(CONFIG, 64)[:2]
    for form, counted_whole, counted_layers in (
        (CONFIG, whole.shared, layers.shared),
        (replace(CONFIG, shared_weights=False), whole.own, layers.own),
    ):
        with torch.device("meta"):
            named = dict(create_model(form).named_parameters())
        assert counted_whole == sum(each.numel() for each in named.values())
        assert counted_layers == sum(each.numel() for name, each in named.items() if ".dcn." in name)
    # Eight more matrices of C x C in each block.
    assert whole.own - whole.shared == 8 * (16**2 + 32**2 + 3 * 64**2 + 128**2)


def test_maps_are_counted_by_hand() -> None:
    """Maps of 16, 8, 4 and 2 pixels a side: one of C channels goes in, one or nine come out."""
    numbers = 16 * 16**2 + 32 * 8**2 + 3 * 64 * 4**2 + 128 * 2**2
    both, result = count_savings(CONFIG, 64)[-2:]
    assert (result.shared, result.own) == (4 * numbers, 9 * 4 * numbers)
    assert (both.shared, both.own) == (2 * 4 * numbers, 10 * 4 * numbers)
    assert (both.percent, result.percent) == (pytest.approx(80), pytest.approx(100 * 8 / 9))


def test_own_weights_keep_more() -> None:
    whole, layers = count_savings(CONFIG, 64)[2:4]
    assert 0 < layers.shared < whole.shared
    assert whole.own - whole.shared == layers.own - layers.shared, "all else is the same"


def test_dcnv4_has_no_such_form() -> None:
    with pytest.raises(ValueError, match="made of DCNv4's layers"):
        count_savings(replace(CONFIG, core="dcnv4", center_feature_scale=False), 64)
