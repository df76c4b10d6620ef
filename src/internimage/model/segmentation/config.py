"""What a segmenter is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from internimage.model.config import InternImageConfig
from internimage.model.variants import letter_of
from internimage.structures import MOST_CLASSES

HeadName = Literal["upernet", "segformer", "mask2former"]

# Released with a layer scale that begins at 1, also T, which has none as a classifier.
_LAYER_SCALED = ("t", "s", "b", "l", "xl")
_CHANNELS: dict[HeadName, int] = {"upernet": 512, "segformer": 256, "mask2former": 256}
# Mask2Former as released: queries of the wide form, and channels of an attention head.
_QUERIES, _HEAD_WIDTH = {1024: 200}, 32
# Mask2Former normalises groups of channels, so many.
_NORM_GROUPS = 32
_INTEGERS = (
    *("num_classes", "channels", "auxiliary_channels", "queries", "encoder_layers", "decoder_layers", "heads"),
    *("encoder_feedforward", "decoder_feedforward", "points"),
)


@dataclass(frozen=True)
class SegmenterConfig:
    """A UPerNet, SegFormer's head or a Mask2Former on InternImage.

    Source: segmentation/configs of the released code, 31c962d, for DCNv4 4b848f7.

    Args:
        backbone: the network below; its classes and head do not matter.
        num_classes: C; Mask2Former's "no object" comes on top.
        head: ``"upernet"``, ``"segformer"`` or ``"mask2former"``.
        channels: width of the head; released are 512 (UPerNet), 256 (SegFormer), 256 and 1024 (Mask2Former).
        dropout: of whole maps before the classifier of UPerNet and SegFormer, in [0, 1); Mask2Former has none.
        pool_scales: UPerNet's pooled maps have so many positions along each side.
        auxiliary: UPerNet learns through a second head on stage 3 as well.
        auxiliary_channels: of that head.
        auxiliary_weight: of its loss.
        queries: Mask2Former's masks of an image.
        encoder_layers: Mask2Former's layers of deformable attention among strides 8, 16 and 32.
        decoder_layers: Mask2Former's layers of masked attention.
        heads: of Mask2Former's attention.
        encoder_feedforward: hidden channels in an encoder layer.
        decoder_feedforward: hidden channels in a decoder layer.
        points: of a mask that Mask2Former's losses look at.

    Raises:
        ValueError: a value is outside its range.
    """

    backbone: InternImageConfig
    num_classes: int = 150
    head: HeadName = "upernet"
    channels: int = 512
    dropout: float = 0.1
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary: bool = False
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    queries: int = 100
    encoder_layers: int = 6
    decoder_layers: int = 9
    heads: int = 8
    encoder_feedforward: int = 1024
    decoder_feedforward: int = 2048
    points: int = 12544

    def __post_init__(self) -> None:
        scales: Any = self.pool_scales
        # JSON and YAML bring lists; a frozen value is hashable.
        scales = tuple(cast(Iterable[Any], scales)) if isinstance(scales, Iterable) else ()
        if not scales or not all(type(scale) is int and scale >= 1 for scale in scales):
            raise ValueError(f"pool_scales must be positive numbers of positions, got {self.pool_scales!r}")
        object.__setattr__(self, "pool_scales", scales)
        if self.head not in get_args(HeadName):
            raise ValueError(f"head must be one of {', '.join(get_args(HeadName))}, got {self.head!r}")
        for name in _INTEGERS:
            value: Any = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.num_classes > MOST_CLASSES:
            raise ValueError(f"num_classes must be at most {MOST_CLASSES}, got {self.num_classes}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a number in [0, 1), got {self.dropout!r}")
        if type(self.auxiliary_weight) not in (int, float) or not 0 <= self.auxiliary_weight < math.inf:
            raise ValueError(f"auxiliary_weight must be a number of at least 0, got {self.auxiliary_weight!r}")
        self._check_head()

    def _check_head(self) -> None:
        if type(self.auxiliary) is not bool:
            raise ValueError(f"auxiliary must be True or False, got {self.auxiliary!r}")
        if self.auxiliary and self.head != "upernet":
            raise ValueError(f"auxiliary is a part of upernet; leave it out for {self.head}")
        if self.head != "mask2former":
            if self.num_classes == 1:
                raise ValueError(
                    f"{self.head} gives every pixel one of its classes, so it needs at least 2, such as background "
                    "and object; got 1"
                )
            return
        if self.channels % _NORM_GROUPS or self.channels % self.heads:
            raise ValueError(
                f"mask2former needs channels that are a multiple of {_NORM_GROUPS} and of its heads, "
                f"got {self.channels} channels and {self.heads} heads"
            )

    @classmethod
    def from_variant(
        cls,
        name: str,
        *,
        num_classes: int = 150,
        head: HeadName = "upernet",
        channels: int | None = None,
        queries: int | None = None,
    ) -> SegmenterConfig:
        """The segmenter of a variant, as released where there is one; UPerNet then has its auxiliary head.

        Args:
            name: as `InternImageConfig.from_variant` takes it.
            num_classes: released UPerNets and SegFormers have 150, also for Cityscapes and Mapillary.
            channels: by default 512 for UPerNet, else 256; Mask2Former was released with 1024 as well.
            queries: by default 200 for the Mask2Former of 1024 channels and with DCNv4 from S on, else 100.

        >>> SegmenterConfig.from_variant("h", head="mask2former", channels=1024).queries
        200
        """
        backbone = InternImageConfig.from_variant(name, num_classes=0)
        if letter_of(name) in _LAYER_SCALED:
            backbone = replace(backbone, layer_scale=1.0)
        width = _CHANNELS.get(head, _CHANNELS["upernet"]) if channels is None else channels
        if head != "mask2former":
            return cls(backbone, num_classes, head, width, auxiliary=head == "upernet")
        large = backbone.core == "dcnv4" and letter_of(name) != "t"
        usual = _QUERIES[1024] if large else _QUERIES.get(width, 100)
        return cls(
            backbone,
            num_classes,
            head,
            width,
            queries=usual if queries is None else queries,
            heads=max(width // _HEAD_WIDTH, 1),
            encoder_feedforward=8 * width if large else 4 * width,
            # As released for 256 and 1024 channels.
            decoder_feedforward=max(4 * width, 2048),
        )
