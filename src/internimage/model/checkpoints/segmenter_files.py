"""Files of segmenters: ours with everything needed to predict, and the released ones, whose parts are read off.

Importing this module costs no transformers; loading or building a segmenter does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from internimage.model.checkpoints.files import (
    CLASSIFICATION,
    SEGMENTATION,
    Card,
    Checkpoint,
    check_target,
    read_checkpoint,
    write_weights,
)
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.loading import all_weights, load_whole, official_backbone
from internimage.model.checkpoints.mmsegmentation import SETTINGS, STREET, Head, configuration_of, is_colour, rules_of
from internimage.model.checkpoints.segmenters import from_mmsegmentation, to_mmsegmentation
from internimage.model.config import InternImageConfig
from internimage.model.weights import SEGMENTERS
from internimage.structures import Colour, LabelMap, Viewing

if TYPE_CHECKING:
    from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig

_VIEWING, _PALETTE = "viewing", "palette"
_CLASSIFIER, _PREDICTOR = "decode_head.classifier.weight", "decode_head.class_predictor.weight"
_BOTTLENECK, _FUSION = "decode_head.bottleneck.conv.weight", "decode_head.fusion_conv.conv.weight"
_AUXILIARY = "auxiliary_head.classifier.weight"
_ENCODER, _DECODER = "decode_head.pixel_decoder.encoder.layers.", "decode_head.transformer_module.decoder.layers."
_QUERIES, _OFFSETS = (
    "decode_head.transformer_module.queries_features.weight",
    _ENCODER + "0.self_attn.sampling_offsets.bias",
)
# Without these a released file does not say how its segmenter is made.
_TELLING: dict[Head, tuple[str, ...]] = {
    "upernet": (_CLASSIFIER, _BOTTLENECK),
    "segformer": (_CLASSIFIER, _FUSION),
    "mask2former": (_PREDICTOR, _QUERIES, _OFFSETS, _ENCODER + "0.fc1.weight", _DECODER + "0.fc1.weight"),
}
_NAMES: dict[Head, str] = {"upernet": "UPerNet", "segformer": "SegFormer", "mask2former": "Mask2Former"}
# Offsets per attention head in Mask2Former's pixel decoder: x and y of 4 points on each of 3 levels.
_OFFSETS_PER_HEAD = 3 * 4 * 2


@dataclass(frozen=True)
class LoadedSegmenter:
    """A segmenter with its weights, in evaluation mode.

    Args:
        model: the network.
        labels: class names, or None where the file has none.
        palette: a colour per class, or None where the file has none.
        viewing: how pictures become inputs.
        path: the file.
    """

    model: InternImageSegmenter
    labels: LabelMap | None
    palette: tuple[Colour, ...] | None
    viewing: Viewing
    path: Path


def save_segmenter(
    model: InternImageSegmenter,
    path: str | Path,
    *,
    labels: LabelMap | None = None,
    palette: Sequence[Colour] | None = None,
    viewing: Viewing | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``path`` (``.safetensors``) with all that prediction needs, and the same description as JSON beside it.

    Raises:
        ValueError: another suffix, or labels or a palette that do not match the model.
        FileExistsError: the file exists and ``overwrite`` is not set.
    """
    check_target(path := Path(path), overwrite=overwrite)
    return write_weights(model, segmenter_card(model.config, labels, palette, viewing), path)


def segmenter_card(
    config: SegmenterConfig, labels: LabelMap | None, palette: Sequence[Colour] | None, viewing: Viewing | None
) -> Card:
    """What a segmenter's file says of itself.

    Args:
        palette: red, green and blue from 0 to 255 per class.

    Raises:
        ValueError: names or colours are not as many as the segmenter's classes, or a colour is none.
    """
    for given, what in ((labels, "class names"), (palette, "colours")):
        if given is not None and len(given) != config.num_classes:
            raise ValueError(f"{len(given)} {what} for a segmenter of {config.num_classes} classes")
    colours = None if palette is None else [list(_colour(each)) for each in palette]
    kept = [each.name for each in fields(config) if each.init and each.name != "backbone"]
    settings: dict[str, Any] = {name: getattr(config, name) for name in kept}
    # JSON knows no tuples, and a card is the same before and after.
    settings = {name: list(cast(Any, each)) if isinstance(each, tuple) else each for name, each in settings.items()}
    shown = (viewing or Viewing()).to_dict()
    settings |= {_VIEWING: shown, _PALETTE: colours}
    return Card(config.backbone, labels, task=SEGMENTATION, settings=settings)


