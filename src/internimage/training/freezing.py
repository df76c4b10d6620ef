"""Keeping the first stages of a backbone as they are."""

from __future__ import annotations

from typing import cast

from torch import nn

from internimage.model import InternImage
from internimage.model.composite import CompositeInternImage
from internimage.model.config import NUM_STAGES


def first_stages(model: nn.Module, count: int) -> list[nn.Module]:
    """The stem and the first ``count`` stages of the backbone in ``model``, each with the way down to the next.

    Of a composite backbone, those of both its networks; what links them goes on learning, as in the released code.

    Args:
        model: a backbone, or a network that holds one.
        count: 0 (the stem alone) to 4 (the whole backbone).

    Raises:
        ValueError: another count, or no backbone.

    >>> from internimage import create_model
    >>> [type(part).__name__ for part in first_stages(create_model("internimage_femto", num_classes=2), 2)]
    ['Stem', 'Dropout', 'Stage', 'Stage']
    """
    if not 0 <= count <= NUM_STAGES:
        raise ValueError(f"frozen_stages must be 0 (the stem alone) to {NUM_STAGES} (the whole backbone), got {count}")
    kinds = (InternImage, CompositeInternImage)
    found = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if found is None:
        raise ValueError(f"{type(model).__name__} holds no InternImage backbone: there are no stages to freeze")
    networks = (found.assisting, found.lead) if isinstance(found, CompositeInternImage) else (found,)
    parts: list[nn.Module] = []
    for network in networks:
        stem = [] if network.stem is None else [network.stem, network.drop]
        parts += [*stem, *cast("list[nn.Module]", list(network.stages))[:count]]
    return parts


def freeze(parts: list[nn.Module]) -> None:
    """Let the parts learn nothing and vary nothing: no gradients, no dropout, no dropped paths."""
    for part in parts:
        part.requires_grad_(False)
        part.eval()
