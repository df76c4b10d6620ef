"""What a two-stage detector is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from internimage.model.config import InternImageConfig
from internimage.model.variants import letter_of

# Of each cascade stage: standard deviations of the four deltas.
_CASCADE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))

# Released as cascades; and with a layer scale that begins at 1, also T, which has none as a classifier.
_CASCADES, _LAYER_SCALED = ("l", "xl"), ("t", "s", "b", "l", "xl")


@dataclass(frozen=True)
class DetectorConfig:
    """A Mask R-CNN (one stage) or Cascade Mask R-CNN (three) with FPN.

    Source: detection/configs/coco of the released code, 31c962d (DCNv4: 4b848f7); the limits are mmdetection's 2.28
    defaults there.

    Args:
        backbone: the network below; its classes and head do not matter.
        num_classes: C, without a background.
        stages: box heads one after the other, 1 or 3.
        masks: also instance masks.
        fpn_channels: of every pyramid level.
        fpn_norm: layer normalisation after every convolution of the pyramid, which then has no biases (as in ViTDet);
            the released detectors with DCNv4 have it.
        head_convs: 3x3 convolutions with batch normalisation in a box head; 0 in Mask R-CNN, 4 in the cascade.
        head_layers: linear layers after them; 2 in Mask R-CNN, 1 in the cascade.
        head_channels: of these layers.
        finest_scale: boxes of a side below twice this many pixels are read from the finest level.
        proposals_per_level: best proposals of a level that non-maximum suppression sees; in training twice as many.
        proposals: of an image.
        samples: boxes of an image that a box head learns from, a quarter of them on objects if there are so many.
        detections: of an image.
        score_threshold: a score at or below it is no detection.
        nms_threshold: a box that overlaps a better one of its class by a larger IoU goes.
        mask_threshold: a pixel of at least this probability belongs to the object.

    Raises:
        ValueError: a value is outside its range.
    """

    kind: ClassVar[str] = "rcnn"

    backbone: InternImageConfig
    num_classes: int = 80
    stages: int = 1
    masks: bool = True
    fpn_channels: int = 256
    fpn_norm: bool = False
    head_convs: int = 0
    head_layers: int = 2
    head_channels: int = 1024
    finest_scale: int = 56
    proposals_per_level: int = 1000
    proposals: int = 1000
    samples: int = 512
    detections: int = 100
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    mask_threshold: float = 0.5
    stage_stds: tuple[tuple[float, float, float, float], ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.stages not in (1, 3):
            raise ValueError(f"stages must be 1 (Mask R-CNN) or 3 (Cascade Mask R-CNN), got {self.stages}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        object.__setattr__(self, "stage_stds", _CASCADE_STDS[: self.stages])

    @classmethod
    def from_variant(
        cls, name: str, *, num_classes: int = 80, masks: bool = True, cascade: bool | None = None
    ) -> DetectorConfig:
        """The detector of a variant, as released where there is one: Mask R-CNN, for L and XL Cascade Mask R-CNN.

        Args:
            name: as `InternImageConfig.from_variant` takes it.
            cascade: True or False for the other than the released one.

        >>> DetectorConfig.from_variant("t").stages, DetectorConfig.from_variant("l").stages
        (1, 3)
        """
        backbone = InternImageConfig.from_variant(name, num_classes=0)
        letter, normed = letter_of(name), backbone.core == "dcnv4"
        if letter in _LAYER_SCALED:
            backbone = replace(backbone, layer_scale=1.0)
        if (letter in _CASCADES) if cascade is None else cascade:
            return cls(backbone, num_classes, stages=3, masks=masks, fpn_norm=normed, head_convs=4, head_layers=1)
        return cls(backbone, num_classes, masks=masks, fpn_norm=normed)
