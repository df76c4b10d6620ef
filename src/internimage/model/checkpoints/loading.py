"""Fitting weights into a network: heads, input channels, removed centres, and plain words when they don't fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from internimage.model.backbone import InternImage
from internimage.model.checkpoints.convert import knows_date_and_place
from internimage.model.checkpoints.files import Checkpoint, read_checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.official.arguments import DCNV4, FLASH_BACKBONE, OFFICIAL_ARGUMENTS
from internimage.model.checkpoints.official.composite import holds_composite
from internimage.model.classifier import InternImageClassifier
from internimage.model.config import NUM_STAGES, InternImageConfig
from internimage.model.deform_v4 import offset_mask_width
from internimage.model.variants import architecture_of, describe_variant, list_models, variant_config

log = logging.getLogger(__name__)
IN22K_CLASSES, IN1K_CLASSES = 21841, 1000
_STEM_IN, _STEM_OUT = "backbone.stem.conv1.weight", "backbone.stem.conv2.weight"
_FC = ("head.fc.weight", "head.fc.bias")
# DCNv4 has one layer for offsets and modulations. What a network of each kind can have, and the other can't.
_JOINT = ".dcn.offset_mask.bias"
_LOOKS = re.compile(r"stages\.(?P<stage>\d+)\.blocks\.\d+\.dcn\.(?P<layer>offset|mask|offset_mask)\.(?:weight|bias)$")
# Rows per sampling point, one kind after the other in every group.
_POINT_ROWS = {"offset": (2,), "mask": (1,), "offset_mask": (2, 1)}
_DCNV3 = {"core": "dcnv3", "normalize": "softmax"}
_DCNV4 = {"core": "dcnv4", "normalize": "none", "shared_weights": True, "center_feature_scale": False}


@dataclass(frozen=True)
class LoadReport:
    """What happened to a checkpoint's weights.

    Args:
        loaded: number of tensors put into the model.
        missing: the model's tensors that the checkpoint lacks; they keep their values.
        unexpected: the checkpoint's tensors that the model has no place for.
        notes: adaptations, in words.
    """

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors loaded", *self.notes]
        parts += [f"{len(self.missing)} missing (kept as they were)"] if self.missing else []
        parts += [f"{len(self.unexpected)} left out"] if self.unexpected else []
        return "; ".join(parts)


def load_checkpoint(
    model: nn.Module,
    source: str | Path | Checkpoint,
    *,
    strict: bool = True,
    ema: bool | None = None,
    reset_head: bool = False,
) -> LoadReport:
    """Load weights of any known format into ``model`` (from `create_model`).

    A 21,841-class ImageNet-22k head becomes a 1,000-class ImageNet-1k head by the official index list; a first
    convolution for RGB is summed or repeated for other channel counts; a model without centre points drops them; so
    does every model with iNaturalist's branch for date and place.

    Args:
        model: an InternImage backbone or classifier.
        source: a file, a folder, a name from the weight table, a hub id, or a checkpoint that was read already.
        strict: every tensor of the model must be there, and every tensor of the checkpoint must have a place
            (a head is left out for a backbone, a detector's other parts for both).
        ema: True for the moving average, False for the raw weights, None for the file's main entry; not for a
            checkpoint that was read already.
        reset_head: keep the model's own last layer (for other classes).

    Raises:
        ValueError: another architecture or other settings than the file says, other classes, or tensors missing or too
            many; in words.
    """
    if not isinstance(model, InternImage | InternImageClassifier):
        raise ValueError(f"model must be an InternImage backbone or classifier, got {type(model).__name__}")
    if isinstance(source, Checkpoint) and ema is not None:
        raise ValueError("ema is chosen when the file is read: read_checkpoint(path, ema=...)")
    found = source if isinstance(source, Checkpoint) else read_checkpoint(locate(source), ema=ema)
    check_architecture(found, model.config)
    differing = differing_settings(found, model.config, strict)
    state, notes = _adapt(found, model, strict, reset_head)
    notes += ["the branch for date and place was left out"] if knows_date_and_place(found.foreign) else []
    notes += differing
    own = model.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        raise ValueError('the model is on the meta device and can hold no weights; call model.to_empty(device="cpu")')
    missing = tuple(key for key in own if key not in state and not (reset_head and key in _FC))
    unexpected = tuple(key for key in state if key not in own)
    if isinstance(model, InternImageClassifier) and all(key.startswith("head.") for key in missing):
        # Detectors and segmenters are published without a classification head.
        backbone_only = not any(key.startswith("head.") for key in state)
        notes += ["the checkpoint has no head: the model keeps its own"] if backbone_only and missing else []
        missing = () if backbone_only and reset_head else missing
    _check_shapes(state, own, found.path)
    if strict and (missing or unexpected):
        raise ValueError(_complaint(found.path, missing, unexpected))
    model.load_state_dict({key: tensor for key, tensor in state.items() if key in own}, strict=False)
    report = LoadReport(len(state) - len(unexpected), missing, unexpected, tuple(notes))
    log.debug("%s: %s", found.path, report)
    return report


def check_architecture(found: Checkpoint, config: InternImageConfig) -> None:
    """Raise ``ValueError`` that names both variants if the weights are another architecture's."""
    theirs = _architecture_of(found, config)
    if architecture_of(theirs) != architecture_of(config):
        raise ValueError(
            f"{found.path} holds {describe_variant(theirs)}, but the model is {describe_variant(config)}; "
            "create the model by the checkpoint's name"
        )


def architecture(state: Mapping[str, Tensor], like: InternImageConfig) -> InternImageConfig:
    """``like`` with the deformable layer, channels, depths and groups that the weights' names and shapes say."""
    is_joint = any(key.endswith(_JOINT) for key in state)
    last = _JOINT if is_joint else ".dcn.mask.bias"
    masks = [f"backbone.stages.{stage}.blocks.0{last}" for stage in range(NUM_STAGES)]
    if holds_composite(state):
        raise ValueError("these are a composite of two InternImages: load a detector with both, or extract one")
    if lost := next((key for key in (_STEM_IN, _STEM_OUT, *masks) if key not in state), None):
        raise ValueError(f"this is not a whole InternImage: {lost} is missing")
    channels = state[_STEM_OUT].shape[0]
    blocks = {tuple(map(int, key.split(".")[2:5:2])) for key in state if ".blocks." in key}
    depths = tuple(1 + max(block for at, block in blocks if at == stage) for stage in range(NUM_STAGES))
    rows = [state[key].shape[0] for key in masks]
    # Eight or nine points per group; the weights don't say which, so prefer the reading that fits the model.
    expected = [9 - like.remove_center, 9, 8]
    readings = {k: tuple(_groups_in(row, k, is_joint) for row in rows) for k in (9, 8)}
    points = next((k for k in expected if readings[k] == like.groups), None)
    if points is None:
        points = 9 if all(readings[9]) else 8
    core: dict[str, Any] = _DCNV4 if is_joint else _DCNV3
    return replace(
        like,
        **({} if like.core == core["core"] else core),
        channels=channels,
        depths=depths,
        groups=readings[points],
        remove_center=points == 8,
        level2_post_norm_blocks=() if depths[2] < like.depths[2] else like.level2_post_norm_blocks,
    )


def _groups_in(rows: int, points: int, is_joint: bool) -> int:
    """Groups of so many points in the rows of the layer that gives their modulations; 0 where they don't fit."""
    groups = rows // (3 * points if is_joint else points)
    return groups if rows == (offset_mask_width(groups, points) if is_joint else groups * points) else 0


def _architecture_of(found: Checkpoint, like: InternImageConfig) -> InternImageConfig:
    try:
        return architecture(found.state, like)
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None


def differing_settings(found: Checkpoint, config: InternImageConfig, strict: bool) -> list[str]:
    """Settings that no tensor's shape shows, but that the file names: with others, the same weights mean nothing."""
    if found.card is None:
        return []
    differing = [
        f"{name}={getattr(found.card.config, name)!r} instead of {getattr(config, name)!r}"
        for name in ("offset_scale", "normalize", "activation", "post_norm", "level2_post_norm_blocks")
        if getattr(found.card.config, name) != getattr(config, name)
    ]
    if differing and strict:
        raise ValueError(
            f"{found.path} was made with {', '.join(differing)}; create the model with the file's settings, "
            "or pass strict=False"
        )
    # Other strides are how small images are fine-tuned, so they are no mistake.
    if found.card.config.stem_strides != config.stem_strides:
        differing.append(f"stem_strides={found.card.config.stem_strides} instead of {config.stem_strides}")
    return [f"the file was made with {', '.join(differing)}"] if differing else []


def infer_config(found: Checkpoint) -> InternImageConfig:
    """The configuration of a file that does not say it: the known variant with these shapes, and this head.

    Raises:
        ValueError: no known variant has these shapes.
    """
    if found.card is not None:
        return found.card.config
    state = found.state
    for name in list_models():
        config = variant_config(name)
        theirs = _architecture_of(found, config)
        if architecture_of(theirs) == architecture_of(config):
            has_scale = any(key.endswith("layer_scale1") for key in state)
            scale = (config.layer_scale or 1.0) if has_scale else None
            classes = state[_FC[0]].shape[0] if _FC[0] in state else 0
            in_chans = state[_STEM_IN].shape[1]
            return replace(
                config,
                num_classes=classes,
                in_chans=in_chans,
                layer_scale=scale,
                remove_center=theirs.remove_center,
            )
    raise ValueError(f"{found.path} is no known variant; build its InternImageConfig and use load_checkpoint")


def official_backbone(found: Checkpoint, said: Mapping[str, Any] | None) -> InternImageConfig:
    """A detector's or segmenter's backbone: as its configuration says, or the known variant with these shapes.

    Raises:
        ValueError: a backbone that can't be built, or no known variant.
    """
    if said is None:
        return infer_config(found)
    arguments = {name: value for name, value in said.items() if name in OFFICIAL_ARGUMENTS}
    if said.get("type") == FLASH_BACKBONE:
        arguments = {"core_op": DCNV4, **arguments}
    try:
        return InternImageConfig.from_official({**arguments, "num_classes": 0})
    except ValueError as error:
        raise ValueError(f"{found.path}: the backbone in its configuration can't be built: {error}") from None


def all_weights(found: Checkpoint) -> dict[str, Tensor]:
    """Also those that are no classifier's; of a training checkpoint the network's, under ``network.``, not its own."""
    inside = any(key.startswith("network.") for key in found.others)
    others = {
        key.removeprefix("network."): tensor
        for key, tensor in found.others.items()
        if not inside or key.startswith("network.")
    }
    return {**found.state, **others}


def load_whole(model: nn.Module, state: Mapping[str, Tensor], path: Path, kind: str) -> None:
    """Load a detector's or segmenter's weights; ``kind`` says which, for the ``ValueError`` where any does not fit."""
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [key for key, tensor in own.items() if key in state and state[key].shape != tensor.shape]
    for keys, what in ((missing, "lacks"), (unexpected, "also has"), (wrong, "has in another shape")):
        if keys:
            some = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise ValueError(f"{path} does not fit the {kind} it describes: it {what} {some}")
    model.load_state_dict(state)


def in22k_rows() -> Tensor:
    """Row of the 21,841-class head for each of the 1,000 classes of ImageNet-1k, in order.

    Source: classification/meta_data/map22kto1k.txt, 31c962d (MIT).
    """
    text = files("internimage.model.checkpoints").joinpath("imagenet_22k_to_1k.txt").read_text(encoding="utf-8")
    return torch.tensor([int(line) for line in text.split()])


def _adapt(
    found: Checkpoint, model: InternImage | InternImageClassifier, strict: bool, reset_head: bool
) -> tuple[dict[str, Tensor], list[str]]:
    state, notes = dict(found.state), list[str]()
    if model.config.remove_center:
        notes += _remove_centers(state, model.config)
    notes += _adapt_input(state, model.config.in_chans)
    if isinstance(model, InternImage):
        return {key.removeprefix("backbone."): state[key] for key in state if key.startswith("backbone.")}, notes
    notes += _adapt_head(state, model, strict, reset_head, found.path)
    return state, notes


def _remove_centers(state: dict[str, Tensor], config: InternImageConfig) -> list[str]:
    """Drop the rows of the middle point: the fifth of nine in every group, for offsets its x and y."""
    changed = 0
    for key in list(state):
        found = _LOOKS.search(key)
        if found is None:
            continue
        groups, parts = config.groups[int(found["stage"])], _POINT_ROWS[found["layer"]]
        count = 9 * groups * sum(parts)
        if state[key].shape[0] != (count if len(parts) == 1 else offset_mask_width(groups, 9)):
            continue
        rows: Tensor = torch.unflatten(state[key][:count], 0, (groups, -1))
        kept: list[Tensor] = []
        for kind, part in zip(torch.split(rows, [9 * part for part in parts], dim=1), parts, strict=True):
            kept += [kind[:, : 4 * part], kind[:, 5 * part :]]
        # Those of DCNv4 need no more filling up: three rows for each of eight points.
        state[key], changed = torch.cat(kept, dim=1).flatten(0, 1), changed + 1
    return [f"the middle sampling point was removed from {changed} tensors"] if changed else []


def _adapt_input(state: dict[str, Tensor], in_chans: int) -> list[str]:
    weight = state[_STEM_IN]
    theirs = weight.shape[1]
    if theirs == in_chans:
        return []
    # Either way every filter keeps its sum over the channels, so that an image of equal channels gives what it gave.
    if in_chans < theirs:
        # The first channels stay what they were, and take over the others in equal parts.
        state[_STEM_IN] = weight[:, :in_chans] + weight[:, in_chans:].sum(1, keepdim=True) / in_chans
    else:
        # Channels repeat and share their weights.
        index = torch.arange(in_chans) % theirs
        state[_STEM_IN] = weight[:, index] / torch.bincount(index)[index].view(-1, 1, 1)
    return [f"the first convolution was adapted from {theirs} to {in_chans} channels"]


def _adapt_head(
    state: dict[str, Tensor], model: InternImageClassifier, strict: bool, reset_head: bool, path: Path
) -> list[str]:
    theirs = state[_FC[0]].shape[0] if _FC[0] in state else 0
    if reset_head or not model.num_classes or not theirs:
        for key in _FC:
            state.pop(key, None)
        return ["the last layer is new"] if theirs and model.num_classes else []
    if theirs == model.num_classes:
        return []
    if (theirs, model.num_classes) == (IN22K_CLASSES, IN1K_CLASSES):
        for key in _FC:
            state[key] = state[key][in22k_rows()]
        return ["the ImageNet-1k rows of the ImageNet-22k head were taken"]
    if strict:
        raise ValueError(
            f"{path} was trained for {theirs} classes, the model has {model.num_classes}; "
            "pass reset_head=True to start with a new last layer"
        )
    for key in _FC:
        state.pop(key)
    return [f"the last layer is new ({model.num_classes} classes instead of {theirs})"]


def _check_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    for key, tensor in state.items():
        if key in own and own[key].shape != tensor.shape:
            raise ValueError(
                f"{path}: {key} has shape {tuple(tensor.shape)}, the model needs {tuple(own[key].shape)}; "
                "the model's settings differ from the checkpoint's"
            )


_FORMS = {
    "layer_scale": "layer scale",
    "res_norm": "res-post-norm",
    "post_norms": "level-2 post-norms",
    "center_scale": "centre feature scale",
    "head.pool": "the CLIP head",
    "head.conv": "the conv head",
    "head.": "a classification head",
    ".norm.": "a final norm per stage",
}


def _complaint(path: Path, missing: tuple[str, ...], unexpected: tuple[str, ...]) -> str:
    """Name parts, not a wall of keys."""
    lines: list[str] = []
    for keys, verb in ((missing, "lacks"), (unexpected, "also has")):
        if keys:
            parts = {next((words for mark, words in _FORMS.items() if mark in key), key) for key in keys}
            shown = ", ".join(sorted(parts)[:4]) + (" and more" if len(parts) > 4 else "")
            lines.append(f"{verb} {shown} ({len(keys)} tensors)")
    return f"{path} does not fit the model: it {' and '.join(lines)}; match the settings or pass strict=False"
