"""From a weight file, name or hub id to a network that is ready to predict."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from internimage.data.class_names import imagenet_labels
from internimage.model import WEIGHTS, Card, InternImageClassifier, infer_config, load_checkpoint, read_checkpoint
from internimage.model.checkpoints.detector_files import holds_detector
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.segmenter_files import holds_segmenter
from internimage.structures import LabelMap, Preprocess

log = logging.getLogger(__name__)


def load_classifier(source: str | Path, *, ema: bool | None = None) -> tuple[InternImageClassifier, Card]:
    """A classifier in evaluation mode and its card, with labels and preprocessing always filled in.

    Args:
        source: a file (ours, a training checkpoint, an official ``.pth``), a folder (a run's, Hugging Face's), a name
            from the weight table, or a hub id. Files that don't say how images were prepared get the official
            evaluation at the size of the released weights of that name, or 224 pixels.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.

    Raises:
        ValueError: no classifier's weights, no known architecture, or a description that contradicts the weights.
    """
    found = read_checkpoint(locate(source), ema=ema)
    if holds_detector(found):
        raise ValueError(
            f"{found.path} is a detector: it finds objects and names no whole image; load it as a Detector"
        )
    if holds_segmenter(found):
        raise ValueError(f"{found.path} is a segmenter: it names pixels and no whole image; load it as a Segmenter")
    config = infer_config(found)
    # A backbone's description may still speak of the classes it was configured for.
    if not config.num_classes or "head.fc.weight" not in found.state:
        raise ValueError(f"{found.path} is a backbone without a classification head: it can't name classes")
    model = InternImageClassifier(config)
    load_checkpoint(model, found)
    card = found.card or Card(config)
    labels = card.labels or imagenet_labels(config.num_classes) or LabelMap.numbered(config.num_classes)
    preprocess = card.preprocess or Preprocess(size=published_size(source, found.path))
    if len(labels) != config.num_classes:
        raise ValueError(f"{found.path} names {len(labels)} classes, but its network has {config.num_classes} outputs")
    if preprocess.in_chans != config.in_chans:
        raise ValueError(
            f"{found.path} takes images of {config.in_chans} channels and does not say how they are prepared; "
            "save it again with save_checkpoint(..., preprocess=...)"
        )
    return model.eval(), Card(config, labels, preprocess)


def pick_device(name: str | None) -> torch.device:
    """The named device, or the fastest one here; raises ``ValueError`` for one that is not here."""
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available here ({str(error).splitlines()[0]}); try cpu") from None


def published_size(source: str | Path, path: Path) -> int:
    """Pixels of the images that released weights were evaluated on; 224, with a warning, for other files."""
    for row in WEIGHTS.values():
        if str(source) in (row.name, row.model_repository) or path.name == row.file:
            return row.image_size
    log.warning("%s does not say how images are prepared: the official evaluation at 224 pixels is used", path)
    return 224
