"""Training a detector of boxes, or of boxes and masks."""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar, Literal, cast

import torch
import torch.distributed
from torch import Tensor

from internimage.data.detection.dataset import Batch, DetectionDataset
from internimage.inference.views import NotFiniteError, detect
from internimage.model import Card
from internimage.model.checkpoints.detector_files import detector_card
from internimage.model.detection import Detected, Detector, Objects
from internimage.model.detection.dino.federated import FederatedClasses
from internimage.structures import Framing, LabelMap, Views
from internimage.tasks.base import BaseTask, OptimizerSettings
from internimage.tasks.callbacks import DivergedError
from internimage.tasks.detection.building import Family, build, load_pretrained
from internimage.tasks.detection.conventions import Metric, measure
from internimage.tasks.detection.data import DetectionData
from internimage.tasks.detection.precision import (
    AveragePrecision,
    Kind,
    average_precision,
    category_ids,
    coco_judge,
    coco_results,
    coco_truth,
    image_id,
)

log = logging.getLogger(__name__)
Split = Literal["val", "test"]
_SPLITS: dict[str, Split] = {"fit": "val", "validate": "val", "test": "test"}
_PREFIXES: dict[Kind, str] = {"bbox": "", "segm": "mask_"}


class DetectionTask(BaseTask):
    """A detector on InternImage, its losses, and COCO's average precision.

    Args:
        labels: class names.
        preprocess: how pictures become inputs; travels with the weights.
        masks: also instance masks; needs data that has them.
        model: a name from ``internimage models``.
        family: ``rcnn`` (Mask R-CNN), ``cascade`` (Cascade Mask R-CNN), or boxes by a transformer: ``dino``,
            ``deformable_detr``, ``rt_detr_v2``, ``d_fine``. None takes cascades for L and XL, else Mask R-CNN.
        pretrained: True for the model's released classification weights; or a file, weight name or hub id of a
            classifier, of which the backbone is taken, or of a detector, of which all that fits is.
        model_options: further settings of the backbone's `InternImageConfig`, such as ``drop_path_rate``.
        detector_options: further settings of `DetectorConfig` or `DinoConfig`, or of transformers' configuration.
        metrics: further numbers of an evaluation, as other sets than COCO count: see `measure`.
        optimizer: see `OptimizerSettings`.
        test_time: `internimage validate` and `internimage test` look at each picture in several views; during training
            every validation looks once.
    """

    monitor: ClassVar[str] = "val/map"
    is_dense: ClassVar[bool] = True
    network: Detector

    def __init__(
        self,
        labels: LabelMap | None = None,
        preprocess: Framing | None = None,
        masks: bool = True,
        model: str = "internimage_t",
        family: Family | None = None,
        pretrained: bool | str = False,
        model_options: dict[str, Any] | None = None,
        detector_options: dict[str, Any] | None = None,
        metrics: tuple[Metric, ...] = (),
        optimizer: OptimizerSettings | None = None,
        test_time: Views | None = None,
    ) -> None:
        # Optional only for the command line, which fills both in from the data after reading the configuration.
        if labels is None or preprocess is None:
            raise ValueError("DetectionTask needs labels and preprocess; take them from its DetectionData")
        # What is missing shows before the first epoch, not after it.
        coco_judge()
        network = build(model, family, len(labels), masks, model_options or {}, detector_options or {})
        super().__init__(optimizer or OptimizerSettings(), network.config.backbone.depths)
        self.network, self.labels, self.preprocess = network, labels, preprocess
        if pretrained:
            load_pretrained(network, model, pretrained, labels)
        self.test_time = test_time or Views()
        # Of the last evaluation: results in COCO's format by picture, and what they are worth.
        self._results: dict[int, list[dict[str, Any]]] = {}
        self.precisions: dict[Kind, AveragePrecision] = {}
        self.measured: dict[Metric, float] = dict.fromkeys(metrics, math.nan)

    def card(self) -> Card:
        """What the weight file says of itself."""
        return detector_card(self.network.config, self.labels, self.preprocess)

    def forward(self, batch: Batch) -> list[Detected]:
        """What is in each picture."""
        return self.network(batch.images, batch.placements)

    def setup(self, stage: str) -> None:
        """Boxes keep 32 bits: in 16 they would be rounded to whole pixels and more."""
        precision = str(self.trainer.precision)
        if precision.endswith("-true") and precision != "32-true":
            raise ValueError(f"a detector takes trainer.precision 32-true, bf16-mixed or 16-mixed, not {precision}")
        super().setup(stage)
        if stage in _SPLITS:
            views = Views() if stage == "fit" else self.test_time
            dataset = self._dataset(_SPLITS[stage])
            dataset.views = views.of(dataset.framing)
        federated = [each for each in self.network.modules() if isinstance(each, FederatedClasses)]
        if stage == "fit" and federated:
            counts = cast(DetectionData, cast(Any, self.trainer).datamodule).image_counts()
            for each in federated:
                each.set_frequencies(counts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the detector's losses."""
        losses = self.network.losses(batch.images, objects_of(batch), batch.placements)
        total = torch.stack(list(losses.values())).sum()
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, batch_size=len(batch))
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Detect in the validation pictures."""
        self._detect(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Detect in the test pictures."""
        self._detect(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Begin anew."""
        self._results.clear()

    def on_test_epoch_start(self) -> None:
        """Begin anew."""
        self._results.clear()

    def on_validation_epoch_end(self) -> None:
        """Average precision over all validation pictures; a trial run before training measures nothing."""
        if self.trainer.sanity_checking:
            self._results.clear()
        else:
            self._judge("val")

    def on_test_epoch_end(self) -> None:
        """Average precision over all test pictures."""
        self._judge("test")

    def results(self) -> list[dict[str, Any]]:
        """Of the last evaluation, in COCO's result format; of all processes."""
        return [each for index in sorted(self._results) for each in self._results[index]]

    def results_of(self, index: int) -> list[dict[str, Any]]:
        """Of one picture of the last evaluation."""
        return self._results.get(index, [])

    def evaluated(self) -> list[int]:
        """The pictures of the last evaluation, by their indices in the set."""
        return sorted(self._results)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Detected]:
        """What is in each picture."""
        return self(batch)

    def _found(self, batch: Batch) -> list[Detected]:
        if not batch.others:
            return self(batch)
        try:
            return detect(self.network, batch.looks, self.test_time.merging)
        except NotFiniteError as error:
            fix = "lower optimizer.lr or clip gradients (trainer.gradient_clip_val)"
            raise DivergedError(f"the network gives {error}: its training diverged; {fix}") from None

    def _detect(self, batch: Batch, split: Split) -> None:
        source = self._dataset(split).source
        for found, index in zip(self._found(batch), batch.indices, strict=True):
            self._results[index] = coco_results(found, image_id(source, index), category_ids(source))

    def _judge(self, split: Split) -> None:
        self._gather()
        truth, results = coco_truth(self._dataset(split).source, self.evaluated()), self.results()
        has_masks = self.network.config.masks and all("segmentation" in each for each in truth["annotations"])
        kinds: list[Kind] = ["bbox", "segm"] if has_masks else ["bbox"]
        self.precisions = {kind: average_precision(truth, results, kind) for kind in kinds}
        for kind, precision in self.precisions.items():
            for name, value in precision.metrics().items():
                # Nothing to find in a set, or none of a size: then there is no number.
                if value == value:
                    shown = name in ("map", "map50")
                    self.log(f"{split}/{_PREFIXES[kind]}{name}", value, prog_bar=shown, sync_dist=True)
        self.measured = {metric: measure(metric, truth, results) for metric in self.measured}
        for metric, value in self.measured.items():
            if value == value:
                self.log(f"{split}/{metric}", value, sync_dist=True)

    def _gather(self) -> None:
        """Every process gets the results of all; a picture that padding gave to two counts once."""
        if self.trainer.world_size == 1:
            return
        everyone: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(everyone, self._results)
        self._results = {index: rows for each in everyone for index, rows in each.items()}

    def _dataset(self, split: Split) -> DetectionDataset:
        return cast(Any, self.trainer).datamodule.dataset(split)


def objects_of(batch: Batch) -> list[Objects]:
    """The truth as the losses take it."""
    masks = batch.masks or [None] * len(batch)
    return [Objects(*each) for each in zip(batch.boxes, batch.labels, masks, strict=True)]
