"""``internimage quickstart``: from the shipped images to a trained network, a page of results and pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentParser

from internimage.cli import predict, training
from internimage.cli.configs import find_config, settings_in
from internimage.cli.training.run_folder import CONFIG_FILE
from internimage.data import export_samples
from internimage.tasks.checkpoints import WEIGHTS_FILE
from internimage.tasks.reports import REPORT_FILE

_CONFIG = "classification/demo"
_PICTURES, _PREDICTIONS = "pictures", "predictions"


def main(arguments: Sequence[str]) -> int:
    """Train, test, predict; ``runs/demo`` is made anew each time."""
    parser = ArgumentParser(prog="internimage quickstart", description="Train, test and predict on the sample images.")
    parser.add_argument("--run", type=str, default="runs/demo", help="folder; an earlier demo in it is replaced")
    run = Path(parser.parse_args(list(arguments)).run)
    if not _may_replace(run):
        raise ValueError(f"{run} holds a run that is no demo; choose another --run")
    started = time.monotonic()
    print("1/3  training on 4,500 images of clothes (Fashion-MNIST)", flush=True)
    if status := training.main("fit", ["--config", _CONFIG, "--run", str(run), "--overwrite"]):
        return status
    print("\n2/3  testing on 1,000 images that training never saw", flush=True)
    if status := training.main("test", ["--run", str(run)]):
        return status
    print("\n3/3  predicting on picture files", flush=True)
    output = run / _PREDICTIONS
    for folder in (run / _PICTURES, output):
        shutil.rmtree(folder, ignore_errors=True)
    pictures = export_samples(run / _PICTURES, "test", 20)
    weights = str(run / WEIGHTS_FILE)
    status = predict.main([*map(str, pictures), "--weights", weights, "--output", str(output)])
    print(f"\n{time.monotonic() - started:.0f} s. Open {run / REPORT_FILE} in a browser.")
    return status


def _may_replace(run: Path) -> bool:
    """Whether no run lies there, or an earlier demo: a complete one, or one with the demo's settings."""
    config = run / CONFIG_FILE
    if not config.is_file() or ((run / _PICTURES).is_dir() and (run / _PREDICTIONS).is_dir()):
        return True
    return _contains(settings_in(str(config)), settings_in(str(find_config(_CONFIG))))


def _contains(whole: Any, part: Any) -> bool:
    if not isinstance(part, dict):
        # A class's short name is written down with its module.
        return whole == part or (isinstance(part, str) and str(whole).endswith(f".{part}"))
    if not isinstance(whole, dict):
        return False
    given = cast(dict[str, Any], whole)
    return all(key in given and _contains(given[key], value) for key, value in cast(dict[str, Any], part).items())
