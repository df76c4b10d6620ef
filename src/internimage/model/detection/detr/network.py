"""Detectors of the DETR family: the backbone under transformers' encoders and decoders, whose queries become boxes.

Shape legend: N images, L decoder layers, Q queries, C classes, H W of the padded batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, get_args

from torch import Tensor, nn

from internimage.model.backbone import InternImage
from internimage.model.config import InternImageConfig
from internimage.model.detection.detr.transformer import ask, build_transformer, losses_of
from internimage.model.detection.queries import check_positions, detected, placed, target_of
from internimage.model.detection.results import Detected
from internimage.model.detection.targets import Objects
from internimage.structures import Placement

Family = Literal["deformable_detr", "rt_detr_v2", "d_fine"]


@dataclass(frozen=True)
class DetrConfig:
    """A Deformable DETR (with box refinement), RT-DETRv2 or D-FINE.

    Args:
        backbone: the network below; its classes and head do not matter.
        num_classes: C, without a background.
        family: which of the three.
        options: further settings under the names of transformers' configuration of the family, such as
            ``num_queries``, ``d_model``, ``encoder_layers``; values that JSON knows.
        detections: of an image.
        score_threshold: a score at or below it is no detection.
        masks: always False: the family finds boxes.

    Raises:
        ValueError: a value is outside its range. Names and values of ``options`` are checked when the detector is
            built, by transformers.
    """

    kind: ClassVar[str] = "detr"

    backbone: InternImageConfig
    num_classes: int = 80
    family: Family = "rt_detr_v2"
    # A dictionary has no hash; configurations that differ in their options alone share theirs.
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    detections: int = 100
    score_threshold: float = 0.05
    masks: bool = False

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"family must be one of {', '.join(get_args(Family))}, got {self.family!r}")
        if self.num_classes < 1 or self.detections < 1:
            raise ValueError(
                f"num_classes and detections must be at least 1, got {self.num_classes} and {self.detections}"
            )
        if self.masks:
            raise ValueError(
                f"{self.family} finds boxes, no masks; leave masks out, or take a DetectorConfig for masks"
            )
        try:
            # What a file gives back: lists for tuples.
            options = cast(object, json.loads(json.dumps(self.options)))
        except TypeError as error:
            raise ValueError(f"options must be made of values that JSON knows: {error}") from None
        if not isinstance(options, dict):
            raise ValueError(f"options must be names and values of settings, got {self.options!r:.80}")
        object.__setattr__(self, "options", options)

    @classmethod
    def from_variant(
        cls,
        name: str,
        *,
        num_classes: int = 80,
        family: Family = "rt_detr_v2",
        options: Mapping[str, Any] | None = None,
    ) -> DetrConfig:
        """The detector on a variant, whose classification weights fit its backbone.

        Args:
            name: as `InternImageConfig.from_variant` takes it.

        >>> DetrConfig.from_variant("t", family="d_fine", options={"num_queries": 100}).backbone.channels
        64
        """
        return cls(InternImageConfig.from_variant(name, num_classes=0), num_classes, family, options or {})


class InternImageDetr(nn.Module):
    """A detector of the DETR family on InternImage.

    What lies above the backbone is transformers' own, as ``transformer``. Deformable DETR ignores padding; the other
    two have no masks and see it as a part of the picture, and boxes that lie in it are dropped.

    Args:
        config: see `DetrConfig`.

    Raises:
        ImportError: transformers is missing.
        ValueError: an option that the family does not know, or a value that it can't have.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = InternImage(config.backbone)
        self.transformer = build_transformer(config, self.backbone)

    def forward(self, image_NCHW: Tensor, placements: Sequence[Placement] | None = None) -> list[Detected]:
        """What is in each picture.

        Args:
            image_NCHW: normalised, padded with zeros at the right and at the bottom; sides are multiples of 32.
            placements: of each image; by default the batch is what the pictures are.

        Raises:
            ValueError: sides that are no multiples of the backbone's stride, or fewer positions than queries.
        """
        places = self._places(image_NCHW, placements)
        answers = ask(self.transformer, image_NCHW, places)
        sizes = [self._unit(image_NCHW, place) for place in places]
        limit, threshold = self.config.detections, self.config.score_threshold
        return [
            detected(logits[-1], boxes[-1], size, place, limit=limit, threshold=threshold)
            for logits, boxes, size, place in zip(answers.logits, answers.boxes, sizes, places, strict=True)
        ]

    def losses(
        self, image_NCHW: Tensor, truths: Sequence[Objects], placements: Sequence[Placement] | None = None
    ) -> dict[str, Tensor]:
        """What to minimise, by name, already weighted; their sum is the loss. The module must be in training mode.

        Names that end in ``_aux`` sum over the earlier decoder layers (and the proposals), those in ``_dn`` over the
        denoised copies of the truth; a family has the same names for every batch.

        Args:
            image_NCHW: as for `forward`.
            truths: of each image, in its pixels; an image without objects is background.
            placements: as for `forward`.

        Raises:
            ImportError: scipy is missing.
            ValueError: evaluation mode, or as for `forward`.
        """
        if not self.training:
            raise ValueError("losses need the detector in training mode; call detector.train() first")
        places = self._places(image_NCHW, placements)
        targets = [target_of(truth, self._unit(image_NCHW, place)) for truth, place in zip(truths, places, strict=True)]
        answers = ask(self.transformer, image_NCHW, places, targets)
        return losses_of(self.transformer, answers, targets)

    def _places(self, image_NCHW: Tensor, placements: Sequence[Placement] | None) -> list[Placement]:
        strides = self.config.backbone.stage_strides
        places = placed(image_NCHW, placements, strides)
        settings = self.transformer.config
        # Deformable DETR's queries begin without proposals.
        if self.config.family != "deformable_detr":
            size = (image_NCHW.shape[-2], image_NCHW.shape[-1])
            check_positions(size, strides[-settings.num_feature_levels :], settings.num_queries, "num_queries")
        return places

    def _unit(self, image_NCHW: Tensor, place: Placement) -> tuple[int, int]:
        """Height and width in pixels of what the family's boxes are relative to."""
        return place.size if self.config.family == "deformable_detr" else (image_NCHW.shape[-2], image_NCHW.shape[-1])
