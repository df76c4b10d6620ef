"""Which parameter learns how fast, and which decays.

Source: ``lr_decay_keywords`` and ``set_weight_decay_and_lr`` of the released code (classification, 31c962d; for DCNv4
4b848f7).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from internimage.model import DCNv3, DCNv4

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
_EXTRA_NORM = re.compile(r"stages\.(\d+)\.post_norms\.(\d+)\.")
_AFTER_STAGE = re.compile(r"stages\.(\d+)\.(?:downsample|norm)\.")


def param_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    depths: Sequence[int],
    layer_decay: float = 1.0,
    offset_lr_scale: float = 1.0,
    lr_scales: Mapping[str, float] | None = None,
    dense: bool = False,
) -> list[dict[str, Any]]:
    """Group ``model``'s trainable parameters for an optimizer.

    Biases and everything one-dimensional do not decay. With ``layer_decay`` r, a block that n blocks follow learns
    at ``lr * r**n``; the stem goes with the first block, a stage's downsampling and norm with the next stage's first
    block; heads, the last stage's norm and the extra norms inside stage 3 learn at ``lr``.

    Each network of a composite backbone decays as a single one does; its links and gammas are as new as a head, and
    learn at ``lr``. The released rule knows no name of its composite: whatever the decay, all of it learns at ``lr``
    there, as with ``layer_decay`` 1 here.

    Args:
        model: parameters are known by our names (``...stages.2.blocks.5...``), under any prefix.
        lr: learning rate of the fastest group, 0 or more.
        weight_decay: of matrices and convolutions, 0 or more.
        depths: blocks per stage.
        layer_decay: in (0, 1]; 1 switches it off.
        dense: the released detectors' and segmenters' rule: only what is in no InternImage learns at ``lr``, the last
            block at ``lr * r``, the stem one step below the first block. The sampling offsets of deformable
            attention do not decay there, and its level embeddings (``level_codes``) learn as slowly as the stem.
        offset_lr_scale: further factor, 0 or more, for the layers of every `DCNv3` and `DCNv4` that predict offsets
            (with them centre gates, and DCNv4's modulations), whatever the network calls it.
        lr_scales: further factors, 0 or more, by parts of names: ``{"sampling_offsets": 0.001}`` slows every parameter
            whose name holds that word.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``names``, fastest first.

    Raises:
        ValueError: nothing to train, a number out of range, ``depths`` of a smaller network than ``model``, or a key of
            ``lr_scales`` that is in no name.
    """
    scales = lr_scales or {}
    numbers = {"lr": lr, "weight_decay": weight_decay, "offset_lr_scale": offset_lr_scale}
    for what, value in (numbers | {f"lr_scales[{key!r}]": scale for key, scale in scales.items()}).items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{what} must be a number of at least 0, got {value}")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1], got {layer_decay}")
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    offsets = _offset_parameters(model, dense)
    _check_keys(scales, model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = layer_decay ** (steps_below_head(name, depths) if dense else blocks_after(name, depths))
        scale *= offset_lr_scale if id(parameter) in offsets else 1.0
        scale *= math.prod(factor for key, factor in scales.items() if key in name)
        is_bare = parameter.dim() == 1 or name.endswith(".bias") or (dense and "sampling_offsets" in name)
        decay = 0.0 if is_bare else weight_decay
        group = groups.setdefault((scale, decay), {"params": [], "names": [], "lr": lr * scale, "weight_decay": decay})
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ValueError("no parameter requires a gradient: nothing would be trained; unfreeze some layers")
    return [groups[key] for key in sorted(groups, reverse=True)]


def _check_keys(scales: Mapping[str, float], model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    if lost := [key for key in scales if not any(key in name for name in names)]:
        raise ValueError(f"lr_scales names {lost[0]!r}, which is in no parameter's name; such as {names[0]} are there")


def _offset_parameters(model: nn.Module, dense: bool) -> set[int]:
    """Identities of what the recipes slow down: where a layer looks, and the gate that replaces looking.

    Of DCNv4 the released detectors' rule spares the depth-wise convolution, the classifiers' does not.
    """
    parts: list[nn.Module | None] = []
    for module in model.modules():
        if isinstance(module, DCNv3):
            parts += [module.offset, module.center_scale]
        elif isinstance(module, DCNv4):
            parts += [module.offset_mask, None if dense else module.offset_mask_dw]
    return {id(parameter) for part in parts if part is not None for parameter in part.parameters()}


def blocks_after(name: str, depths: Sequence[int]) -> int:
    """How many blocks of the backbone come after this parameter's place; ``ValueError`` if it has no such place.

    >>> blocks_after("stages.0.blocks.0.norm1.weight", (4, 4, 18, 4)), blocks_after("head.fc.weight", (4, 4, 18, 4))
    (29, 0)
    """
    if found := _BLOCK.search(name):
        stage, block = int(found[1]), int(found[2])
        if stage >= len(depths) or block >= depths[stage]:
            raise ValueError(_outside(name, depths))
        return sum(depths[stage:]) - block - 1
    if found := _AFTER_STAGE.search(name):
        if int(found[1]) >= len(depths):
            raise ValueError(_outside(name, depths))
        return max(0, sum(depths[int(found[1]) + 1 :]) - 1)
    return max(0, sum(depths) - 1) if re.search(r"(^|\.)stem\.", name) else 0


def steps_below_head(name: str, depths: Sequence[int]) -> int:
    """How many steps of layer decay a parameter takes in a detector or segmenter; 0 outside the backbone.

    Source: ``get_num_layer_for_swin`` of the released code (detection/mmcv_custom, 31c962d), with its corners: the last
    stage's norm goes with that stage's first block, an extra norm with the block of its own number, and the
    ``level_codes`` of a transformer with the stem.

    >>> names = ("stem.conv1.weight", "stages.0.blocks.0.norm1.weight", "stages.3.blocks.3.norm1.weight", "fpn.weight")
    >>> [steps_below_head(name, (4, 4, 18, 4)) for name in names]
    [31, 30, 1, 0]
    """
    if found := _AFTER_STAGE.search(name):
        blocks_after(name, depths)
        return sum(depths[min(int(found[1]) + 1, len(depths) - 1) :])
    if found := _EXTRA_NORM.search(name):
        return sum(depths[int(found[1]) :]) - int(found[2])
    if "level_codes" in name:
        return sum(depths) + 1
    after = blocks_after(name, depths)
    if re.search(r"(^|\.)stem\.", name):
        return after + 2
    return after + 1 if _BLOCK.search(name) else 0


def _outside(name: str, depths: Sequence[int]) -> str:
    return f"{name} lies outside a backbone of depths {tuple(depths)}; give the model's own, as in model.config.depths"
