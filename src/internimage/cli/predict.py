"""``internimage predict``: name what is in images, as a table, JSON, CSV and pictures."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from internimage.data import ImageReadError, find_images, read_image
from internimage.inference import Classifier
from internimage.structures import Classification
from internimage.visualization.classification import draw_predictions

_SHEET_IMAGES = 48
_FILES = ("predictions.json", "predictions.csv", "predictions.png")


def main(arguments: Sequence[str]) -> int:
    """Predict; 0 if every image could be read, 1 otherwise."""
    parser = ArgumentParser(prog="internimage predict", description="Name what is in images.")
    parser.add_argument("images", nargs="+", type=str, help="image files and folders")
    parser.add_argument("--weights", type=str, required=True, help="a file, a run's folder, a weight name or a hub id")
    parser.add_argument("--output", type=str, required=True, help="folder for predictions.json, .csv and .png")
    parser.add_argument("--top", type=int, default=5, help="classes per image")
    parser.add_argument("--batch_size", type=int, default=32, help="images that go through the network together")
    parser.add_argument("--device", type=str | None, default=None, help="cpu, cuda, ...; the fastest by default")
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that are there")
    options = parser.parse_args(list(arguments))
    if options.top < 1 or options.batch_size < 1:
        raise ValueError(f"--top and --batch_size must be 1 or more, got {options.top} and {options.batch_size}")
    output = prepare_output(Path(options.output), options.overwrite)
    paths = find_images(options.images)
    classifier = Classifier(options.weights, device=options.device)
    good: list[Classification] = []
    bad: list[ImageReadError] = []
    for result in classifier.stream(paths, batch_size=options.batch_size):
        if isinstance(result, Classification):
            good.append(result)
            print(f"{_short(result.source or '')}  {result.label}  {100 * result.score:.1f}%")
        else:
            bad.append(result)
    if good:
        write_predictions(good, output, options.top, classifier.preprocess.in_chans)
    print(f"\n{len(good)} of {len(paths)} images: {output}")
    for error in bad:
        print(f"internimage: {error}", file=sys.stderr)
    return 1 if bad else 0


def prepare_output(output: Path, overwrite: bool) -> Path:
    """Make the folder; predictions that are there stay unless ``overwrite``."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; give a folder")
    there = [name for name in _FILES if (output / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{output} holds {', '.join(there)} already; choose another --output or pass --overwrite")
    output.mkdir(parents=True, exist_ok=True)
    return output


def write_predictions(results: Sequence[Classification], output: Path, top: int, in_chans: int) -> None:
    """The three files; the picture shows the first images."""
    rows = [
        {"image": result.source, "top": [{"label": name, "score": round(score, 6)} for name, score in result.top(top)]}
        for result in results
    ]
    # A file's name need not be valid text; JSON reads the escape back as the same name.
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    (output / _FILES[0]).write_text(text, encoding="utf-8", errors="backslashreplace")
    with (output / _FILES[1]).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "score"])
        writer.writerows([result.source, result.label, f"{result.score:.6f}"] for result in results)
    shown = results[:_SHEET_IMAGES]
    pictures = [read_image(str(result.source), in_chans=in_chans) for result in shown]
    draw_predictions(pictures, shown, cell=336).save(output / _FILES[2])


def _short(path: str, width: int = 48) -> str:
    return path.ljust(width) if len(path) <= width else "..." + path[3 - width :]
