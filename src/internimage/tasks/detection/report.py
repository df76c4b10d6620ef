"""The page, pictures and results that a detection run leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torchvision.ops import box_iou

from internimage.data.detection.dataset import CocoPictures, Source
from internimage.data.detection.rle import decode_masks
from internimage.structures import Detections, Framing, Views
from internimage.tasks.callbacks import History
from internimage.tasks.detection.conventions import METRICS
from internimage.tasks.detection.data import DetectionData, Split
from internimage.tasks.detection.precision import Kind, category_ids
from internimage.tasks.detection.task import DetectionTask
from internimage.tasks.reports import (
    REPORT_FILE,
    commands,
    common_tiles,
    run_files,
    run_pictures,
    save_pictures,
    text_of,
)
from internimage.visualization.evaluation import DetectionEvaluation, FoundObjects
from internimage.visualization.page import RunReport, Table, write_report
from internimage.visualization.precision_recall import average_precision_table

RESULTS_FILE = "results.json"
_EXAMPLES, _WORST = 8, 6
# Objects below this score are not drawn, and count neither as found nor as false.
_SCORE = 0.5
_IOU = 0.5
_WORDS: dict[Kind, str] = {"bbox": "box", "segm": "mask"}


class DetectionReport:
    """Writes ``report.html``, the pictures in it, and ``results.json`` in COCO's format, from the last evaluation.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def __call__(self, trainer: Trainer, module: LightningModule, history: History) -> Path:
        """Write all files; returns the page's path."""
        task, data = cast(DetectionTask, module), cast(DetectionData, cast(Any, trainer).datamodule)
        split: Split = "test" if trainer.state.fn == "test" else "val"
        (self.run / RESULTS_FILE).write_text(json.dumps(task.results()) + "\n", encoding="utf-8")
        caption = "Loss, average precision and learning rate over the epochs."
        pictures = run_pictures(self.run, _evaluation(task, data, split), history, caption)
        save_pictures(pictures, self.run, {path for path, _ in _FILES if path.endswith(".png")})
        report = RunReport(
            title=self.run.resolve().name,
            task="object detection" + (" with masks" if "segm" in task.precisions else ""),
            summary=_summary(trainer, task, split, history),
            settings=_settings(task, data),
            pictures=list(pictures.values()),
            tables=_tables(task),
            commands=commands(self.run, "Find the objects in your own images"),
            files=_FILES,
            config_yaml=text_of(self.run / "config.yaml"),
        )
        return write_report(self.run / REPORT_FILE, report)


_FILES = run_files(
    "the weights, with architecture, class names and preprocessing inside",
    (RESULTS_FILE, "all detections of the last evaluation in COCO's result format"),
    ("curves.png", "loss, average precision and learning rate"),
    ("predictions.png", "examples beside the truth"),
    ("worst.png", "the pictures with the most mistakes"),
    ("precision_recall.png", "precision over recall"),
)


def _evaluation(task: DetectionTask, data: DetectionData, split: Split) -> DetectionEvaluation | None:
    indices = task.evaluated()
    if not indices:
        return None
    source = data.dataset(split).source
    chosen = [indices[int(place)] for place in np.linspace(0, len(indices) - 1, min(_EXAMPLES, len(indices)))]
    worst = _worst(task, source, indices)
    return DetectionEvaluation(
        split={"train": "training", "val": "validation", "test": "test"}[split],
        labels=task.labels,
        total=len(indices),
        score=_SCORE,
        examples=_objects(task, source, chosen),
        worst=_objects(task, source, worst) if worst else None,
        curves={_WORDS[kind]: each.curves for kind, each in task.precisions.items()},
    )


def _summary(trainer: Trainer, task: DetectionTask, split: Split, history: History) -> dict[str, str]:
    words = {"val": "Validation", "test": "Test", "train": "Training"}[split]
    tiles: dict[str, str] = {}
    for kind, precision in task.precisions.items():
        for name, value in (("AP50", precision.ap50), ("AP", precision.ap)):
            if np.isfinite(value):
                tiles[f"{words} {_WORDS[kind]} {name}"] = f"{100 * value:.1f}%"
    for metric, value in task.measured.items():
        if np.isfinite(value):
            tiles[f"{words} {METRICS[metric]}"] = f"{100 * value:.1f}%"
    best = [row["val/map"] for row in history.rows if "val/map" in row]
    if trainer.state.fn == "fit" and best and max(best) > best[-1]:
        tiles["Box AP, best epoch (saved)"] = f"{100 * max(best):.1f}%"
    tiles[f"{words} pictures"] = f"{len(task.evaluated()):,}"
    if trainer.state.fn != "fit" and task.test_time != Views():
        tiles["Looks at a picture"] = _looks(task.test_time, task.preprocess)
    return tiles | common_tiles(task.network, history)


def _looks(views: Views, framing: Framing) -> str:
    sides = ", ".join(str(side) for side in views.sides or framing.frame[:1])
    merged = f", put together by {views.merging.rule}" if views.are_several else ""
    return f"at shorter sides of {sides} pixels" + (", also mirrored" if views.flip else "") + merged


