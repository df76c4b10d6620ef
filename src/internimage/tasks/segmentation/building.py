"""From a recipe's words to a segmenter, and the weights it starts from."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from internimage.model import InternImageConfig, load_checkpoint, read_checkpoint
from internimage.model.checkpoints.files import Checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.segmenter_files import described, holds_segmenter
from internimage.model.segmentation import HeadName, InternImageSegmenter, SegmenterConfig
from internimage.model.weights import default_weights
from internimage.structures import LabelMap
from internimage.tasks.resuming import classes_in_words

log = logging.getLogger(__name__)
_CHANNELS = 3
# What a segmenter for other classes learns anew.
_OF_CLASSES = (".classifier.weight", ".classifier.bias", ".class_predictor.weight", ".class_predictor.bias")


def build(
    model: str, head: HeadName, num_classes: int, model_options: dict[str, Any], head_options: dict[str, Any]
) -> InternImageSegmenter:
    """A segmenter with random weights; see `SegmentationTask` for the arguments.

    Raises:
        ValueError: an unknown model, head or option.
    """
    known = {each.name for each in fields(InternImageConfig)}
    if unknown := sorted(set(model_options) - known):
        raise ValueError(f"unknown model_options {unknown}; known are {sorted(known)}")
    if model_options.get("in_chans", _CHANNELS) != _CHANNELS:
        raise ValueError(f"a segmenter takes RGB pictures; leave in_chans {model_options['in_chans']} out")
    own = {each.name for each in fields(SegmenterConfig) if each.init} - {"backbone", "num_classes", "head"}
    if unknown := sorted(set(head_options) - own):
        raise ValueError(f"unknown head_options {unknown}; known are {sorted(own)}")
    # Of a width follow other sizes, as released; what is no number is refused below.
    sizes = {name: head_options.get(name) for name in ("channels", "queries")}
    sizes = {name: value for name, value in sizes.items() if type(value) is int}
    config = SegmenterConfig.from_variant(model, num_classes=num_classes, head=head, **sizes)
    return InternImageSegmenter(replace(config, backbone=replace(config.backbone, **model_options), **head_options))


def checked_weights(weights: Sequence[float] | None, config: SegmenterConfig) -> tuple[float, ...] | None:
    """Weights of classes in the losses.

    Raises:
        ValueError: weights for Mask2Former, not one per class, negative or not finite.
    """
    if weights is None:
        return None
    if config.head == "mask2former":
        raise ValueError("mask2former learns whole masks and takes no class_weights; leave them out")
    if len(weights) != config.num_classes or not all(0 <= each < math.inf for each in weights) or not any(weights):
        raise ValueError(
            f"class_weights must be {config.num_classes} numbers of at least 0, one per class and not all 0; "
            f"got {list(weights)}"
        )
    return tuple(weights)


def load_pretrained(network: InternImageSegmenter, model: str, pretrained: bool | str, labels: LabelMap) -> None:
    """Put a classifier's backbone, or what fits of a segmenter, into a new segmenter.

    Raises:
        ValueError: weights of another architecture, or of no InternImage.
    """
    source = default_weights(model).name if pretrained is True else str(pretrained)
    found = read_checkpoint(locate(source))
    if holds_segmenter(found):
        _take_segmenter(network, found, labels)
        return
    report = load_checkpoint(network.backbone, found, strict=False)
    # Where the classifier has no layer scale, the segmenter's begins at 1, which changes nothing.
    if lost := [key for key in report.missing if "layer_scale" not in key]:
        raise ValueError(
            f"{found.path} lacks the backbone's {', '.join(lost[:3])}; match model_options to its settings"
        )
    log.info("backbone from %s: %s", found.path, report)


def _take_segmenter(network: InternImageSegmenter, found: Checkpoint, labels: LabelMap) -> None:
    card, state = described(found)
    own = network.state_dict()
    anew = [] if card.labels == labels else [key for key in own if key.endswith(_OF_CLASSES)]
    kept = [key for key in own if key not in anew]
    # A head for street scenes may be another one than that of the weights: then the backbone is what fits.
    parts = {key.split(".")[0] for key in kept}
    fitting = {part for part in parts if _fits(part, kept, own, state)}
    if "backbone" not in fitting:
        wrong = [
            key
            for key in kept
            if key.startswith("backbone.") and (key not in state or state[key].shape != own[key].shape)
        ]
        some = ", ".join(wrong[:3]) + (" ..." if len(wrong) > 3 else "")
        raise ValueError(f"{found.path} has another backbone: {some} differ; match model and model_options to it")
    taken = {key: state[key] for key in kept if key.split(".")[0] in fitting}
    # Released street files have 150 outputs for 19 classes.
    if card.labels is not None and card.labels.names[: len(labels)] == labels.names:
        rows = [key for key in anew if ".classifier." in key and key.split(".")[0] in fitting]
        taken |= {key: state[key][: len(labels)] for key in rows}
        anew = [key for key in anew if key not in rows]
    network.load_state_dict(taken, strict=False)
    for part in sorted(parts - fitting):
        log.info("%s has another %s, which starts anew here", found.path, part)
    if anew and "decode_head" in fitting:
        log.info("%s was trained for %s: the last layers start anew", found.path, classes_in_words(card.labels))


def _fits(part: str, keys: list[str], own: dict[str, Any], state: dict[str, Any]) -> bool:
    mine = [key for key in keys if key.split(".")[0] == part]
    return all(key in state and state[key].shape == own[key].shape for key in mine)
