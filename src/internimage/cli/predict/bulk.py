"""``internimage predict --format jsonl|parquet``: rows over any number of images, written as they come."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from internimage.data.inputs import ImageInputs
from internimage.inference.bulk import FORMATS, Counts, MapRows, Place, Task, remove, run
from internimage.inference.bulk.record import digest
from internimage.inference.bulk.rows import MakeRow, Predictor
from internimage.inference.loading import pick_device
from internimage.model import Checkpoint

# Between two lines that say how far it is.
_SECONDS = 10.0
_OPTIONS = ("resume", "part", "workers", "rows_per_file", "ray", "actors")
# Of a Parquet file; of a file with Ray, whose machines get as many images at a time.
_ROWS, _ROWS_RAY = 20_000, 2_000


def add_bulk_arguments(parser: ArgumentParser) -> None:
    """What many images need."""
    formats = ("json", *FORMATS)
    parser.add_argument(
        "--format",
        choices=formats,
        default="json",
        help="json: predictions.json, .csv and pictures at the end; jsonl, parquet: rows as they come, for many images",
    )
    many = "jsonl, parquet:"
    parser.add_argument("--resume", action="store_true", help=f"{many} go on after the rows that are there")
    parser.add_argument("--part", type=str | None, default=None, help=f"{many} a share of the images, as 3/16")
    parser.add_argument(
        "--workers", type=int | None, default=None, help=f"{many} threads that read images; as many as cores by default"
    )
    parser.add_argument(
        "--rows_per_file", type=int | None, default=None, help="parquet, --ray: 20000 by default, 2000 with --ray"
    )
    parser.add_argument(
        "--ray", type=str | None, default=None, help=f"{many} on a Ray cluster: local, auto, or its address"
    )
    parser.add_argument("--actors", type=int | None, default=None, help="with --ray: networks at work; 1 by default")


def check_bulk(options: Namespace) -> None:
    """Raise ``ValueError`` for options that don't go together."""
    given = [name for name in _OPTIONS if getattr(options, name) not in (None, False)]
    if options.format == "json" and given:
        raise ValueError(f"--{given[0]} goes with --format jsonl or parquet; add it, or leave --{given[0]} out")
    if options.resume and options.overwrite:
        raise ValueError("--resume goes on and --overwrite begins anew: give one of them")
    for name, least in (("workers", 0), ("actors", 1), ("rows_per_file", 1)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            raise ValueError(f"--{name} must be {least} or more, got {getattr(options, name)}")
    if options.actors is not None and options.ray is None:
        raise ValueError("--actors goes with --ray; add it, or leave --actors out")
    if options.ray is not None and options.part:
        raise ValueError("--part is not for --ray, which shares the images out itself: leave one of them out")


def predict_many(
    options: Namespace,
    found: Checkpoint,
    predictor: Callable[..., Predictor],
    make_row: MakeRow,
    settings: Mapping[str, Any],
) -> int:
    """Write a row per image; returns the exit status.

    Args:
        options: of the command.
        found: the weights.
        predictor: makes the network ready, given the weights and the device.
        make_row: what is written of an image.
        settings: what the rows depend on.
    """
    default = 32 if "top" in settings else 1
    weights = str(Path(options.weights).absolute()) if Path(options.weights).exists() else options.weights
    task = Task(
        partial(predictor, weights, device=options.device),
        make_row,
        batch_size=options.batch_size or default,
        workers=usable_cores() if options.workers is None else options.workers,
        settings={"weights": digest(found.state), **settings},
    )
    inputs = ImageInputs(options.images, parse_part(options.part))
    rows_per_file = options.rows_per_file or (_ROWS if options.ray is None else _ROWS_RAY)
    place = Place(Path(options.output), options.format, inputs.part, rows_per_file)
    _prepare(place, task, options)
    if options.ray is not None:
        from internimage.integrations.ray import predict_on_ray

        return _conclude(predict_on_ray(task, inputs, place, address=options.ray, **_ray_settings(options)), place)
    with Stop() as stop:
        counts = run(
            task,
            inputs,
            place,
            resume=options.resume,
            is_asked_to_stop=stop.is_asked,
            report=Progress(),
        )
    if not counts.is_finished:
        print(f"stopped after {counts.images:,} images: the same command with --resume goes on", file=sys.stderr)
        return 128 + (stop.asked or signal.SIGINT)
    return _conclude(counts, place)


def _ray_settings(options: Namespace) -> dict[str, Any]:
    on_gpu = pick_device(options.device).type == "cuda"
    return {"actors": options.actors or 1, "gpus": 1 if on_gpu else 0, "resume": options.resume}


def _prepare(place: Place, task: Task, options: Namespace) -> None:
    """Make the folder; rows that are there stay unless asked."""
    output = place.output
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; give a folder")
    if isinstance(task.make_row, MapRows):
        for source in map(Path, options.images):
            if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
                raise ValueError(
                    f"--output {output} lies in {source}, and label maps would be taken for images; choose another"
                )
    output.mkdir(parents=True, exist_ok=True)
    there = place.files()
    if there and options.overwrite:
        remove(place)
    elif there and not options.resume:
        names = ", ".join(str(path.relative_to(output)) for path in there[:3])
        raise ValueError(
            f"{output} holds {names} already; pass --resume to go on, --overwrite to begin anew, or choose another "
            "--output"
        )


def _conclude(counts: Counts, place: Place) -> int:
    print(f"{counts.images - counts.errors:,} of {counts.images:,} images: {place.output}")
    if counts.errors:
        print(
            f"internimage: {counts.errors:,} images could not be read; their rows have an error instead",
            file=sys.stderr,
        )
    return 1 if counts.errors else 0


def parse_part(text: str | None) -> tuple[int, int]:
    """(number, count) of a part.

    >>> parse_part("3/16"), parse_part(None)
    ((3, 16), (1, 1))
    """
    if text is None:
        return 1, 1
    if not re.fullmatch(r"\d+/\d+", text):
        raise ValueError(f"--part must be a number and the count, such as 3/16; got {text}")
    number, _, count = text.partition("/")
    return int(number), int(count)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """Says every few seconds how far it is, on the error output."""

    def __init__(self) -> None:
        self._since = self._said = time.monotonic()
        self._before: int | None = None

    def __call__(self, counts: Counts) -> None:
        """Called after every row."""
        now = time.monotonic()
        if self._before is None:
            self._since, self._before = now, counts.images
        if now - self._said > _SECONDS:
            speed = (counts.images - self._before) / max(now - self._since, 1e-9)
            print(f"{counts.images:,} images, {speed:.1f} per second", file=sys.stderr, flush=True)
            self._said = now


class Stop:
    """Within it, Ctrl-C and SIGTERM are remembered, so that the batch under way is finished; a second Ctrl-C is one.

    Attributes:
        asked: the signal that came.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._old: dict[int, Any] = {}

    def is_asked(self) -> bool:
        """Whether a signal came."""
        return self.asked is not None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number)
        os.write(2, f"\n{self.asked.name}: ending after this batch\n".encode())
