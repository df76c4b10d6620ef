"""What is written of an image: one row, the same in every format and on every machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import tee
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from internimage.data import ImageReadError
from internimage.data.inputs import NamedImage
from internimage.structures import Classification, Detections, SegmentationMap

Row = dict[str, Any]
MAPS, CLASSES = "maps", "classes.txt"
# Label maps of one folder: file systems become slow with millions.
_IN_A_FOLDER = 10_000
# A file's name has 255 bytes at most, a character up to 4.
_STEM = 56
MAP_NAME = re.compile(rf"{MAPS}/\d+/\d+_[^/]*\.png")


class Predictor(Protocol):
    """`Classifier`, `Detector` or `Segmenter`."""

    def stream(self, images: Iterable[NamedImage], /, *, batch_size: int, workers: int) -> Iterator[Any]:
        """A result or an `ImageReadError` per image, in order."""
        ...


class MakeRow(Protocol):
    """From what was found in an image to its row."""

    def __call__(self, found: Any, image: NamedImage, /) -> Row:
        """The row, whose values are ready for JSON."""
        ...


def predict_rows(
    predictor: Predictor, images: Iterable[NamedImage], make_row: MakeRow, *, batch_size: int, workers: int
) -> Iterator[Row]:
    """A row per image in order; of one that can't be read, its name and the ``error``."""
    named, given = tee(images)
    results: Any = predictor.stream(given, batch_size=batch_size, workers=workers)
    with closing(results):
        for image, found in zip(named, results, strict=True):
            yield (
                {"image": image.name, "error": str(found)}
                if isinstance(found, ImageReadError)
                else make_row(found, image)
            )


@dataclass(frozen=True)
class ClassRows:
    """Rows of a classifier: the ``top`` most probable classes."""

    top: int = 5

    def __call__(self, found: Classification, image: NamedImage) -> Row:
        """The row."""
        return class_row(found, self.top)


@dataclass(frozen=True)
class ObjectRows:
    """Rows of a detector."""

    def __call__(self, found: Detections, image: NamedImage) -> Row:
        """The row."""
        return object_row(found)


@dataclass(frozen=True)
class MapRows:
    """Rows of a segmenter, whose label maps go into files below ``output``, their classes into ``classes.txt``.

    The names of label maps begin with the image's position, so that they differ without a list of all.
    """

    output: str

    def __call__(self, found: SegmentationMap, image: NamedImage) -> Row:
        """Write the label map; the row names it."""
        from internimage.data.segmentation.palettes import label_image

        classes = Path(self.output, CLASSES)
        if not classes.exists():
            classes.write_text("".join(f"{label}\n" for label in found.classes.names), encoding="utf-8")
        name = map_name(image)
        file = Path(self.output, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        label_image(found.labels, found.palette).save(file)
        return map_row(found, name)


def map_name(image: NamedImage) -> str:
    """A label map's path below the folder of predictions.

    >>> map_name(NamedImage("a/street.jpg", 12345, "a/street.jpg"))
    'maps/0001/00012345_street.png'
    """
    stem = PurePosixPath(image.name).stem[:_STEM]
    return f"{MAPS}/{image.position // _IN_A_FOLDER:04d}/{image.position:08d}_{stem}.png"


def as_text(name: str) -> str:
    r"""A name that is no text with its bytes as escapes: Parquet holds Unicode only.

    >>> as_text("caf\udce9.png")
    'caf\\udce9.png'
    """
    return name.encode("utf-8", errors="backslashreplace").decode()


def class_row(found: Classification, top: int) -> Row:
    """The ``top`` most probable classes of an image.

    >>> from internimage.structures import LabelMap
    >>> class_row(Classification((0.25, 0.75), LabelMap(("cat", "dog")), "a.png"), 1)
    {'image': 'a.png', 'top': [{'label': 'dog', 'score': 0.75}]}
    """
    return {
        "image": found.source,
        "top": [{"label": name, "score": round(score, 6)} for name, score in found.top(top)],
    }


def object_row(found: Detections) -> Row:
    """The objects of an image, boxes in pixels."""
    from internimage.inference.detection import detections_json

    height, width = found.size
    return {"image": found.source, "width": width, "height": height, "objects": detections_json(found)}


def map_row(found: SegmentationMap, label_map: str) -> Row:
    """The shares of the classes of an image, and where its label map is."""
    height, width = found.size
    shares = {label: round(share, 6) for label, share in found.shares().items()}
    return {"image": found.source, "width": width, "height": height, "map": label_map, "shares": shares}
