"""A name becomes a configuration, a network, and a network with weights."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from internimage.model.backbone import InternImage
from internimage.model.checkpoints.files import Checkpoint, read_checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.loading import IN1K_CLASSES, IN22K_CLASSES, differing_settings, load_checkpoint
from internimage.model.classifier import InternImageClassifier
from internimage.model.config import InternImageConfig
from internimage.model.variants import architecture_of, full_name, variant_config
from internimage.model.weights import SHIPPED, WEIGHTS, default_weights


def create_model(
    name_or_config: str | InternImageConfig,
    *,
    pretrained: bool | str | Path | None = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    **overrides: Any,
) -> nn.Module:
    """Build an InternImage.

    Args:
        name_or_config: a name from `list_models` (``"internimage_t"``), a name from the weight table
            (``"internimage_l.in22k_384"``), or an `InternImageConfig`.
        pretrained: False or None; True for the named (or the variant's default) released weights; or a file, folder,
            weight name or hub id. A model's name then means the network as the file describes it, if it does. For
            other ``num_classes`` the last layer starts anew, as in timm; 1,000 of ImageNet-22k's 21,841 are taken from
            its head.
        num_classes: outputs; by default the configuration's, or those of the ``pretrained`` head, or 1,000.
        in_chans: channels of the image; by default 3, or the configuration's, or those the file's description says.
        features_only: return the four maps (NCHW, strides 4 to 32) instead of class scores.
        overrides: any other field of `InternImageConfig`, for example ``drop_path_rate=0.2``.

    Raises:
        ValueError: an unknown name or field, or weights that don't fit, or have no head where none was asked for anew.
        ConnectionError: weights that can't be downloaded.

    >>> import torch
    >>> create_model("internimage_femto", num_classes=10)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 10])
    >>> maps = create_model("internimage_femto", features_only=True)(torch.zeros(1, 3, 64, 64))
    >>> [map.shape[1] for map in maps]
    [24, 48, 96, 192]
    """
    config, weights = _named(name_or_config)
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if in_chans is not None:
        overrides["in_chans"] = in_chans
    known = {field.name for field in fields(InternImageConfig)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
    config = replace(config, **overrides)
    if pretrained is None or pretrained is False:
        return _build(config, features_only)
    if pretrained is True:
        pretrained = weights or default_weights(_table_name(name_or_config)).name
    # Found and read before the network is built: building the large ones takes a minute.
    found = read_checkpoint(locate(pretrained))
    theirs = found.state["head.fc.weight"].shape[0] if "head.fc.weight" in found.state else 0
    if not isinstance(name_or_config, InternImageConfig):
        config = _as_described(config, found, overrides)
        if num_classes is None and theirs:
            config = replace(config, num_classes=theirs)
    keeps = theirs == config.num_classes or (theirs, config.num_classes) == (IN22K_CLASSES, IN1K_CLASSES)
    if num_classes is None and not features_only:
        _check_head(found, theirs, config, keeps)
    model = _build(config, features_only)
    load_checkpoint(model, found, reset_head=not keeps)
    # What would make the weights useless was refused; the rest may be meant, as other strides for small images.
    if differing := differing_settings(found, config, strict=False):
        warnings.warn(f"{found.path}: {'; '.join(differing)}", stacklevel=2)
    return model


def _as_described(config: InternImageConfig, found: Checkpoint, overrides: dict[str, Any]) -> InternImageConfig:
    """The file's own configuration with ``overrides``; ``config`` where the file has none, or of another variant."""
    if found.card is None:
        return config
    theirs = found.card.config
    return replace(theirs, **overrides) if architecture_of(theirs) == architecture_of(config) else config


def _check_head(found: Checkpoint, theirs: int, config: InternImageConfig, keeps: bool) -> None:
    """A last layer of random numbers must be asked for."""
    has_head = any(key.startswith("head.") for key in found.state)
    if not has_head or (config.num_classes and not theirs):
        raise ValueError(
            f"{found.path} has no classification head; pass features_only=True, or num_classes=... for a new head"
        )
    if config.num_classes and not keeps:
        warnings.warn(
            f"{found.path} was trained for {theirs} classes, the configuration has {config.num_classes}: "
            "the last layer starts anew; pass num_classes to choose",
            stacklevel=3,
        )


def _build(config: InternImageConfig, features_only: bool) -> InternImage | InternImageClassifier:
    return InternImage(config) if features_only else InternImageClassifier(config)


def _named(name_or_config: str | InternImageConfig) -> tuple[InternImageConfig, str | None]:
    if isinstance(name_or_config, InternImageConfig):
        return name_or_config, None
    if name_or_config in WEIGHTS:
        row = WEIGHTS[name_or_config]
        return replace(variant_config(row.model), num_classes=row.num_classes), row.name
    if name_or_config in SHIPPED:
        row = SHIPPED[name_or_config]
        config = replace(variant_config(row.model), num_classes=row.num_classes, stem_strides=row.stem_strides)
        return config, row.name
    model, _, tag = name_or_config.partition(".")
    if tag and (known := [row.name for row in (*WEIGHTS.values(), *SHIPPED.values()) if row.model == model]):
        raise ValueError(f"unknown weights {name_or_config!r}; choose from {', '.join(known)}")
    return variant_config(name_or_config), None


def _table_name(name_or_config: str | InternImageConfig) -> str:
    if isinstance(name_or_config, InternImageConfig):
        raise ValueError("pretrained=True needs a model's name; with a configuration, pass a file, name or hub id")
    return full_name(name_or_config)
