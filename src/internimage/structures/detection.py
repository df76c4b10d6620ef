"""A detector's inputs, and what it says of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from internimage.structures.labels import IMAGENET_MEAN, IMAGENET_STD, LabelMap, finite


@dataclass(frozen=True)
class Framing:
    """How a picture becomes a detector's input: one definition for training, prediction and export.

    The picture is made as large as the frame allows, at its own ratio; values in [0, 1] are then normalised.

    Args:
        frame: largest length in pixels of the shorter and of the longer side.
        mean: per channel (RGB), for values in [0, 1].
        std: per channel, positive.
    """

    frame: tuple[int, int] = (800, 1333)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", finite(self.mean))
        object.__setattr__(self, "std", finite(self.std))
        given: Any = self.frame
        sides = tuple(cast(Iterable[Any], given)) if isinstance(given, Iterable) else ()
        if len(sides) != 2 or not all(type(side) is int for side in sides) or not 1 <= sides[0] <= sides[1]:
            raise ValueError(
                f"frame must be the shorter and the longer side in pixels, such as 800, 1333; got {given!r}"
            )
        object.__setattr__(self, "frame", sides)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std need 3 values each (RGB), std positive ones; got {self.mean}, {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"frame": list(self.frame), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Framing:
        """The inverse of `to_dict`; unknown keys raise ``ValueError``."""
        if unknown := sorted(set(values) - {"frame", "mean", "std"}):
            raise ValueError(f"unknown settings of a detector's input {unknown}; known are frame, mean, std")
        return cls(**values)


@dataclass(frozen=True)
class Placement:
    """How a network's input came from its picture: resized as a whole, then padded at the right and at the bottom.

    Args:
        size: (height, width) of the input without padding, in pixels.
        original_size: (height, width) of the picture.
        scale_xy: input over original pixels, along x and along y; sides are rounded, so they differ a little.

    >>> Placement.fit((480, 640), (75, 100)).scale_xy
    (0.15625, 0.15625)
    """

    size: tuple[int, int]
    original_size: tuple[int, int]
    scale_xy: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def fit(cls, original_size: tuple[int, int], size: tuple[int, int]) -> Placement:
        """Of a picture resized to ``size``; both (height, width)."""
        (height, width), (new_height, new_width) = original_size, size
        return cls(size, original_size, (new_width / width, new_height / height))


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector says of one image, best first.

    Args:
        boxes: (R, 4) of float32: x1, y1, x2, y2 in pixels of the original image.
        scores: (R,) of float32, in [0, 1].
        labels: (R,) of int64, indices into ``classes``.
        classes: the class names.
        size: (height, width) of the original image.
        masks: (R, height, width) of bool, or None for a detector of boxes alone.
        source: where the image came from (a path), or None.

    >>> box, score, label = np.array([[1, 2, 30, 40]]), np.array([0.9]), np.array([1])
    >>> found = Detections(box, score, label, LabelMap(("cat", "dog")), (48, 64))
    >>> len(found), found.names
    (1, ('dog',))
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: LabelMap
    size: tuple[int, int]
    masks: NDArray[np.bool_] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32))
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64))
        if len(self.boxes) != count or self.labels.shape != (count,):
            raise ValueError(f"{len(self.boxes)} boxes, {count} scores and {len(self.labels)} labels; give one of each")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels must lie in [0, {len(self.classes)}), got {sorted(set(self.labels.tolist()))}")
        if self.masks is not None and self.masks.shape != (count, *self.size):
            raise ValueError(f"masks must have shape {(count, *self.size)}, got {self.masks.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each object."""
        return tuple(self.classes[int(label)] for label in self.labels)

    def above(self, score: float) -> Detections:
        """The objects of at least this score."""
        return self.take(np.flatnonzero(self.scores >= score))

    def take(self, rows: NDArray[np.integer[Any]]) -> Detections:
        """The objects in these rows, in this order."""
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks)
