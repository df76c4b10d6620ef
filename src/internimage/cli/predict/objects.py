"""``internimage predict`` with a detector: the objects in images as a table, JSON, CSV and pictures."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from internimage.cli.predict.names import PICTURES, picture_names
from internimage.data import ImageReadError, read_image
from internimage.inference.bulk.rows import object_row
from internimage.inference.detection import Detector
from internimage.structures import Detections
from internimage.visualization.detection import draw_detections, draw_sheet

_SHEET_IMAGES = 24


def predict_objects(detector: Detector, paths: Sequence[Path], output: Path, *, batch_size: int) -> int:
    """Write the three files, and one picture per image in ``pictures/``; returns the exit status.

    Args:
        detector: finds the objects.
        paths: the images.
        output: the folder, which is there.
        batch_size: images that go through the network together.
    """
    rows: list[dict[str, Any]] = []
    shown: list[Detections] = []
    bad: list[ImageReadError] = []
    names = picture_names(paths)
    for path, name, found in zip(paths, names, detector.stream(paths, batch_size=batch_size), strict=True):
        if isinstance(found, ImageReadError):
            bad.append(found)
            continue
        rows.append(object_row(found))
        (output / PICTURES).mkdir(exist_ok=True)
        draw_detections(read_image(path), found).save(output / PICTURES / name, quality=92)
        # Masks of all images would not fit into memory; the sheet needs those of the first ones alone.
        shown += [found] if len(shown) < _SHEET_IMAGES else []
        print(f"{path}  {_in_words(found)}", flush=True)
    if rows:
        write_objects(rows, output)
        draw_sheet([read_image(str(each.source)) for each in shown], shown).save(output / "predictions.png")
    print(f"\n{len(rows)} of {len(paths)} images: {output}")
    for error in bad:
        print(f"internimage: {error}", file=sys.stderr)
    return 1 if bad else 0


def write_objects(rows: Sequence[dict[str, Any]], output: Path) -> None:
    """``predictions.json`` with all that is known, ``predictions.csv`` with a line per object, without masks."""
    # A file's name need not be valid text; JSON reads the escape back as the same name.
    text = "[\n" + ",\n".join(map(_image_json, rows)) + "\n]\n"
    (output / "predictions.json").write_text(text, encoding="utf-8", errors="backslashreplace")
    with (output / "predictions.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "score", "x1", "y1", "x2", "y2"])
        for row in rows:
            writer.writerows([row["image"], each["label"], each["score"], *each["box"]] for each in row["objects"])


def _image_json(row: dict[str, Any]) -> str:
    """An image in JSON with a line per object: people read it, too."""
    head = json.dumps({**row, "objects": []}, ensure_ascii=False)
    objects = ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in row["objects"])
    return head.removesuffix("[]}") + (f"[\n  {objects}]}}" if objects else "[]}")


def _in_words(found: Detections) -> str:
    counts = Counter(found.names)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
