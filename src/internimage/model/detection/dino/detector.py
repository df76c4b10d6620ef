"""A DINO detector: backbone, neck, transformer, and what is minimised.

Shape legend: N images, Q queries, K classes, H W of the padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from internimage.model.backbone import InternImage
from internimage.model.composite import CompositeInternImage
from internimage.model.detection.dino.config import DinoConfig
from internimage.model.detection.dino.denoising import Copies, make_copies, visible
from internimage.model.detection.dino.federated import FederatedClasses
from internimage.model.detection.dino.losses import dino_losses
from internimage.model.detection.dino.neck import ChannelMapper
from internimage.model.detection.dino.positions import lay_out
from internimage.model.detection.dino.start import start
from internimage.model.detection.dino.transformer import Answers, DinoTransformer, Queries
from internimage.model.detection.queries import check_positions, detected, placed, target_of
from internimage.model.detection.results import Detected
from internimage.model.detection.targets import Objects
from internimage.structures import Placement

# The backbone's finest map is not read.
_MAPS = 3
# Of the losses on the maps of a composite's assisting backbone. Source: ``CBDINOHead`` of the released code, 31c962d.
_ASSISTING = 0.5


class InternImageDino(nn.Module):
    """DINO on InternImage. Padding is ignored, and boxes are relative to the picture.

    Args:
        config: see `DinoConfig`.

    Raises:
        ImportError: transformers is missing.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = CompositeInternImage(config.backbone) if config.composite else InternImage(config.backbone)
        self.neck = ChannelMapper(config.backbone.stage_channels[-_MAPS:], config.channels, config.levels)
        self.transformer = DinoTransformer(config)
        # Without noisy copies nothing would teach them.
        self.label_codes = nn.Embedding(config.num_classes, config.channels) if config.denoising_queries else None
        # The training set's frequencies are set by who trains.
        self.federated = (
            FederatedClasses(config.num_classes, config.federated_classes) if config.federated_classes else None
        )
        start(self.transformer)
        self.set_grad_checkpointing(config.backbone.gradient_checkpointing)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks and the transformer's layers in the backward pass, or stop doing so."""
        self.backbone.set_grad_checkpointing(enable)
        self.transformer.checkpointing = enable

    def forward(self, image_NCHW: Tensor, placements: Sequence[Placement] | None = None) -> list[Detected]:
        """What is in each picture.

        Args:
            image_NCHW: normalised, padded with zeros at the right and at the bottom; sides are multiples of 32.
            placements: of each image; by default the batch is what the pictures are.

        Raises:
            ValueError: sides that are no multiples of the backbone's stride, or fewer positions than queries.
        """
        size, places = self._placed(image_NCHW, placements)
        answers = self.answers(self.backbone(image_NCHW), size, places)
        limit, threshold = self.config.detections, self.config.score_threshold
        return [
            detected(logits, boxes, place.size, place, limit=limit, threshold=threshold)
            for logits, boxes, place in zip(answers.logits[-1], answers.boxes[-1], places, strict=True)
        ]

    def answers(
        self,
        maps_NCHW: Sequence[Tensor],
        size: tuple[int, int],
        placements: Sequence[Placement],
        copies: Copies | None = None,
    ) -> Answers:
        """All that is said of the maps of a batch of ``size`` (height, width), also of noisy copies of the truth."""
        tokens = self.neck(maps_NCHW[-_MAPS:])
        queries = None
        if copies is not None and self.label_codes is not None:
            content = self.label_codes(copies.labels) * copies.is_object[..., None]
            queries = Queries(content, copies.logits, visible(copies, self.config.queries))
        return self.transformer(tokens, lay_out(tokens, size, placements), queries)

    def losses(
        self, image_NCHW: Tensor, truths: Sequence[Objects], placements: Sequence[Placement] | None = None
    ) -> dict[str, Tensor]:
        """What to minimise, by name, already weighted; their sum is the loss. The module must be in training mode.

        Names that end in ``_aux`` sum over the earlier decoder layers and the proposals, those in ``_dn`` over the
        noisy copies of the truth; ``assisting_...`` are the same of a composite's assisting backbone. There are the
        same names for every batch.

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
        size, places = self._placed(image_NCHW, placements)
        targets = [target_of(truth, place.size) for truth, place in zip(truths, places, strict=True)]
        boxes, labels = [each["boxes"] for each in targets], [each["class_labels"] for each in targets]
        copies = make_copies(boxes, labels, self.config)
        class_mask_K = None if self.federated is None else self.federated(labels)

        def judge(maps_NCHW: Sequence[Tensor]) -> dict[str, Tensor]:
            answers = self.answers(maps_NCHW, size, places, copies)
            # 16 bits of a box are too few to match and to compare it.
            with torch.autocast(answers.boxes.device.type, enabled=False):
                return self._named(dino_losses(answers, targets, copies, class_mask_K), copies)

        if not isinstance(self.backbone, CompositeInternImage):
            return judge(self.backbone(image_NCHW))
        assisting, lead = self.backbone.forward_both(image_NCHW)
        losses, helped = judge(lead), judge(assisting)
        return losses | {f"assisting_{name}": _ASSISTING * loss for name, loss in helped.items()}

    def _named(self, losses: dict[str, Tensor], copies: Copies | None) -> dict[str, Tensor]:
        """The same names for a batch without objects, and a gradient for all, which parallel training waits for."""
        if self.label_codes is None or copies is not None:
            return losses
        nothing = 0 * self.label_codes.weight.sum()
        return losses | {f"{name}_dn": nothing for name in losses if not name.endswith("_aux")}

    def _placed(
        self, image_NCHW: Tensor, placements: Sequence[Placement] | None
    ) -> tuple[tuple[int, int], list[Placement]]:
        """The batch's height and width, and where its pictures lie."""
        strides = self.config.backbone.stage_strides
        places = placed(image_NCHW, placements, strides)
        size = (image_NCHW.shape[-2], image_NCHW.shape[-1])
        check_positions(size, level_strides(self.config), self.config.queries, "queries")
        return size, places


def level_strides(config: DinoConfig) -> list[int]:
    """Pixels between the positions of each level."""
    strides = list(config.backbone.stage_strides[-_MAPS:])
    return strides + [strides[-1] * 2**more for more in range(1, config.levels - _MAPS + 1)]