def _colour(given: Any) -> Colour:
    if not is_colour(given):
        raise ValueError(f"a colour must be red, green and blue from 0 to 255, got {given!r}")
    return cast(Colour, tuple(given))


def build_segmenter(card: Card) -> InternImageSegmenter:
    """The network that a card describes, with random weights; ``ValueError`` for settings of a newer version."""
    from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig

    settings = {name: value for name, value in card.settings.items() if name not in (_VIEWING, _PALETTE)}
    try:
        config = SegmenterConfig(card.config, **settings)
    except TypeError as error:
        raise ValueError(f"a segmenter's description that can't be read: {error}") from None
    return InternImageSegmenter(config)


def load_segmenter(source: str | Path | Checkpoint, *, ema: bool | None = None) -> LoadedSegmenter:
    """A segmenter from a file of ours, a training checkpoint, or a released one (``.pth``).

    Args:
        source: a file, a folder, a name of a released segmenter, a hub id, or a checkpoint that was read already.
        ema: True for the moving average, False for the raw weights, None for the file's main entry; not for a
            checkpoint that was read already.

    Raises:
        ImportError: transformers is missing, which UPerNet and Mask2Former are made of.
        ValueError: no segmenter's weights, an unknown architecture, weights that have no place or are missing, or a
            rule of the file's training that this package does not follow; in words.
    """
    if isinstance(source, Checkpoint) and ema is not None:
        raise ValueError("ema is chosen when the file is read: read_checkpoint(path, ema=...)")
    found = source if isinstance(source, Checkpoint) else read_checkpoint(locate(source), ema=ema)
    card, state = described(found)
    if card.task != SEGMENTATION:
        raise ValueError(f"{found.path} holds a network for {card.task}, not a segmenter")
    try:
        viewing, palette, model = viewing_of(card), palette_of(card), build_segmenter(card)
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None
    classes = model.config.num_classes
    for given, what in ((card.labels, "names"), (palette, "colours")):
        if given is not None and len(given) != classes:
            raise ValueError(f"{found.path} {what} {len(given)} classes, but its network has {classes} of them")
    load_whole(model, state, found.path, "segmenter")
    return LoadedSegmenter(model.eval(), card.labels, palette, viewing, found.path)


def viewing_of(card: Card) -> Viewing:
    """How a segmenter's pictures become inputs; ``ValueError`` for settings of a newer version."""
    return Viewing.from_dict(cast(dict[str, Any], card.settings.get(_VIEWING) or {}))


def palette_of(card: Card) -> tuple[Colour, ...] | None:
    """A segmenter's colour per class, or None where its file has none; ``ValueError`` if one is no colour."""
    given = cast("list[Any] | None", card.settings.get(_PALETTE))
    return None if given is None else tuple(map(_colour, given))


def described(found: Checkpoint) -> tuple[Card, dict[str, Tensor]]:
    """The card of a segmenter's file, read off its weights where it has none, and all weights under our names.

    A network's outputs are counted in its weights: released ones for streets have 150, of which 19 were trained.
    """
    if found.origin == "ours" and found.card is not None:
        return found.card, all_weights(found)
    if found.origin == "ours" and holds_segmenter(found):
        raise ValueError(
            f"{found.path} holds a segmenter's weights without their description; write it anew with save_segmenter"
        )
    try:
        # It takes our names of the backbone's weights as well as mmsegmentation's.
        converted = from_mmsegmentation({**found.state, **found.others})
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None
    if foreign := converted.foreign:
        some = ", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else "")
        raise ValueError(f"{found.path} holds {len(foreign)} weights that no segmenter here has: {some}")
    state, head = converted.state, _head_in(converted.state)
    if lost := [key for key in _TELLING[head] if key not in state]:
        raise ValueError(f"{found.path} is no whole {_NAMES[head]}: it lacks {', '.join(lost)}")
    classes = state[_PREDICTOR].shape[0] - 1 if head == "mask2former" else state[_CLASSIFIER].shape[0]
    said, usual = _published(found, head, classes)
    rules = rules_of(said, str(found.path), head, classes, usual)
    backbone = official_backbone(found, rules.backbone)
    try:
        config = _inferred(backbone, state, head, classes, rules.settings)
        return segmenter_card(config, rules.labels, rules.palette, rules.viewing), state
    except (ValueError, TypeError) as error:
        raise ValueError(f"{found.path}: {error}") from None


