"""What the pages of all tasks have in common."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from internimage.tasks.callbacks import History
from internimage.tasks.checkpoints import BEST, LAST, WEIGHTS_FILE
from internimage.visualization.curves import METRICS_FILE
from internimage.visualization.evaluation import EVALUATION_FILE
from internimage.visualization.page import Picture

REPORT_FILE = "report.html"


def run_files(weights: str, *own: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The files of a run's folder and what each is.

    Args:
        weights: what the file of weights holds.
        own: the files of its task.
    """
    return (
        (WEIGHTS_FILE, weights),
        ("model.json", "the same description, to read"),
        ("config.yaml", "every setting of this run"),
        (METRICS_FILE, "one row per epoch"),
        *own,
        (EVALUATION_FILE, "what the pictures are drawn from: internimage visualize run draws them anew"),
        (f"checkpoints/{BEST}", "the best epoch's complete state"),
        (f"checkpoints/{LAST}", "the last state, to resume from"),
        ("starts.jsonl", "command, commit, versions and machine of every start"),
        ("log.txt", "what was said meanwhile"),
    )


def save_pictures(pictures: Mapping[str, Picture], run: Path, known: set[str]) -> None:
    """Write ``NAME.png`` of every picture; remove those of ``known`` names that an earlier evaluation had to show."""
    for name, picture in pictures.items():
        image: Any = picture.image
        path = run / f"{name}.png"
        if isinstance(image, Image.Image):
            image.save(path)
        else:
            image.savefig(path, dpi=150, facecolor="white")
    for name in known - {f"{name}.png" for name in pictures}:
        (run / name).unlink(missing_ok=True)


def common_tiles(network: nn.Module, history: History) -> dict[str, str]:
    """How large the network is and how long it was trained."""
    count = sum(parameter.numel() for parameter in network.parameters())
    tiles = {"Parameters": f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.2f}B"}
    if history.rows:
        minutes, seconds = divmod(round(history.rows[-1]["seconds"]), 60)
        tiles["Training time"] = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return tiles


def commands(run: Path, prediction: str) -> list[tuple[str, str]]:
    """What can be done with a run next.

    Args:
        run: its folder.
        prediction: what predicting does, in words.
    """
    folder = shlex.quote(run.as_posix())
    return [
        (prediction, f"internimage predict IMAGES --weights {folder} --output predictions"),
        ("Measure on the test images again", f"internimage test --run {folder}"),
        ("Go on with an interrupted training", f"internimage fit --run {folder} --resume"),
        ("Watch the curves", f"tensorboard --logdir {folder}"),
    ]


def text_of(path: Path) -> str:
    """A file's text; empty where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""
