"""Training a segmenter: the class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.distributed
from torch import Tensor

from internimage.data.segmentation.dataset import Batch, SegmentationDataset
from internimage.inference.scanning import Look, label_map, normalized
from internimage.inference.segmentation import check_scales, looks_at
from internimage.model import Card
from internimage.model.checkpoints.segmenter_files import segmenter_card
from internimage.model.segmentation import HeadName, InternImageSegmenter
from internimage.structures import Colour, LabelMap, Measures, Viewing
from internimage.tasks.base import BaseTask, OptimizerSettings
from internimage.tasks.callbacks import DivergedError
from internimage.tasks.segmentation.building import build, checked_weights, load_pretrained
from internimage.tasks.segmentation.confusions import confusions

Split = Literal["val", "test"]


class SegmentationTask(BaseTask):
    """A segmenter on InternImage, its losses, and mean intersection over union.

    Args:
        labels: class names.
        preprocess: how pictures are shown to it; travels with the weights.
        palette: a colour per class, for pictures of what it finds.
        model: a name from ``internimage models``.
        head: ``upernet``, ``segformer`` (convolutions alone, the lightest) or ``mask2former``.
        pretrained: True for the model's released classification weights; or a file, weight name or hub id of a
            classifier, of which the backbone is taken, or of a segmenter, of which all that fits is.
        model_options: further settings of the backbone's `InternImageConfig`, such as ``drop_path_rate``.
        head_options: further settings of `SegmenterConfig`, such as ``channels``.
        optimizer: see `OptimizerSettings`.
        class_weights: what a pixel of each class counts in the losses of ``upernet`` and ``segformer``, in the order of
            the classes; by default 1. More for rare classes raises their share, and with it the mean IoU.
        test_scales: testing looks at each picture at several sizes, such as ``[0.75, 1, 1.25]`` times its usual one;
            validation does not.
        test_flip: testing looks at each picture also from left to right.
    """

    monitor: ClassVar[str] = "val/miou"
    is_dense: ClassVar[bool] = True
    network: InternImageSegmenter

    def __init__(
        self,
        labels: LabelMap | None = None,
        preprocess: Viewing | None = None,
        palette: tuple[Colour, ...] | None = None,
        model: str = "internimage_t",
        head: HeadName = "upernet",
        pretrained: bool | str = False,
        model_options: dict[str, Any] | None = None,
        head_options: dict[str, Any] | None = None,
        optimizer: OptimizerSettings | None = None,
        class_weights: tuple[float, ...] | None = None,
        test_scales: tuple[float, ...] = (),
        test_flip: bool = False,
    ) -> None:
        # Optional only for the command line, which fills them in from the data after reading the configuration.
        if labels is None or preprocess is None:
            raise ValueError("SegmentationTask needs labels and preprocess; take them from its SegmentationData")
        check_scales(test_scales)
        network = build(model, head, len(labels), model_options or {}, head_options or {})
        super().__init__(optimizer or OptimizerSettings(), network.config.backbone.depths)
        self.class_weights = checked_weights(class_weights, network.config)
        self.network, self.labels, self.preprocess, self.palette = network, labels, preprocess, palette
        if pretrained:
            load_pretrained(network, model, pretrained, labels)
        self.test_scales, self.test_flip = tuple(test_scales), test_flip
        # Of the last evaluation: confusions of all pictures, and the share of right pixels of each.
        self.confusion = torch.zeros(len(labels), len(labels), dtype=torch.int64)
        self._right: dict[int, float] = {}

    def card(self) -> Card:
        """What the weight file says of itself."""
        return segmenter_card(self.network.config, self.labels, self.palette, self.preprocess)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Scores of normalised images, (N, C, H/4, W/4)."""
        return self.network(self._own(image_NCHW))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the head's losses."""
        image_NCHW = self._own(normalized(torch.stack(batch.images), self.preprocess))
        labels_NHW, weights = torch.stack(batch.labels).long(), self.class_weights
        # The losses are in float32, whatever the trainer makes the default.
        weights_C = None if weights is None else image_NCHW.new_tensor(weights, dtype=torch.float32)
        losses = self.network.losses(image_NCHW, labels_NHW, weights_C)
        total = torch.stack(list(losses.values())).sum()
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, batch_size=len(batch))
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the confusions in validation pictures."""
        self._count(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the confusions in test pictures."""
        self._count(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Begin anew."""
        self._forget()

    def on_test_epoch_start(self) -> None:
        """Begin anew."""
        self._forget()

    def on_validation_epoch_end(self) -> None:
        """The measures of all validation pictures; a trial run before training measures nothing."""
        self._forget() if self.trainer.sanity_checking else self._judge("val")

    def on_test_epoch_end(self) -> None:
        """The measures of all test pictures."""
        self._judge("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Tensor]:
        """The label map of each picture, (H, W) of uint8, at the size of its truth."""
        return [self.segment(*each) for each in zip(batch.images, batch.labels, strict=True)]

    def segment(self, pixels_CHW: Tensor, truth_HW: Tensor) -> Tensor:
        """The class of each pixel as prediction finds it, (H, W) of uint8 on the CPU.

        Args:
            pixels_CHW: of uint8, as the data shows a picture.
            truth_HW: whose size the label map gets.
        """
        size = (truth_HW.shape[-2], truth_HW.shape[-1])
        return self._label([Look(pixels_CHW, self.preprocess)], size)

    def _label(self, looks: Sequence[Look], size: tuple[int, int]) -> Tensor:
        try:
            return label_map(self, looks, size)
        except ValueError as error:
            fix = "lower optimizer.lr or clip gradients (trainer.gradient_clip_val)"
            raise DivergedError(f"the network gives {error}: its training diverged; {fix}") from None

    def _own(self, image_NCHW: Tensor) -> Tensor:
        """Of the weights' type, which the trainer's ``bf16-true`` and ``16-true`` change."""
        return image_NCHW.to(next(self.network.parameters()).dtype)

    def measures(self) -> Measures:
        """Of the last evaluation."""
        return Measures.of(self.confusion.numpy())

    def accuracies(self) -> dict[int, float]:
        """Of each picture of the last evaluation, by its index: the share of its pixels that is right, if any count."""
        return self._right

    def _forget(self) -> None:
        self.confusion = torch.zeros_like(self.confusion)
        self._right = {}

    def find(self, index: int, pixels_CHW: Tensor, truth_HW: Tensor, split: Split) -> Tensor:
        """The label map of a picture of a split, as that split is measured; the others as for `segment`."""
        if split == "val" or not (self.test_scales or self.test_flip):
            return self.segment(pixels_CHW, truth_HW)
        image = self.dataset(split).source.read(index).image
        looks = looks_at(image, self.preprocess, self.test_scales, flip=self.test_flip, device=self.device)
        return self._label(looks, (image.height, image.width))

    def _count(self, batch: Batch, split: Split) -> None:
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        for pixels_CHW, truth_HW, index in zip(batch.images, batch.labels, batch.indices, strict=True):
            # Processes take turns over the pictures; one that fills up a shorter share belongs to another process.
            if index % processes != rank:
                continue
            found_HW = self.find(index, pixels_CHW, truth_HW, split)
            counts_CC = confusions(truth_HW.cpu(), found_HW, len(self.labels))
            self.confusion += counts_CC
            self._right[index] = Measures.of(counts_CC.numpy()).pixel_accuracy

    def _judge(self, split: Split) -> None:
        if self.trainer.world_size > 1:
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, (self.confusion, self._right))
            self.confusion = torch.stack([counts_CC for counts_CC, _ in everyone]).sum(0)
            self._right = {index: share for _, right in everyone for index, share in right.items()}
        for name, value in self.measures().metrics().items():
            # Where every pixel is ignored there is no number.
            if value == value:
                self.log(f"{split}/{name}", value, prog_bar=name == "miou", sync_dist=True)

    def dataset(self, split: Split) -> SegmentationDataset:
        """The pictures that were evaluated."""
        return cast(Any, self.trainer).datamodule.dataset(split)
