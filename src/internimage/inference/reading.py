"""Images for a network: read and prepared in their order by threads, a few ahead of it, then put into batches.

Threads, not processes: Pillow decodes and resizes, and PyTorch computes, without Python's lock, and nothing has to be
copied from one process to another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.data import ImageReadError, read_image
from internimage.data.inputs import NamedImage

ImageSource = str | Path | bytes | Image.Image | NDArray[np.generic]
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_Result = TypeVar("_Result")


def open_image(image: ImageSource | NamedImage, *, in_chans: int = 3) -> Image.Image:
    """The picture, as `read_image` gives it."""
    return image.read(in_chans=in_chans) if isinstance(image, NamedImage) else read_image(image, in_chans=in_chans)


def name_of(image: ImageSource | NamedImage) -> str | None:
    """What a result calls its image: its name or its path; None for pixels and bytes."""
    if isinstance(image, NamedImage):
        return image.name
    return str(image) if isinstance(image, str | Path) else None


def in_batches(
    images: Iterable[ImageSource | NamedImage],
    read: Callable[[ImageSource | NamedImage], _Read],
    predict: Callable[[Sequence[tuple[_Read, str | None]]], Sequence[_Result]],
    *,
    batch_size: int,
    workers: int = 0,
) -> Iterator[_Result | ImageReadError]:
    """A result per image in order, or the error of one that can't be read.

    Args:
        images: asked for as they are needed, two batches ahead of the network.
        read: makes an image ready for the network; called by several threads at a time.
        predict: takes a batch of what ``read`` returned, each with its image's name, and gives a result for each.
        batch_size: images of a batch; those that can't be read count.
        workers: threads that read; 0 reads in between.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def attempt(image: ImageSource | NamedImage) -> tuple[_Read | ImageReadError, str | None]:
        try:
            return read(image), name_of(image)
        except ImageReadError as error:
            return error, None

    def results(batch: Sequence[tuple[_Read | ImageReadError, str | None]]) -> Iterator[_Result | ImageReadError]:
        readable = [(image, name) for image, name in batch if not isinstance(image, ImageReadError)]
        found = iter(predict(readable) if readable else ())
        return iter([image if isinstance(image, ImageReadError) else next(found) for image, _ in batch])

    batch: list[tuple[_Read | ImageReadError, str | None]] = []
    for each in read_ahead(images, attempt, workers=workers, ahead=2 * batch_size + workers):
        batch.append(each)
        if len(batch) == batch_size:
            yield from results(batch)
            batch = []
    if batch:
        yield from results(batch)


def read_ahead(items: Iterable[_Item], read: Callable[[_Item], _Read], *, workers: int, ahead: int) -> Iterator[_Read]:
    """``map(read, items)``, where threads do the next ``ahead`` items meanwhile.

    What is done waits until it is asked for: never more than ``ahead`` results are in memory.

    >>> list(read_ahead(range(5), lambda number: number**2, workers=2, ahead=3))
    [0, 1, 4, 9, 16]
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    if workers == 0:
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    waiting: deque[Future[_Read]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