def holds_segmenter(found: Checkpoint) -> bool:
    """Whether a file's weights are a segmenter's."""
    if found.card is not None and found.card.task != CLASSIFICATION:
        return found.card.task == SEGMENTATION
    return any(key.startswith("decode_head.") for key in found.foreign)


def official_contents(
    model: InternImageSegmenter,
    labels: LabelMap | None = None,
    palette: Sequence[Colour] | None = None,
    viewing: Viewing | None = None,
) -> dict[str, Any]:
    """What mmsegmentation would write of a segmenter, for ``torch.save``; `load_segmenter` reads it back.

    Raises:
        ValueError: mmsegmentation has no such backbone.
    """
    config = model.config
    backbone = {name: each for name, each in config.backbone.to_official().items() if name != "num_classes"}
    settings = {name: getattr(config, name) for name in SETTINGS[config.head]}
    text = configuration_of(backbone, config.head, settings, viewing or Viewing())
    names = {} if labels is None else {"CLASSES": tuple(labels)}
    colours = {} if palette is None else {"PALETTE": [list(each) for each in palette]}
    return {"state_dict": to_mmsegmentation(model.state_dict()), "meta": {**names, **colours, "config": text}}


def _head_in(state: Mapping[str, Tensor]) -> Head:
    if _PREDICTOR in state:
        return "mask2former"
    return "segformer" if _FUSION in state else "upernet"


def _published(found: Checkpoint, head: Head, classes: int) -> tuple[Mapping[str, Any], Viewing]:
    """What a file says, or was published to say; and how its pictures are shown if it does not say that."""
    row = next((each for each in SEGMENTERS.values() if each.file == found.path.name), None)
    if row is None:
        street = head == "segformer" or classes == len(STREET)
        return found.said, Viewing((1024, 2048)) if street else Viewing((512, 2048), 32)
    if row.data.endswith(("Cityscapes", "Mapillary Vistas")):
        # On Mapillary, the names and colours inside are those of its 66 classes.
        palette = found.said.get("PALETTE") if found.said.get("CLASSES") == STREET else None
        return {**found.said, "CLASSES": STREET, "PALETTE": palette}, row.viewing
    return found.said, row.viewing


def _inferred(
    backbone: InternImageConfig, state: Mapping[str, Tensor], head: Head, classes: int, settings: Mapping[str, Any]
) -> SegmenterConfig:
    """What the shapes say; what no weight shows comes from the file's configuration."""
    from internimage.model.segmentation import SegmenterConfig

    if head != "mask2former":
        auxiliary = any(key.startswith("auxiliary_head.") for key in state)
        shapes: dict[str, Any] = {"channels": state[_CLASSIFIER].shape[1], "auxiliary": auxiliary}
        if _AUXILIARY in state:
            shapes["auxiliary_channels"] = state[_AUXILIARY].shape[1]
    else:
        queries, channels = state[_QUERIES].shape
        shapes = {
            "channels": channels,
            "queries": queries,
            "encoder_layers": _layers(state, _ENCODER),
            "decoder_layers": _layers(state, _DECODER),
            "heads": state[_OFFSETS].shape[0] // _OFFSETS_PER_HEAD,
            "encoder_feedforward": state[_ENCODER + "0.fc1.weight"].shape[0],
            "decoder_feedforward": state[_DECODER + "0.fc1.weight"].shape[0],
        }
    return SegmenterConfig(backbone, classes, head, **shapes, **settings)


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})
