"""Prediction on many machines through Ray Data: the same rows, in files whose names give their order.

``internimage predict ... --ray local|auto|ADDRESS`` does this. Images go out in blocks; whoever gets a block holds the
network and writes the block's rows into a file of its own below ``predictions/``, named by the position of its first
image. A block that Ray does twice is the same file twice, and a run goes on with the blocks that have no file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from internimage.data.inputs import ImageInputs, NamedImage, everywhere
from internimage.inference.bulk import Counts, Place, Row, Task, check_earlier, check_rows, read_rows
from internimage.inference.bulk.blocks import Blocks, block_files
from internimage.inference.bulk.rows import predict_rows


def predict_on_ray(
    task: Task,
    inputs: ImageInputs,
    place: Place,
    *,
    address: str = "local",
    actors: int = 1,
    gpus: float = 0,
    resume: bool = False,
) -> Counts:
    """Predict on a Ray cluster, whose machines see the same files under the same paths.

    Args:
        task: what is done with each image.
        inputs: the images.
        place: where the rows go; its folder is there.
        address: ``"local"`` begins a cluster on this machine, ``"auto"`` finds the one that it is part of.
        actors: processes that hold the network.
        gpus: of each of them; a share of one, such as 0.5, lets several processes use it.
        resume: go on after an earlier run; otherwise there must be no rows.

    Raises:
        ValueError: as for `internimage.inference.bulk.run`.
        ImportError: Ray or pyarrow is missing.
    """
    ray = _load_ray()
    rows_per_file = -(-place.rows_per_file // task.unit) * task.unit
    settings = task.all_settings(place.format, blocks=True) | {"rows_per_file": rows_per_file}
    check_earlier(place, settings, resume=resume)
    blocks, expected = place.blocks(task.make_row), set[Path]()
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {"num_cpus": max(os.cpu_count() or 1, actors), "include_dashboard": False}
        ray.init(address, logging_level="WARNING", **(local if address == "local" else {}))
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    counts, waiting = Counts(), []
    for images in _in_blocks(inputs, rows_per_file):
        path = blocks.path(images[0].position)
        rows = list(read_rows(path)) if path.exists() else []
        check_rows(rows, images, blocks.folder)
        if len(rows) == len(images):
            counts = counts.plus(*rows)
        else:
            waiting.append(ray.put(_as_table(images)))
        expected.add(path)
    if more := sorted(set(block_files(blocks.folder)) - expected):
        raise ValueError(f"{more[0]} is of no image any more; begin anew with --overwrite")
    place.record.begin(settings)
    blocks.sweep()
    if waiting:
        worker = (task, blocks)
        pool = ray.data.ActorPoolStrategy(size=min(actors, len(waiting)))
        options = {"batch_size": None, "batch_format": "pyarrow", "compute": pool, "num_gpus": gpus}
        done = ray.data.from_arrow_refs(waiting).map_batches(_Worker, fn_constructor_args=worker, **options)
        for each in done.iter_rows():
            counts = Counts(counts.images + each["images"], counts.errors + each["errors"])
    place.record.finish(counts.images, counts.errors)
    return Counts(counts.images, counts.errors, is_finished=True)


class _Worker:
    """Holds the network in a process of its own, and turns blocks of images into files of rows."""

    def __init__(self, task: Task, blocks: Blocks) -> None:
        self._task, self._blocks, self._predictor = task, blocks, task.build()

    def __call__(self, block: Any) -> dict[str, list[int]]:
        """How many images and errors; the rows are in the block's file."""
        images, task = [NamedImage(**each) for each in block.to_pylist()], self._task
        given = {"batch_size": task.batch_size, "workers": task.workers}
        rows: list[Row] = list(predict_rows(self._predictor, images, task.make_row, **given))
        self._blocks.write(images[0].position, rows)
        return {"images": [len(rows)], "errors": [sum("error" in row for row in rows)]}


def _in_blocks(inputs: ImageInputs, size: int) -> Iterator[list[NamedImage]]:
    images = iter(inputs)
    while block := list(islice(images, size)):
        yield block


def _as_table(images: list[NamedImage]) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist([{**asdict(each), "file": everywhere(each.file)} for each in images])


def _load_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"--ray needs Ray: pip install 'internimage-torch[ray]' ({error})") from error
    return ray
