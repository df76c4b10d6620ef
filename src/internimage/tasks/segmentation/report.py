"""The page and pictures that a segmentation run leaves in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from internimage.data.segmentation.palettes import find_palette
from internimage.tasks.callbacks import History
from internimage.tasks.reports import REPORT_FILE, commands, common_tiles, run_files, save_pictures, text_of
from internimage.tasks.segmentation.data import SegmentationData
from internimage.tasks.segmentation.task import SegmentationTask, Split
from internimage.visualization.confusion import class_table
from internimage.visualization.curves import curves_figure
from internimage.visualization.evaluation import FoundRegions, SegmentationEvaluation, write_evaluation
from internimage.visualization.page import Picture, RunReport, write_report

_EXAMPLES, _WORST = 6, 6


class SegmentationReport:
    """Writes ``report.html`` and the pictures in it from the last evaluation.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def __call__(self, trainer: Trainer, module: LightningModule, history: History) -> Path:
        """Write all files; returns the page's path."""
        task, data = cast(SegmentationTask, module), cast(SegmentationData, cast(Any, trainer).datamodule)
        split: Split = "test" if trainer.state.fn == "test" else "val"
        evaluation = _evaluation(task, split)
        write_evaluation(self.run, evaluation)
        pictures = {} if evaluation is None else evaluation.pictures()
        if history.rows:
            caption = "Loss, mean intersection over union and learning rate over the epochs."
            pictures = {"curves": Picture("Training", caption, curves_figure(history.rows)), **pictures}
        save_pictures(pictures, self.run, {path for path, _ in _FILES if path.endswith(".png")})
        has_counts = bool(task.confusion.sum())
        report = RunReport(
            title=self.run.resolve().name,
            task="semantic segmentation",
            summary=_summary(trainer, task, split, history),
            settings=_settings(task, data) | _looks(task, split),
            pictures=list(pictures.values()),
            tables=[class_table(task.confusion.numpy(), task.labels)] if has_counts else [],
            commands=commands(self.run, "Name the pixels of your own images"),
            files=_FILES,
            config_yaml=text_of(self.run / "config.yaml"),
        )
        return write_report(self.run / REPORT_FILE, report)


_FILES = run_files(
    "the weights, with architecture, class names, colours and preprocessing inside",
    ("curves.png", "loss, mean IoU and learning rate"),
    ("predictions.png", "examples beside the truth"),
    ("worst.png", "the pictures with the most pixels wrong"),
    ("classes.png", "intersection over union of each class"),
    ("confusion_matrix.png", "which class is taken for which"),
)


def _evaluation(task: SegmentationTask, split: Split) -> SegmentationEvaluation | None:
    accuracies = task.accuracies()
    indices = sorted(accuracies)
    if not indices:
        return None
    chosen = [indices[int(place)] for place in np.linspace(0, len(indices) - 1, min(_EXAMPLES, len(indices)))]
    worst = sorted((index for index in indices if accuracies[index] < 1), key=lambda index: accuracies[index])[:_WORST]
    return SegmentationEvaluation(
        split={"val": "validation", "test": "test"}[split],
        labels=task.labels,
        palette=tuple(task.palette or find_palette(task.labels)),
        total=len(indices),
        confusion=task.confusion.numpy(),
        examples=_regions(task, split, chosen),
        worst=_regions(task, split, worst) if worst else None,
    )


def _regions(task: SegmentationTask, split: Split, indices: Sequence[int]) -> FoundRegions:
    dataset = task.dataset(split)
    images: list[Image.Image] = []
    truths: list[np.ndarray] = []
    found: list[np.ndarray] = []
    was_training = task.training
    task.eval()
    with torch.inference_mode():
        for index in indices:
            raw, sample = dataset.source.read(index), dataset[index]
            labels_HW = task.find(index, sample.image.to(task.device), sample.labels, split)
            images.append(raw.image)
            truths.append(raw.labels)
            found.append(labels_HW.numpy().astype(np.uint8))
    task.train(was_training)
    captions = [f"{dataset.source.name(index)}: {_in_words(task.accuracies()[index])}" for index in indices]
    return FoundRegions(images, found, truths, captions)


def _in_words(accuracy: float) -> str:
    return "all its pixels are ignored" if np.isnan(accuracy) else f"{100 * accuracy:.1f}% right"


def _summary(trainer: Trainer, task: SegmentationTask, split: Split, history: History) -> dict[str, str]:
    words = {"val": "Validation", "test": "Test"}[split]
    measures = task.measures()
    named = (
        ("mean IoU", measures.miou),
        ("pixels right", measures.pixel_accuracy),
        ("mean accuracy", measures.mean_accuracy),
    )
    tiles = {f"{words} {name}": f"{100 * value:.1f}%" for name, value in named if np.isfinite(value)}
    best = [row["val/miou"] for row in history.rows if "val/miou" in row]
    if trainer.state.fn == "fit" and best and max(best) > best[-1]:
        tiles["Mean IoU, best epoch (saved)"] = f"{100 * max(best):.1f}%"
    tiles[f"{words} pictures"] = f"{len(task.accuracies()):,}"
    return tiles | common_tiles(task.network, history)


def _looks(task: SegmentationTask, split: Split) -> dict[str, str]:
    """How test pictures were looked at, where it was not as in validation."""
    if split == "val" or not (task.test_scales or task.test_flip):
        return {}
    scales = ", ".join(f"{scale:g}" for scale in task.test_scales or (1.0,))
    return {"Looks at a picture": f"at {scales} times its size" + (", also mirrored" if task.test_flip else "")}


def _settings(task: SegmentationTask, data: SegmentationData) -> dict[str, str]:
    config, optimizer, viewing = task.network.config, task.optimizer_settings, data.preprocess
    frame = (
        "pictures at their own size"
        if viewing.frame is None
        else "shorter side {}, longer side up to {} pixels".format(*viewing.frame)
    )
    windows = "" if viewing.window is None else ", in windows of {} x {}".format(*viewing.window)
    crop, backbone, weights = data.augmentation.crop, config.backbone, task.class_weights
    return {
        "Data": data.root,
        "Classes": ", ".join(task.labels.names[:12]) + (" ..." if len(task.labels) > 12 else ""),
        **({} if weights is None else {"Class weights": ", ".join(f"{each:g}" for each in weights)}),
        "Input": frame + windows,
        "Training crops": f"{crop[0]} x {crop[1]} pixels",
        "Head": config.head,
        "Backbone": f"{backbone.channels} channels, depths {backbone.depths}, groups {backbone.groups}",
        "Batch": f"{data.batch_size} pictures",
        "Optimizer": f"AdamW, lr {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}",
        "Software": f"PyTorch {torch.__version__}",
    }
