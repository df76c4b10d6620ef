"""A run of predictions: images in, rows out, from where an earlier run ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from internimage.data.inputs import ImageInputs
from internimage.inference.bulk.place import Format, Place, RowFile, check_rows
from internimage.inference.bulk.rows import MakeRow, MapRows, Predictor, Row, predict_rows


@dataclass(frozen=True)
class Task:
    """What is done with each image.

    Args:
        build: makes the network ready.
        make_row: what is written of an image.
        batch_size: images (segmenters: windows of an image) that go through the network together.
        workers: threads that read and prepare images ahead of it.
        settings: what the rows depend on, in plain values; a run goes on only with the same.
    """

    build: Callable[[], Predictor]
    make_row: MakeRow
    batch_size: int
    workers: int
    settings: Mapping[str, Any]

    @property
    def unit(self) -> int:
        """Rows that go through the network together: a run goes on between two such batches, so that none differs."""
        return 1 if isinstance(self.make_row, MapRows) else self.batch_size

    def all_settings(self, format: Format, *, blocks: bool = False) -> dict[str, Any]:
        """What a run is asked for; ``blocks``: its rows go into a file per block of images."""
        return {"format": format, "blocks": blocks, "batch_size": self.batch_size, **self.settings}


@dataclass(frozen=True)
class Counts:
    """Rows that are written, and those of images that could not be read among them."""

    images: int = 0
    errors: int = 0
    is_finished: bool = False

    def plus(self, *rows: Row) -> Counts:
        """With some rows more."""
        return Counts(self.images + len(rows), self.errors + sum("error" in row for row in rows))


def check_earlier(place: Place, settings: Mapping[str, Any], *, resume: bool) -> bool:
    """Whether the earlier run, if there is one to go on with, came to its end.

    Args:
        place: where the rows go.
        settings: what the run is asked for.
        resume: go on after an earlier run; otherwise there must be no rows.

    Raises:
        ValueError: rows are there and ``resume`` is not asked for, or the earlier run had other settings.
    """
    record = place.record
    if resume and record.path.exists():
        record.check(settings)
        return record.is_finished
    if there := place.files():
        why = f"without {record.path.name} nothing can go on" if resume else "pass --resume to go on"
        raise ValueError(f"{there[0]} is there already: {why}, or begin anew with --overwrite")
    return False


def run(
    task: Task,
    inputs: ImageInputs,
    place: Place,
    *,
    resume: bool = False,
    is_asked_to_stop: Callable[[], bool] = lambda: False,
    report: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Predict, and write a row per image as they come.

    Args:
        task: what is done with each image.
        inputs: the images, of the part that ``place`` names.
        place: where the rows go; its folder is there.
        resume: go on after the rows that are there; otherwise there must be none.
        is_asked_to_stop: asked after every row; the run ends after its batch, with all rows written.
        report: called after every row.

    Raises:
        ValueError: as for `check_earlier`, or the rows that are there are not those of these images.
        ImportError: pyarrow is missing.
    """
    rows, settings = place.rows(task.make_row, task.unit), task.all_settings(place.format)
    had_finished = check_earlier(place, settings, resume=resume)
    if had_finished and (counts := _compare(rows, inputs, place.output)).is_finished:
        return counts
    place.record.begin(settings)
    rows.repair(task.unit)
    counts = _compare(rows, inputs, place.output)
    predictor = task.build()
    images = inputs.after(counts.images)
    is_finished = False
    try:
        for row in predict_rows(predictor, images, task.make_row, batch_size=task.batch_size, workers=task.workers):
            rows.write(row)
            counts = counts.plus(row)
            report(counts)
            if counts.images % task.unit == 0 and is_asked_to_stop():
                break
        else:
            is_finished = True
    finally:
        rows.close(finished=is_finished)
    if is_finished:
        place.record.finish(counts.images, counts.errors)
    return Counts(counts.images, counts.errors, is_finished)


def _compare(rows: RowFile, inputs: ImageInputs, output: Path) -> Counts:
    """Count the rows; they are finished if there is one for every image.

    Raises:
        ValueError: they are not of these images in this order.
    """
    counts = Counts()
    for row, image in zip_longest(rows.written(), inputs):
        if row is None:
            return counts
        check_rows([row], [image] if image is not None else [], output)
        counts = counts.plus(row)
    return Counts(counts.images, counts.errors, is_finished=True)
