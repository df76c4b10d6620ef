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
from internimage.structures import SegmentationMap
from internimage.tasks.callbacks import History
from internimage.tasks.reports import REPORT_FILE, commands, common_tiles, run_files, save_pictures, text_of
from internimage.tasks.segmentation.data import SegmentationData
from internimage.tasks.segmentation.task import SegmentationTask, Split
from internimage.visualization.confusion import (
    class_iou_figure,
    class_table,
    confusion_caption,
    confusion_figure,
)
from internimage.visualization.curves import curves_figure
from internimage.visualization.page import Picture, RunReport, write_report
from internimage.visualization.segmentation import draw_comparison

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
        pictures = _pictures(task, split, history)
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


def _pictures(task: SegmentationTask, split: Split, history: History) -> dict[str, Picture]:
    words = {"val": "validation", "test": "test"}[split]
    pictures: dict[str, Picture] = {}
    if history.rows:
        caption = "Loss, mean intersection over union and learning rate over the epochs."
        pictures["curves"] = Picture("Training", caption, curves_figure(history.rows))
    accuracies = task.accuracies()
    indices = sorted(accuracies)
    if not indices:
        return pictures
    chosen = [indices[int(place)] for place in np.linspace(0, len(indices) - 1, min(_EXAMPLES, len(indices)))]
    caption = f"{len(chosen)} of {len(indices):,} {words} pictures, evenly spaced, with the share of right pixels."
    pictures["predictions"] = Picture("Predictions", caption, _sheet(task, split, chosen))
    worst = sorted((index for index in indices if accuracies[index] < 1), key=lambda index: accuracies[index])[:_WORST]
    if worst:
        caption = f"Of all {words} pictures, those with the largest share of pixels wrong."
        pictures["worst"] = Picture("Worst cases", caption, _sheet(task, split, worst))
    if task.confusion.sum():
        counts = task.confusion.numpy()
        caption = "Of what a class and its finds cover together, the share that both cover."
        pictures["classes"] = Picture("Classes", caption, class_iou_figure(counts, task.labels, task.palette))
        figure = confusion_figure(counts, task.labels)
        pictures["confusion_matrix"] = Picture("Confusions", confusion_caption(counts, task.labels), figure)
    return pictures


def _sheet(task: SegmentationTask, split: Split, indices: Sequence[int]) -> Image.Image:
    dataset, palette = task.dataset(split), task.palette or find_palette(task.labels)
    images: list[Image.Image] = []
    truths: list[SegmentationMap] = []
    found: list[SegmentationMap] = []
    was_training = task.training
    task.eval()
    with torch.inference_mode():
        for index in indices:
            raw, sample = dataset.source.read(index), dataset[index]
            labels_HW = task.find(index, sample.image.to(task.device), sample.labels, split)
            images.append(raw.image)
            truths.append(SegmentationMap(raw.labels, task.labels, palette))
            found.append(SegmentationMap(labels_HW.numpy(), task.labels, palette))
    task.train(was_training)
    captions = [f"{dataset.source.name(index)}: {_in_words(task.accuracies()[index])}" for index in indices]
    return draw_comparison(images, found, truths, captions=captions)


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
