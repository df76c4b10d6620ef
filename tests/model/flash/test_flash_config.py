"""FlashInternImage's arguments as its configurations give them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from internimage import InternImageConfig

STAGES: dict[str, dict[str, Any]] = {
    "t": {"channels": 64, "depths": [4, 4, 18, 4], "groups": [4, 8, 16, 32]},
    "s": {"channels": 80, "depths": [4, 4, 21, 4], "groups": [5, 10, 20, 40]},
    "b": {"channels": 112, "depths": [4, 4, 21, 4], "groups": [7, 14, 28, 56]},
    "l": {"channels": 160, "depths": [5, 5, 22, 5], "groups": [10, 20, 40, 80]},
}
# Source: classification/configs of DCNv4, 4b848f7.
FLASH: dict[str, dict[str, Any]] = {
    "t": {"offset_scale": 1.0},
    "s": {"offset_scale": 1.0, "layer_scale": 1e-5, "post_norm": True, "dw_kernel_size": 3},
    "b": {"layer_scale": 1e-5, "post_norm": True, "dw_kernel_size": 3},
    "l": {
        "offset_scale": 2.0,
        "layer_scale": 1e-5,
        "post_norm": True,
        "dw_kernel_size": 3,
        "dcn_output_bias": True,
        "mlp_fc2_bias": True,
    },
}


@pytest.mark.parametrize("variant", FLASH)
def test_official_arguments_with_dcnv4(variant: str) -> None:
    """Of the constructor's own defaults three differ: a scale of 0.5, which is B's, and no bias at two ends."""
    stages = STAGES[variant]
    config = InternImageConfig.from_official(stages | FLASH[variant] | {"core_op": "DCNv4", "drop_path_rate": 0.0})
    assert config == InternImageConfig.from_variant(f"flash_internimage_{variant}")
    assert config == InternImageConfig.from_variant(f"flash_{variant}")
    written = config.to_official()
    assert written["core_op"] == "DCNv4"
    assert "remove_center" not in written
    assert InternImageConfig.from_official(json.loads(json.dumps(written))) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dcn_output_bias": True, "mlp_fc2_bias": False},
            "^dcn_output_bias are FlashInternImage's: set core_op to DCNv4",
        ),
        ({"core_op": "DCNv4", "remove_center": True}, "FlashInternImage takes no notice of remove_center"),
        ({"core_op": "DCNv4", "center_feature_scale": True}, "DCNv4 has shared weights and no center_feature_scale"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InternImageConfig.from_official(STAGES["t"] | arguments)


def test_a_network_with_dcnv3_has_no_such_option() -> None:
    """transformers' configuration serves both families and writes False for it, which must not take biases away."""
    said = STAGES["t"] | {"dcn_output_bias": False, "mlp_fc2_bias": False}
    assert InternImageConfig.from_official(said) == InternImageConfig.from_official(STAGES["t"])
