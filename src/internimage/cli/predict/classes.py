"""``internimage predict`` with a classifier: what is in images as a table, JSON, CSV and a picture."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from internimage.data import ImageReadError, read_image
from internimage.inference import Classifier
from internimage.inference.bulk.rows import class_row
from internimage.structures import Classification
from internimage.visualization.classification import draw_predictions

_SHEET_IMAGES = 48


def predict_classes(
    classifier: Classifier, paths: Sequence[Path], output: Path | None, *, batch_size: int, top: int
) -> int:
    """Print what is seen and write the three files; returns the exit status.

    Args:
        classifier: names what is there.
        paths: the images.
        output: the folder, which is there; None writes no files.
        batch_size: images that go through the network together.
        top: classes per image in the JSON file.
    """
    good: list[Classification] = []
    bad: list[ImageReadError] = []
    for result in classifier.stream(paths, batch_size=batch_size):
        if isinstance(result, Classification):
            good.append(result)
            print(f"{_short(result.source or '')}  {result.label}  {100 * result.score:.1f}%")
        else:
            bad.append(result)
    if good and output is not None:
        write_predictions(good, output, top, classifier.preprocess.in_chans)
    where = "nothing is written without --output" if output is None else output
    print(f"\n{len(good)} of {len(paths)} images: {where}")
    for error in bad:
        print(f"internimage: {error}", file=sys.stderr)
    return 1 if bad else 0


def write_predictions(results: Sequence[Classification], output: Path, top: int, in_chans: int) -> None:
    """The three files; the picture shows the first images."""
    rows = [class_row(result, top) for result in results]
    # A file's name need not be valid text; JSON reads the escape back as the same name.
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    (output / "predictions.json").write_text(text, encoding="utf-8", errors="backslashreplace")
    with (output / "predictions.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "score"])
        writer.writerows([result.source, result.label, f"{result.score:.6f}"] for result in results)
    shown = results[:_SHEET_IMAGES]
    pictures = [read_image(str(result.source), in_chans=in_chans) for result in shown]
    draw_predictions(pictures, shown, cell=336).save(output / "predictions.png")


def _short(path: str, width: int = 48) -> str:
    return path.ljust(width) if len(path) <= width else "..." + path[3 - width :]
