"""Training an image classifier."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from internimage.model import WEIGHTS, Card, InternImageClassifier, create_model, read_checkpoint
from internimage.model.checkpoints.hub import locate
from internimage.structures import LabelMap, Preprocess
from internimage.tasks.base import BaseTask, OptimizerSettings
from internimage.tasks.resuming import classes_in_words

log = logging.getLogger(__name__)


class ClassificationTask(BaseTask):
    """InternImage with its head, cross-entropy (soft targets from mixing), top-1 and top-5 accuracy.

    Args:
        labels: class names; their number is the network's number of outputs.
        preprocess: how images become inputs; travels with the weights.
        model: a name from ``internimage models``.
        pretrained: True for the model's released weights, or a file, a weight name or a hub id; a last layer for
            other classes, or for these in another order, starts anew.
        model_options: further settings of `InternImageConfig`, such as ``drop_path_rate``.
        optimizer: see `OptimizerSettings`.
    """

    network: InternImageClassifier

    def __init__(
        self,
        labels: LabelMap | None = None,
        preprocess: Preprocess | None = None,
        model: str = "internimage_t",
        pretrained: bool | str = False,
        model_options: dict[str, Any] | None = None,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        # Optional only for the command line, which fills both in from the data after reading the configuration.
        if labels is None or preprocess is None:
            raise ValueError("ClassificationTask needs labels and preprocess; take them from its ClassificationData")
        options = {"num_classes": len(labels), "in_chans": preprocess.in_chans, **(model_options or {})}
        network = cast(InternImageClassifier, create_model(model, pretrained=pretrained, **options))
        _forget_other_classes(network, pretrained, labels)
        super().__init__(optimizer or OptimizerSettings(), network.config.depths)
        self.network, self.labels, self.preprocess = network, labels, preprocess
        classes = max(len(labels), 2)
        self.top1 = MulticlassAccuracy(classes, average="micro")
        self.top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))
        self.confusion = MulticlassConfusionMatrix(classes)
        self.mean_loss = MeanMetric()
        # Of the last evaluation: the confusions over all processes, and per image its index, confidence, predicted
        # class and true class.
        self._counts = torch.zeros(classes, classes, dtype=torch.int64)
        self._outcomes: list[Tensor] = []
        # Images of this process so far, repeated ones included.
        self._seen = 0

    def card(self) -> Card:
        """What the weight file says of itself."""
        # Recomputing activations is a choice of one training, not of the network.
        return Card(replace(self.network.config, gradient_checkpointing=False), self.labels, self.preprocess)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Class scores, (N, C)."""
        return self.network(image_NCHW)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy with the batch's targets, class indices (N,) or probabilities (N, C)."""
        image_NCHW, target = batch
        loss = F.cross_entropy(self(image_NCHW), target)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracies over the validation images."""
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracies over the test images."""
        self._evaluate(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Count confusions anew."""
        self._forget()

    def on_test_epoch_start(self) -> None:
        """Count confusions anew."""
        self._forget()

    def on_validation_epoch_end(self) -> None:
        """Gather the confusions of all processes; a trial run before training leaves nothing."""
        self._forget() if self.trainer.sanity_checking else self._gather()

    def on_test_epoch_end(self) -> None:
        """Gather the confusions of all processes."""
        self._gather()

    def _forget(self) -> None:
        self._seen = 0
        self.confusion.reset()
        self._counts = torch.zeros_like(self._counts)
        self._outcomes.clear()

    def _gather(self) -> None:
        # Here every process takes part; the report is written by one alone.
        self._counts = cast(Tensor, self.confusion.compute()).cpu()
        if self.trainer.world_size > 1:
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, self._outcomes)
            self._outcomes = [outcomes for each in everyone for outcomes in each]

    def confusion_counts(self) -> Tensor:
        """Rows are the true classes, columns the predictions, of the last evaluation."""
        return self._counts

    def confident_mistakes(self, count: int) -> list[int]:
        """Indices of the wrong predictions with the highest confidence."""
        if not self._outcomes:
            return []
        index_N, confidence_N, predicted_N, target_N = torch.cat(self._outcomes).unbind(1)
        wrong = (predicted_N != target_N).nonzero().flatten()
        order = confidence_N[wrong].argsort(descending=True)[:count]
        return index_N[wrong[order]].long().tolist()

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Probabilities, (N, C)."""
        return torch.softmax(self(batch[0]).float(), dim=-1)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: Literal["val", "test"]) -> None:
        image_NCHW, target_N = batch
        scores_NC = self(image_NCHW).float()
        index_N, is_new_N = self._indices(len(target_N), stage)
        scores_NC, target_N, index_N = scores_NC[is_new_N], target_N[is_new_N], index_N[is_new_N]
        if len(target_N):
            for metric in (self.top1, self.top5, self.confusion):
                metric.update(scores_NC, target_N)
            self.mean_loss.update(F.cross_entropy(scores_NC, target_N, reduction="none"))
            confidence_N, predicted_N = scores_NC.softmax(-1).max(-1)
            self._outcomes.append(torch.stack((index_N, confidence_N, predicted_N, target_N), dim=1).double().cpu())
        self.log(f"{stage}/loss", self.mean_loss, on_step=False, on_epoch=True)
        self.log(f"{stage}/accuracy", self.top1, prog_bar=True, on_step=False, on_epoch=True)
        self.log(f"{stage}/accuracy_top5", self.top5, on_step=False, on_epoch=True)

    def _indices(self, count: int, split: Literal["val", "test"]) -> tuple[Tensor, Tensor]:
        """Which images of their set come next, and which of them no process has had: repeated ones fill up shares."""
        trainer = self.trainer
        places_N = torch.arange(self._seen, self._seen + count, device=self.device)
        self._seen += count
        # Processes take turns over the images.
        index_N = places_N * trainer.world_size + trainer.global_rank
        return index_N, index_N < len(cast(Any, trainer).datamodule.dataset(split))


def _forget_other_classes(network: InternImageClassifier, source: bool | str, labels: LabelMap) -> None:
    """Start the last layer anew if the weights' file names other classes than the data."""
    # The released weights, of which some are large, name none.
    if not isinstance(source, str) or source in WEIGHTS:
        return
    found = read_checkpoint(locate(source))
    theirs = found.card.labels if found.card and "head.fc.weight" in found.state else None
    if theirs is not None and theirs != labels:
        log.info("%s was trained for %s: the last layer starts anew", found.path, classes_in_words(theirs))
        network.reset_classifier(len(labels))
