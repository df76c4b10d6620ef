"""What sharing w among the sampling points saves: every way to count that fits the paper's sentence.

The paper says that for H sharing saves 42.0% of the parameters and 84.2% of the memory, and not what was counted.

Source: section 4 (ablation of shared weights), arXiv:2211.05778.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from internimage.model.config import NUM_STAGES, InternImageConfig
from internimage.model.deform import DCNv3
from internimage.model.design.cost import activation_bytes, kept_bytes, parameter_count

# For H, in percent.
PAPER_PARAMETERS, PAPER_MEMORY = 42.0, 84.2
_FLOAT32 = 4


@dataclass(frozen=True)
class Saving:
    """One way to count.

    Args:
        what: is counted.
        unit: ``"parameters"`` or ``"bytes"``.
        shared: with one matrix for all points of a layer.
        own: with one for each point.
    """

    what: str
    unit: str
    shared: int
    own: int

    @property
    def percent(self) -> float:
        """Of what own weights need.

        >>> Saving("", "bytes", 1, 9).percent
        88.88...
        """
        return 100 * (1 - self.shared / self.own)


def count_savings(config: InternImageConfig, size: int) -> list[Saving]:
    """Parameters of the whole and of its parts; memory of a training step's forward pass in float32, for one image.

    Counted on the meta device, by PyTorch's plain operators.

    Args:
        config: with or without shared weights; both forms of it are counted.
        size: side of the square image in pixels.

    Raises:
        ValueError: DCNv4, which has no other form.

    >>> savings = count_savings(InternImageConfig.from_variant("h"), 224)
    >>> [(each.what, round(each.percent, 1)) for each in savings[:2]]
    [('the whole classifier', 41.0), ('the deformable layers', 73.4)]
    """
    if config.core != "dcnv3":
        raise ValueError("sharing weights is DCNv3's change; this network is made of DCNv4's layers")
    forms = [replace(config, shared_weights=shared) for shared in (True, False)]
    layers = [[_layer(form, stage) for stage in range(NUM_STAGES)] for form in forms]
    sides = [-(-size // stride) for stride in config.stage_strides]
    maps = [
        torch.empty(1, side, side, width, device="meta")
        for side, width in zip(sides, config.stage_channels, strict=True)
    ]
    points = layers[0][0].geometry.num_points
    one_map = sum(depth * each.numel() * _FLOAT32 for depth, each in zip(config.depths, maps, strict=True))

    def total(each: list[int]) -> int:
        return sum(depth * value for depth, value in zip(config.depths, each, strict=True))

    parameters = [total([sum(p.numel() for p in layer.parameters()) for layer in form]) for form in layers]
    kept = [total([kept_bytes(layer, x) for layer, x in zip(form, maps, strict=True)]) for form in layers]
    return [
        Saving("the whole classifier", "parameters", parameter_count(forms[0]), parameter_count(forms[1])),
        Saving("the deformable layers", "parameters", parameters[0], parameters[1]),
        Saving(
            "kept by the whole classifier", "bytes", *(activation_bytes(each, size, device="meta") for each in forms)
        ),
        Saving("kept by the deformable layers", "bytes", kept[0], kept[1]),
        # What the operator is given and gives: C channels a position, and C or K C.
        Saving("the operator's input and result", "bytes", 2 * one_map, (1 + points) * one_map),
        Saving("the operator's result alone", "bytes", one_map, points * one_map),
    ]


def _layer(config: InternImageConfig, stage: int) -> DCNv3:
    with torch.device("meta"):
        return DCNv3(
            config.stage_channels[stage],
            groups=config.groups[stage],
            dw_kernel_size=config.dw_kernel_size,
            center_feature_scale=config.center_feature_scale,
            remove_center=config.remove_center,
            shared_weights=config.shared_weights,
        )
