"""What a DINO is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from internimage.model.config import InternImageConfig
from internimage.model.variants import letter_of

# Released with a layer scale that begins at 1, also T, which has none as a classifier.
_LAYER_SCALED = ("t", "s", "b", "l", "xl")
# How many objects of an image the released T answers with, and everybody else.
_DETECTIONS = {"t": 100}


@dataclass(frozen=True)
class DinoConfig:
    """A DINO (4 scales) on InternImage, or on two of them as a composite backbone.

    Source: detection/configs/coco/dino_4scale_*.py of the released code, 31c962d; DINO: arXiv:2203.03605.

    Args:
        backbone: the network below; its classes and head do not matter.
        num_classes: C, without a background.
        composite: two backbones, the maps of the first feeding the second (`CompositeInternImage`).
        queries: boxes that the decoder refines.
        encoder_layers: of deformable self-attention over all maps.
        decoder_layers: of refinement.
        channels: of every token, a multiple of ``heads`` and of 32.
        hidden_channels: of the feed-forward layers.
        heads: of every attention.
        points: that a head samples in each map.
        levels: maps, 3 of the backbone and the rest made of its last one.
        dropout: in encoder and decoder, in [0, 1).
        denoising_queries: about how many noisy boxes (and as many worse ones) an image is trained with beside
            ``queries``; 0 trains without them.
        label_noise: twice the probability of a noisy box's wrong label, in [0, 1].
        box_noise: how far a noisy box's corners lie off, in halves of its sides: better ones up to it, worse ones
            from it up to twice it; 0 or more.
        federated_classes: classes that count in the class loss of a batch, as LVIS needs it; 0 for all of them.
        detections: of an image.
        score_threshold: a score at or below it is no detection. The released ones have none.
        masks: always False: DINO finds boxes.

    Raises:
        ValueError: a value is outside its range.
    """

    kind: ClassVar[str] = "dino"

    backbone: InternImageConfig
    num_classes: int = 80
    composite: bool = False
    queries: int = 900
    encoder_layers: int = 6
    decoder_layers: int = 6
    channels: int = 256
    hidden_channels: int = 2048
    heads: int = 8
    points: int = 4
    levels: int = 4
    dropout: float = 0.0
    denoising_queries: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    federated_classes: int = 0
    detections: int = 300
    score_threshold: float = 0.0
    masks: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_classes", "queries", "encoder_layers", "decoder_layers", "hidden_channels", "heads")
        _at_least(self, 1, "points", "detections")
        _at_least(self, 0, "denoising_queries", "federated_classes", "box_noise")
        if self.channels < 1 or self.channels % self.heads or self.channels % 32:
            raise ValueError(f"channels must be a multiple of {self.heads} heads and of 32, got {self.channels}")
        if self.levels < 3:
            raise ValueError(f"levels must be 3 or more, got {self.levels}")
        if not 0 <= self.dropout < 1 or not 0 <= self.label_noise <= 1:
            raise ValueError(
                f"dropout must be in [0, 1) and label_noise in [0, 1], got {self.dropout} and {self.label_noise}"
            )
        if self.masks:
            raise ValueError("dino finds boxes, no masks; leave masks out, or take a DetectorConfig for masks")

    @classmethod
    def from_variant(cls, name: str, *, num_classes: int = 80, composite: bool = False) -> DinoConfig:
        """The detector on a variant, as released where there is one.

        Args:
            name: as `InternImageConfig.from_variant` takes it.

        >>> DinoConfig.from_variant("t").detections, DinoConfig.from_variant("h", composite=True).detections
        (100, 300)
        """
        backbone, letter = InternImageConfig.from_variant(name, num_classes=0), letter_of(name)
        if letter in _LAYER_SCALED:
            backbone = replace(backbone, layer_scale=1.0)
        return cls(backbone, num_classes, composite, detections=_DETECTIONS.get(letter, 300))


def _at_least(config: DinoConfig, least: int, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
