"""Any number of images to look at, one after the other: files, folders and sets of shards, never listed as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol

from PIL import Image

from internimage.data.images import IMAGE_SUFFIXES, read_image
from internimage.data.shards import ShardSet, holds_shards


class ImageSet(Protocol):
    """Images in a container, such as shards: counted, named, and read by several threads at a time."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def name(self, index: int, /) -> str:
        """What the image is called; unique in the set."""
        ...

    def read(self, index: int, /) -> bytes:
        """The bytes of an image file; raises ``ImageReadError``."""
        ...


@dataclass(frozen=True)
class NamedImage:
    """Where an image is: plain values, so that other processes and machines can read it.

    Args:
        name: what results call it.
        position: its number among all the images of its inputs, from 0 on.
        file: an image file, or what an `ImageSet` is opened from.
        index: which image of the set; None for an image file.
    """

    name: str
    position: int
    file: str
    index: int | None = None

    def read(self, *, in_chans: int = 3) -> Image.Image:
        """The picture, as `read_image` gives it; errors call it by its name."""
        source = self.file if self.index is None else _opened(self.file).read(self.index)
        return read_image(source, in_chans=in_chans, name=self.name)


@dataclass(frozen=True)
class ImageInputs:
    """The images that files, folders and sets of shards stand for, in that order.

    Going through them takes memory for the names in one folder at a time (a folder with ten million files: about
    1 GB), and gives the same order as `find_images`. Every pass looks at the folders anew.

    Args:
        sources: image files, taken as given; folders, searched as by `find_images`; folders or addresses of shards.
        part: (number, count), numbers from 1 on: only every ``count``-th image of files and folders, and one of
            ``count`` equal stretches of a set of shards. All parts together are all images, each once.

    Raises:
        ValueError: a source that does not exist or holds no images, or a part that there is not.

    >>> list(ImageInputs(["nowhere.png"]))
    Traceback (most recent call last):
        ...
    ValueError: nowhere.png does not exist; check the path
    """

    sources: Sequence[str]
    part: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        number, count = self.part
        if not 1 <= number <= count:
            raise ValueError(f"part {number}/{count} is none: give a number from 1 to the count, such as 1/{count}")
        for source in self.sources:
            if open_set(source) is not None:
                continue
            if Path(source).is_dir():
                if next(walk_images(source), None) is None:
                    suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                    raise ValueError(f"{source} holds no images; known suffixes are {suffixes}")
            elif not Path(source).exists():
                raise ValueError(f"{source} does not exist; check the path")

    def __iter__(self) -> Iterator[NamedImage]:
        number, count = self.part
        start = 0
        for source in self.sources:
            images = open_set(source)
            if images is not None:
                first, last = (len(images) * each // count for each in (number - 1, number))
                for index in range(first, last):
                    yield NamedImage(
                        f"{source.rstrip('/')}/{images.name(index)}", start + index, everywhere(source), index
                    )
                start += len(images)
                continue
            for path in walk_images(source) if Path(source).is_dir() else [Path(source)]:
                if start % count == number - 1:
                    yield NamedImage(str(path), start, str(path))
                start += 1

    def after(self, count: int) -> Iterator[NamedImage]:
        """The images of this part without the first ``count``."""
        return islice(iter(self), count, None)


def walk_images(folder: str | Path) -> Iterator[Path]:
    """The files that `images_below` lists, in its order, with the names in one folder at a time in memory.

    Raises:
        ValueError: a folder that can't be listed.
    """
    for name in _sorted_names(folder):
        if name.endswith("/"):
            yield from walk_images(Path(folder, name))
        else:
            yield Path(folder, name)


def _sorted_names(folder: str | Path) -> list[str]:
    """Visible images and folders, with a slash behind the latter: it takes part in the order of whole paths."""
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    names += [] if entry.is_symlink() else [f"{entry.name}/"]
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 (a Path costs more)
                    names.append(entry.name)
    except OSError as error:
        raise ValueError(f"cannot list the folder {error.filename}: {error.strerror}") from error
    names.sort()
    return names


def everywhere(source: str) -> str:
    """A path or an address as processes in any working folder know it."""
    return source if "://" in source else os.path.abspath(source)  # noqa: PTH100 (once per image)


def open_set(source: str) -> ImageSet | None:
    """The set of shards that ``source`` stands for; None for a file or a folder of images.

    Raises:
        ValueError: shards that are damaged or missing.
        ConnectionError: the server of a URL can't be asked.
    """
    return ShardSet.open(source) if holds_shards(source) else None


@lru_cache(16)
def _opened(source: str) -> ImageSet:
    """A set for reading, opened once per process."""
    return ShardSet.open(source)
