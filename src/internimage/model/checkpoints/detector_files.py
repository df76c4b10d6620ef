"""Files of detectors: ours with everything needed to predict, and the released ones, whose parts are read off.

Importing this module costs no torchvision; loading or building a detector does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from internimage.model.checkpoints.detectors import from_mmdetection, to_mmdetection
from internimage.model.checkpoints.files import (
    CLASSIFICATION,
    DETECTION,
    Card,
    Checkpoint,
    check_target,
    read_checkpoint,
    write_weights,
)
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.loading import all_weights, load_whole, official_backbone
from internimage.model.checkpoints.mmdetection import rules_of
from internimage.model.checkpoints.official.dino import dino_to_official, dino_to_ours, is_dino
from internimage.model.checkpoints.official.dino_rules import dino_rules
from internimage.model.config import InternImageConfig
from internimage.structures import Framing, LabelMap

if TYPE_CHECKING:
    from internimage.model.detection import Detector, DetectorConfig
    from internimage.model.detection.detr import DetrConfig
    from internimage.model.detection.dino import DinoConfig

log = logging.getLogger(__name__)
_KIND, _FRAMING = "kind", "framing"
# mmdetection's hook swaps: a checkpoint's own names hold the average, and these the weights of the last step.
# Source: ``BaseEMAHook`` of mmdet 2.28, core/hook/ema.py.
_RAW = "ema_"
_DETR, _DINO = "detr", "dino"
_BOX, _LATERAL = "roi_heads.box_heads.0.", "fpn.inner_blocks.0.0.weight"
_LATERAL_NORM = "fpn.inner_blocks.0.1.weight"
# Without these a released file does not say how its detector is made.
_TELLING = (_BOX + "cls.weight", _LATERAL)
_ASSISTING, _CODES = "backbone.assisting.", "label_codes.weight"
# In names of detectors of ours: R-CNNs, DINO.
_OURS = ("rpn.", "transformer.class_heads.")


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with its weights, in evaluation mode.

    Args:
        model: the network.
        labels: class names, or None where the file has none.
        framing: how pictures become inputs.
        path: the file.
    """

    model: Detector
    labels: LabelMap | None
    framing: Framing
    path: Path


