"""The page and pictures that a classification run leaves in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from internimage.data import denormalize
from internimage.tasks.base_data import Split
from internimage.tasks.callbacks import History
from internimage.tasks.classification.data import ClassificationData
from internimage.tasks.classification.task import ClassificationTask
from internimage.tasks.reports import REPORT_FILE, commands, common_tiles, run_files, save_pictures, text_of
from internimage.visualization.curves import curves_figure
from internimage.visualization.evaluation import ClassificationEvaluation, Guesses, write_evaluation
from internimage.visualization.page import (
    Picture,
    RunReport,
    Table,
    confusions_table,
    per_class_table,
    write_report,
)

_EXAMPLES, _MISTAKES = 24, 12


class ClassificationReport:
    """Writes ``report.html`` and the pictures in it, from the images of the last evaluation.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def __call__(self, trainer: Trainer, module: LightningModule, history: History) -> Path:
        """Write all files; returns the page's path."""
        task, data = cast(ClassificationTask, module), cast(ClassificationData, cast(Any, trainer).datamodule)
        split: Split = "test" if trainer.state.fn == "test" else "val"
        matrix = task.confusion_counts().numpy()
        evaluation = _evaluation(task, data, split, matrix)
        write_evaluation(self.run, evaluation)
        pictures = {} if evaluation is None else evaluation.pictures()
        if history.rows:
            caption = "Loss, accuracy and learning rate over the epochs; training loss includes augmentation."
            pictures = {"curves": Picture("Training", caption, curves_figure(history.rows)), **pictures}
        save_pictures(pictures, self.run, {path for path, _ in _FILES if path.endswith(".png")})
        report = RunReport(
            title=self.run.resolve().name,
            task="image classification",
            summary=_summary(trainer, task, split, matrix, history),
            settings=_settings(task, data),
            pictures=list(pictures.values()),
            tables=_tables(matrix, task),
            commands=commands(self.run, "Name what is in your own images"),
            files=_FILES,
            config_yaml=text_of(self.run / "config.yaml"),
        )
        return write_report(self.run / REPORT_FILE, report)


_FILES = run_files(
    "the weights, with architecture, class names and preprocessing inside",
    ("curves.png", "loss, accuracy and learning rate"),
    ("predictions.png", "examples"),
    ("mistakes.png", "confident mistakes"),
    ("confusion_matrix.png", "what is taken for what"),
)


def _summary(
    trainer: Trainer, task: ClassificationTask, split: Split, matrix: np.ndarray, history: History
) -> dict[str, str]:
    words = {"val": "Validation", "test": "Test", "train": "Training"}[split]
    total = int(matrix.sum())
    tiles: dict[str, str] = {}
    if total:
        epochs = [row["val/accuracy"] for row in history.rows if "val/accuracy" in row]
        is_past_best = trainer.state.fn == "fit" and bool(epochs) and max(epochs) > epochs[-1]
        name = f"{words} accuracy"
        if is_past_best:
            tiles[f"{name}, best epoch (saved)"] = f"{100 * max(epochs):.1f}%"
        tiles[f"{name}, last epoch" if is_past_best else name] = f"{100 * np.trace(matrix) / total:.1f}%"
        top5 = trainer.callback_metrics.get(f"{split}/accuracy_top5")
        if top5 is not None and len(task.labels) > 5:
            tiles["Top-5 accuracy"] = f"{100 * float(top5):.1f}%"
        tiles[f"{words} images"] = f"{total:,}"
    return tiles | common_tiles(task.network, history)


def _settings(task: ClassificationTask, data: ClassificationData) -> dict[str, str]:
    config, optimizer = task.network.config, task.optimizer_settings
    return {
        "Data": data.root,
        "Classes": ", ".join(task.labels.names[:12]) + (" ..." if len(task.labels) > 12 else ""),
        "Input": f"{data.preprocess.size} x {data.preprocess.size} pixels, {data.preprocess.in_chans} channels",
        "Network": f"{config.channels} channels, depths {config.depths}, groups {config.groups}",
        "Batch": f"{data.batch_size} images",
        "Optimizer": f"AdamW, lr {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}",
        "Software": f"PyTorch {torch.__version__}",
    }


def _tables(matrix: np.ndarray, task: ClassificationTask) -> list[Table]:
    if not matrix.sum():
        return []
    return [per_class_table(matrix, task.labels), confusions_table(matrix, task.labels)]


def _evaluation(
    task: ClassificationTask, data: ClassificationData, split: Split, matrix: np.ndarray
) -> ClassificationEvaluation | None:
    total = min(int(matrix.sum()), len(cast(Any, data.dataset(split))))
    if not total:
        return None
    evenly = [int(index) for index in np.linspace(0, total - 1, min(_EXAMPLES, total))]
    wrong = task.confident_mistakes(_MISTAKES)
    words = {"train": "training", "val": "validation", "test": "test"}[split]
    examples, mistakes = (_guesses(task, data, split, each) if each else None for each in (evenly, wrong))
    return ClassificationEvaluation(words, task.labels, matrix, cast(Guesses, examples), mistakes)


def _guesses(task: ClassificationTask, data: ClassificationData, split: Split, indices: Sequence[int]) -> Guesses:
    dataset = data.dataset(split)
    inputs, targets = zip(*(dataset[index] for index in indices), strict=True)
    task.network.eval()
    with torch.inference_mode():
        image_NCHW = torch.stack(inputs).to(next(task.network.parameters()))
        probabilities_NC = task.network(image_NCHW).float().softmax(-1).cpu().numpy()
    pictures = [denormalize(tensor, data.preprocess) for tensor in inputs]
    return Guesses(pictures, probabilities_NC, np.array(targets, np.int64))
