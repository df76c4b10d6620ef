"""From a recipe's words to a detector, and the weights it starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from internimage.model import InternImageConfig, load_checkpoint, read_checkpoint
from internimage.model.checkpoints.detector_files import described, holds_detector
from internimage.model.checkpoints.files import Checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.model.composite import CompositeInternImage
from internimage.model.detection import Detector, DetectorConfig, InternImageDetector
from internimage.model.weights import default_weights
from internimage.structures import LabelMap
from internimage.tasks.resuming import classes_in_words

if TYPE_CHECKING:
    from internimage.model.detection.dino import DinoConfig

log = logging.getLogger(__name__)
Family = Literal["rcnn", "cascade", "dino", "deformable_detr", "rt_detr_v2", "d_fine"]
_TRANSFORMERS = ("deformable_detr", "rt_detr_v2", "d_fine")
_CHANNELS, _STRIDES = 3, (4, 8, 16, 32)
# What a detector for other classes learns anew: of ours by the ends of names, of transformers' by what is in them.
_OF_CLASSES = (".cls.weight", ".cls.bias", ".reg.weight", ".reg.bias", ".logits.weight", ".logits.bias")
# Of DINO, what a file may lack that only predicts.
_FOR_TRAINING = "label_codes."
_OF_CLASSES_THERE = (".class_embed.", ".enc_score_head.", ".denoising_class_embed.", ".class_heads.")


def build(
    model: str,
    family: Family | None,
    num_classes: int,
    masks: bool,
    model_options: dict[str, Any],
    detector_options: dict[str, Any],
) -> Detector:
    """A detector with random weights; see `DetectionTask` for the arguments.

    Raises:
        ValueError: an unknown model, family or option, or masks of a family that has none.
    """
    if family is not None and family not in get_args(Family):
        raise ValueError(f"family must be one of {', '.join(get_args(Family))}, got {family!r}")
    known = {each.name for each in fields(InternImageConfig)}
    if unknown := sorted(set(model_options) - known):
        raise ValueError(f"unknown model_options {unknown}; known are {sorted(known)}")
    if model_options.get("in_chans", _CHANNELS) != _CHANNELS:
        raise ValueError(f"a detector takes RGB pictures; leave in_chans {model_options['in_chans']} out")
    if masks and family in ("dino", *_TRANSFORMERS):
        raise ValueError(f"{family} finds boxes alone; set masks to false in the data, or take family rcnn")
    if family == "dino":
        from internimage.model.detection.dino import DinoConfig, InternImageDino

        dino = DinoConfig.from_variant(model, num_classes=num_classes)
        _check_options(detector_options, dino, "masks")
        backbone = replace(dino.backbone, **model_options)
        return InternImageDino(replace(dino, backbone=backbone, **detector_options))
    if family in _TRANSFORMERS:
        from internimage.model.detection.detr import DetrConfig, InternImageDetr

        config = DetrConfig.from_variant(model, num_classes=num_classes, family=family, options=detector_options)
        return InternImageDetr(replace(config, backbone=replace(config.backbone, **model_options)))
    cascade = None if family is None else family == "cascade"
    config = DetectorConfig.from_variant(model, num_classes=num_classes, masks=masks, cascade=cascade)
    _check_options(detector_options, config, "masks", "stages")
    backbone = replace(config.backbone, **model_options)
    if backbone.stage_strides != _STRIDES:
        raise ValueError(
            f"anchors and pooling stand on maps of strides {_STRIDES}, but stem_strides {backbone.stem_strides} make "
            f"them {backbone.stage_strides}; leave stem_strides out, or take a larger frame for small objects"
        )
    return InternImageDetector(replace(config, backbone=backbone, **detector_options))


def _check_options(given: Mapping[str, Any], config: DetectorConfig | DinoConfig, *set_elsewhere: str) -> None:
    own = {each.name for each in fields(config) if each.init} - {"backbone", "num_classes", *set_elsewhere}
    if unknown := sorted(set(given) - own):
        raise ValueError(f"unknown detector_options {unknown}; known are {sorted(own)}")


def load_pretrained(network: Detector, model: str, pretrained: bool | str, labels: LabelMap) -> None:
    """Put a classifier's backbone, or what fits of a detector, into a new detector.

    Raises:
        ValueError: weights of another architecture, or of no InternImage.
    """
    source = default_weights(model).name if pretrained is True else str(pretrained)
    found = read_checkpoint(locate(source))
    if holds_detector(found):
        _take_detector(network, found, labels)
        return
    backbone = network.backbone
    # Both of a composite's begin as the same.
    parts = (backbone.assisting, backbone.lead) if isinstance(backbone, CompositeInternImage) else (backbone,)
    for part in parts:
        report = load_checkpoint(part, found, strict=False)
        # Where the classifier has no layer scale, the detector's begins at 1, which changes nothing.
        if lost := [key for key in report.missing if "layer_scale" not in key]:
            raise ValueError(
                f"{found.path} lacks the backbone's {', '.join(lost[:3])}; match model_options to its settings"
            )
        log.info("backbone from %s: %s", found.path, report)


def _take_detector(network: Detector, found: Checkpoint, labels: LabelMap) -> None:
    card, state = described(found)
    own = network.state_dict()
    # Released files that name no classes, such as those for 80 and 20 of Objects365's, are cut to the set that follows.
    are_theirs = card.labels is None and card.settings.get("num_classes") == len(labels)
    is_other = card.labels != labels and not are_theirs
    anew = [
        key for key in own if (is_other and _is_of_classes(key)) or (key not in state and key.startswith(_FOR_TRAINING))
    ]
    if wrong := [key for key in own if key not in anew and (key not in state or state[key].shape != own[key].shape)]:
        some = ", ".join(wrong[:3]) + (" ..." if len(wrong) > 3 else "")
        raise ValueError(f"{found.path} is another detector: {some} differ; match model, family and options to it")
    network.load_state_dict({key: tensor for key, tensor in state.items() if key not in anew}, strict=False)
    if are_theirs:
        log.info(
            "%s names no classes: its %d are taken for those of the training set, in its order", found.path, len(labels)
        )
    if is_other:
        log.info("%s was trained for %s: the last layers start anew", found.path, classes_in_words(card.labels))


def _is_of_classes(key: str) -> bool:
    if key.startswith("roi_heads."):
        return key.endswith(_OF_CLASSES)
    if key.startswith(_FOR_TRAINING):
        return True
    return key.startswith("transformer.") and any(part in key for part in _OF_CLASSES_THERE)