def _settings(task: DetectionTask, data: DetectionData) -> dict[str, str]:
    config, optimizer, (short, long) = task.network.config.backbone, task.optimizer_settings, data.preprocess.frame
    return {
        "Data": data.root,
        "Classes": ", ".join(task.labels.names[:12]) + (" ..." if len(task.labels) > 12 else ""),
        "Input": f"shorter side {short}, longer side up to {long} pixels",
        "Backbone": f"{config.channels} channels, depths {config.depths}, groups {config.groups}",
        "Batch": f"{data.batch_size} pictures",
        "Optimizer": f"AdamW, lr {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}",
        "Software": f"PyTorch {torch.__version__}",
    }


def _tables(task: DetectionTask) -> list[Table]:
    if not any(each.objects.sum() for each in task.precisions.values()):
        return []
    curves = {_WORDS[kind]: each.curves for kind, each in task.precisions.items()}
    sizes = [
        (_WORDS[kind], *(_percent(value) for value in each.metrics().values()))
        for kind, each in task.precisions.items()
    ]
    rarities = [name.removeprefix("map_") for name in task.precisions["bbox"].rarities]
    header = ("", "AP", "AP50", "AP75", "small", "medium", "large", *rarities)
    caption = (
        "COCO's numbers: mean over IoU 0.5 to 0.95, at 0.5, at 0.75; objects below 32 x 32 pixels, to 96 x 96, above."
    )
    return [
        Table("Average precision", caption, header, sizes),
        average_precision_table(curves, task.labels, task.precisions["bbox"].objects),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%" if np.isfinite(value) else "—"


def _objects(task: DetectionTask, source: Source, indices: Sequence[int]) -> FoundObjects:
    images, truths = zip(*(_truth(source, index) for index in indices), strict=True)
    found = [_found(task, source, index, truth) for index, truth in zip(indices, truths, strict=True)]
    captions = [_in_words(*compare(each, truth)) for each, truth in zip(found, truths, strict=True)]
    return FoundObjects(images, found, truths, captions)


def _in_words(hits: int, false: int, missed: int) -> str:
    return f"{hits} of {hits + missed} found" + (f", {false} false" if false else "")


def _worst(task: DetectionTask, source: Source, indices: Sequence[int]) -> list[int]:
    """The pictures with the lowest F1 score at IoU 0.5; none where all is right."""
    scored: list[tuple[float, int]] = []
    for index in indices:
        truth = _true_boxes(source, index)
        hits, false, missed = compare(_found(task, source, index, truth, with_masks=False), truth)
        if false + missed:
            scored.append((2 * hits / (2 * hits + false + missed), index))
    return [index for _, index in sorted(scored)[:_WORST]]


def compare(found: Detections, truth: Detections) -> tuple[int, int, int]:
    """How many objects are found, how many seen where there are none, and how many missed; best scores choose first."""
    iou_RT = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(truth.boxes)).numpy()
    iou_RT[found.labels[:, None] != truth.labels[None]] = 0
    hits = 0
    for row in np.argsort(-found.scores, kind="stable"):
        if iou_RT.shape[1] and iou_RT[row].max() >= _IOU:
            iou_RT[:, int(iou_RT[row].argmax())] = 0
            hits += 1
    return hits, len(found) - hits, len(truth) - hits


def _truth(source: Source, index: int) -> tuple[Image.Image, Detections]:
    raw = source.read(index)
    size, scores = (raw.image.height, raw.image.width), np.ones(len(raw.labels), np.float32)
    return raw.image, Detections(raw.boxes, scores, raw.labels, source.labels, size, raw.masks)


def _true_boxes(source: Source, index: int) -> Detections:
    """Without masks, and without reading the picture where a file knows its objects."""
    if not isinstance(source, CocoPictures):
        return replace(_truth(source, index)[1], masks=None)
    picture = source.coco.pictures[index]
    objects = [each for each in picture.instances if not each.is_crowd]
    boxes = np.array([each.box for each in objects], np.float32)
    labels, scores = np.array([each.label for each in objects], np.int64), np.ones(len(objects), np.float32)
    return Detections(boxes, scores, labels, source.labels, picture.size)


def _found(
    task: DetectionTask, source: Source, index: int, truth: Detections, *, with_masks: bool = True
) -> Detections:
    rows = [row for row in task.results_of(index) if row["score"] >= _SCORE]
    return detections_of(rows, source, truth.size, with_masks=with_masks)


def detections_of(
    rows: Sequence[Mapping[str, Any]], source: Source, size: tuple[int, int], *, with_masks: bool = True
) -> Detections:
    """Results in COCO's format as a structure."""
    label_of = {number: label for label, number in enumerate(category_ids(source))}
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    has_masks = with_masks and bool(rows) and "segmentation" in rows[0]
    masks = decode_masks([row["segmentation"] for row in rows]) if has_masks else None
    labels = np.array([label_of[row["category_id"]] for row in rows], np.int64)
    return Detections(boxes, np.array([row["score"] for row in rows], np.float32), labels, source.labels, size, masks)
