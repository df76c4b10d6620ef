"""``internimage demo``: from the shipped images to a trained network, a page of results and pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from internimage.cli import predict, train
from internimage.data import export_samples

_CONFIG = "classification/demo"


def main(arguments: Sequence[str]) -> int:
    """Train, test, predict; ``runs/demo`` is made anew each time."""
    parser = ArgumentParser(prog="internimage demo", description="Train, test and predict on the sample images.")
    parser.add_argument("--run", type=str, default="runs/demo", help="folder; an earlier demo in it is replaced")
    run = Path(parser.parse_args(list(arguments)).run)
    started = time.monotonic()
    print("1/3  training on 4,500 images of clothes (Fashion-MNIST)", flush=True)
    if status := train.main("fit", ["--config", _CONFIG, "--run", str(run), "--overwrite"]):
        return status
    print("\n2/3  testing on 1,000 images that training never saw", flush=True)
    if status := train.main("test", ["--run", str(run)]):
        return status
    print("\n3/3  predicting on picture files", flush=True)
    output = run / "predictions"
    for folder in (run / "pictures", output):
        shutil.rmtree(folder, ignore_errors=True)
    pictures = export_samples(run / "pictures", "test", 20)
    weights = str(run / train.WEIGHTS_FILE)
    status = predict.main([*map(str, pictures), "--weights", weights, "--output", str(output)])
    print(f"\n{time.monotonic() - started:.0f} s. Open {run / train.REPORT_FILE} in a browser.")
    return status