def save_detector(
    model: Detector,
    path: str | Path,
    *,
    labels: LabelMap | None = None,
    framing: Framing | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``path`` (``.safetensors``) with all that prediction needs, and the same description as JSON beside it.

    Raises:
        ValueError: another suffix, or labels that do not match the model.
        FileExistsError: the file exists and ``overwrite`` is not set.
    """
    check_target(path := Path(path), overwrite=overwrite)
    return write_weights(model, detector_card(model.config, labels, framing), path)


def detector_card(
    config: DetectorConfig | DetrConfig | DinoConfig, labels: LabelMap | None, framing: Framing | None
) -> Card:
    """What a detector's file says of itself; ``ValueError`` if the labels are not the detector's classes."""
    if labels is not None and len(labels) != config.num_classes:
        raise ValueError(f"{len(labels)} class names for a detector of {config.num_classes} classes")
    kept = [each.name for each in fields(config) if each.init and each.name != "backbone"]
    settings: dict[str, Any] = {name: getattr(config, name) for name in kept}
    framed = (framing or Framing()).to_dict()
    return Card(config.backbone, labels, task=DETECTION, settings={_KIND: config.kind, **settings, _FRAMING: framed})


def build_detector(card: Card) -> Detector:
    """The network that a card describes, with random weights; ``ValueError`` for settings of a newer version."""
    settings = {name: value for name, value in card.settings.items() if name not in (_KIND, _FRAMING)}
    try:
        if card.settings.get(_KIND) == _DETR:
            from internimage.model.detection.detr import DetrConfig, InternImageDetr

            return InternImageDetr(DetrConfig(card.config, **settings))
        if card.settings.get(_KIND) == _DINO:
            from internimage.model.detection.dino import DinoConfig, InternImageDino

            return InternImageDino(DinoConfig(card.config, **settings))
        from internimage.model.detection import DetectorConfig, InternImageDetector

        return InternImageDetector(DetectorConfig(card.config, **settings))
    except TypeError as error:
        raise ValueError(f"a detector's description that can't be read: {error}") from None


def load_detector(
    source: str | Path | Checkpoint,
    *,
    ema: bool | None = None,
    limits: Mapping[str, Any] | None = None,
    limits_if_known: Mapping[str, Any] | None = None,
) -> LoadedDetector:
    """A detector from a file of ours, a training checkpoint, or a released one (``.pth``): Mask or Cascade R-CNN, DINO.

    Args:
        source: a file, a folder, a hub id, or a checkpoint that was read already.
        ema: True for the moving average, False for the raw weights, None for the file's main entry; not for a
            checkpoint that was read already.
        limits: settings of the detector that leave its weights alone, such as ``score_threshold``, in place of the
            file's own.
        limits_if_known: the same, for detectors that have them; others do without.

    Raises:
        ValueError: no detector's weights, an unknown architecture, weights that have no place or are missing, a rule
            of the file's training that this package does not follow, or a limit that this kind of detector does not
            have; in words.
    """
    if isinstance(source, Checkpoint) and ema is not None:
        raise ValueError("ema is chosen when the file is read: read_checkpoint(path, ema=...)")
    found = source if isinstance(source, Checkpoint) else read_checkpoint(locate(source), ema=ema)
    card, state = described(found)
    if card.task != DETECTION:
        raise ValueError(f"{found.path} holds a network for {card.task}, not a detector")
    if lacking := sorted(set(limits or {}) - set(card.settings)):
        raise ValueError(f"{found.path} holds a detector without {', '.join(lacking)}; leave that option out")
    known = {name: value for name, value in (limits_if_known or {}).items() if name in card.settings}
    try:
        model = build_detector(replace(card, settings={**card.settings, **(limits or {}), **known}))
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None
    if card.labels is not None and len(card.labels) != model.config.num_classes:
        raise ValueError(
            f"{found.path} names {len(card.labels)} classes, but its network has {model.config.num_classes} of them"
        )
    load_whole(model, state, found.path, "detector")
    return LoadedDetector(model.eval(), card.labels, framing_of(card), found.path)


def official_detector(model: Detector) -> dict[str, Tensor]:
    """A detector's weights under the released code's names; ``ValueError`` for a kind that was never released."""
    state, kind = model.state_dict(), model.config.kind
    if kind == _DETR:
        raise ValueError("a detector of transformers' families has no official form; choose --format ours")
    return dino_to_official(state) if kind == _DINO else to_mmdetection(state)


def framing_of(card: Card) -> Framing:
    """How a detector's pictures become inputs."""
    return Framing.from_dict(cast(dict[str, Any], card.settings.get(_FRAMING, {})))


def described(found: Checkpoint) -> tuple[Card, dict[str, Tensor]]:
    """The card of a detector's file, read off its weights where it has none, and all weights under our names."""
    if found.origin == "ours" and found.card is not None:
        return found.card, all_weights(found)
    if found.card is None and found.origin == "ours" and any(each in key for key in found.foreign for each in _OURS):
        raise ValueError(
            f"{found.path} holds a detector's weights without their description; write it anew with save_detector"
        )
    every = {**found.state, **found.others}
    try:
        # They take our names of the backbone's weights as well as mmdetection's.
        converted = dino_to_ours(every) if is_dino(every) else from_mmdetection(every)
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None
    _check_foreign(found.path, converted.foreign)
    if is_dino(every):
        state = _without_strange_codes(converted.state, found.path)
        return _described_dino(found, state), state
    if lost := [key for key in _TELLING if key not in converted.state]:
        raise ValueError(f"{found.path} is no whole Mask or Cascade R-CNN: it lacks {', '.join(lost)}")
    rules = rules_of(found.said, str(found.path))
    backbone = official_backbone(found, rules.backbone)
    try:
        config = _inferred(backbone, converted.state, rules.settings)
        return detector_card(config, rules.labels, rules.framing), converted.state
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None


def holds_detector(found: Checkpoint) -> bool:
    """Whether a file's weights are a detector's."""
    if found.card is not None and found.card.task != CLASSIFICATION:
        return found.card.task == DETECTION
    return is_dino(found.others) or any(key.startswith("rpn_head.") for key in found.foreign)


def _check_foreign(path: Path, keys: Sequence[str]) -> None:
    """Raise ``ValueError`` for weights that have no place here; those of a moving average's raw twin have none, too."""
    foreign = [key for key in keys if not key.startswith(_RAW)]
    if len(foreign) < len(keys):
        log.info("%s: its raw weights were left out; the moving average beside them was taken", path)
    if foreign:
        some = ", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else "")
        raise ValueError(f"{path} holds {len(foreign)} weights that no detector here has: {some}")


def _without_strange_codes(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Codes of labels are for training alone; heads that were cut to other classes may have left theirs behind."""
    classes = state.get("transformer.class_heads.0.bias")
    if classes is None or _CODES not in state or len(state[_CODES]) == len(classes):
        return state
    log.warning(
        "%s: its %s labels for denoising are not its %s classes: they are left out, and training from it denoises "
        "only where it is asked to",
        path,
        len(state[_CODES]),
        len(classes),
    )
    return {key: tensor for key, tensor in state.items() if key != _CODES}


def _described_dino(found: Checkpoint, state: Mapping[str, Tensor]) -> Card:
    from internimage.model.detection.dino import DinoConfig

    rules = dino_rules(found.said, str(found.path))
    settings: dict[str, Any] = dict(rules.settings) if _CODES in state else {**rules.settings, "denoising_queries": 0}
    assisting = {key.replace(_ASSISTING, "backbone.", 1): each for key, each in state.items() if _ASSISTING in key}
    backbone = official_backbone(replace(found, state=assisting or found.state), rules.backbone)
    try:
        shapes = {key: tuple(each.shape) for key, each in state.items()}
        attention, layers = "transformer.encoder.0.self_attn.", [key.split(".") for key in state]
        heads = DinoConfig(backbone).heads
        levels, channels = shapes["transformer.level_codes"]
        config = DinoConfig(
            backbone,
            num_classes=shapes["transformer.class_heads.0.bias"][0],
            composite=bool(assisting),
            queries=shapes["transformer.queries.weight"][0],
            encoder_layers=1 + max(int(each[2]) for each in layers if each[:2] == ["transformer", "encoder"]),
            decoder_layers=1 + max(int(each[2]) for each in layers if each[:2] == ["transformer", "decoder"]),
            channels=channels,
            hidden_channels=shapes["transformer.encoder.0.mlp.fc1.bias"][0],
            points=shapes[attention + "attention_weights.bias"][0] // (heads * levels),
            levels=levels,
            **settings,
        )
        return detector_card(config, rules.labels, rules.framing)
    except KeyError as error:
        raise ValueError(f"{found.path} is no whole DINO: it lacks {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None


def _inferred(backbone: InternImageConfig, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> DetectorConfig:
    """What the shapes say; limits and thresholds, which no weight shows, come from the file's configuration."""
    from internimage.model.detection import DetectorConfig

    stages = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("roi_heads.box_heads."))
    return DetectorConfig(
        backbone,
        num_classes=state[_BOX + "cls.weight"].shape[0] - 1,
        stages=stages,
        masks=any(key.startswith("roi_heads.mask_heads.") for key in state),
        fpn_channels=state[_LATERAL].shape[0],
        fpn_norm=_LATERAL_NORM in state,
        head_convs=sum(key.startswith(_BOX + "convs.") and key.endswith("conv.weight") for key in state),
        head_layers=sum(key.startswith(_BOX + "layers.") and key.endswith("weight") for key in state),
        head_channels=state[_BOX + "cls.weight"].shape[1],
        **settings,
    )
