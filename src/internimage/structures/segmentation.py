"""A segmenter's inputs, and what it says of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from internimage.structures.labels import IMAGENET_MEAN, IMAGENET_STD, LabelMap, finite

IGNORED = 255
"""In a label map, by custom a pixel of no class, which training and measuring leave out."""

MOST_CLASSES = 255

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Viewing:
    """How a picture is shown to a segmenter: one definition for training, prediction and export.

    The picture is resized as a whole, then shown whole or in overlapping windows; values in [0, 1] are normalised.

    Args:
        frame: the shorter and the longer side in pixels that the picture must not exceed: it is made as large as they
            allow, at its own ratio. None shows it at its own size.
        multiple: each side is then resized to the next multiple of this many pixels.
        window: height and width in pixels of the windows through which a picture is seen; the scores of overlapping
            ones are averaged. None shows it whole.
        stride: from one window to the next, down and across, in pixels; by default two thirds of the window.
        mean: per channel (RGB), for values in [0, 1].
        std: per channel, positive.

    >>> Viewing(window=(512, 512)).steps
    (341, 341)
    """

    frame: tuple[int, int] | None = (512, 2048)
    multiple: int = 1
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", finite(self.mean))
        object.__setattr__(self, "std", finite(self.std))
        for name in ("frame", "window", "stride"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _two_sizes(given, name))
        if self.frame is not None and self.frame[0] > self.frame[1]:
            raise ValueError(f"frame must be the shorter and then the longer side, such as 512, 2048; got {self.frame}")
        if type(self.multiple) is not int or self.multiple < 1:
            raise ValueError(f"multiple must be a positive number of pixels, got {self.multiple!r}")
        if self.stride is not None and self.window is None:
            raise ValueError(f"stride {self.stride} goes with a window; give both, or neither")
        if self.window and any(step > side for step, side in zip(self.steps, self.window, strict=True)):
            raise ValueError(
                f"stride must not exceed the window {self.window}, or pixels are skipped; got {self.stride}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std need 3 values each (RGB), std positive ones; got {self.mean}, {self.std}")

    @property
    def steps(self) -> tuple[int, int]:
        """From one window to the next, down and across; (0, 0) for a picture that is shown whole."""
        if self.window is None:
            return (0, 0)
        height, width = self.window
        return self.stride or (max(2 * height // 3, 1), max(2 * width // 3, 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(cast(Any, each)) if isinstance(each, tuple) else each for name, each in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Viewing:
        """The inverse of `to_dict`; unknown keys raise ``ValueError``."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown settings of a segmenter's input {unknown}; known are {sorted(known)}")
        return cls(**values)


def _two_sizes(given: Any, name: str) -> tuple[int, int]:
    sides = tuple(cast(Iterable[Any], given)) if isinstance(given, Iterable) else ()
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(f"{name} must be two positive numbers of pixels, such as 512, 1024; got {given!r}")
    return sides[0], sides[1]


@dataclass(frozen=True, eq=False)
class SegmentationMap:
    """What a segmenter says of one image: the class of every pixel.

    Args:
        labels: (H, W) of uint8, at the image's size: indices into ``classes``; `IGNORED` (255) is of no class.
        classes: the class names, at most 255.
        palette: a colour (red, green, blue, from 0 to 255) per class.
        probabilities: (C, H, W) of float16 or float32 in [0, 1], which sum to 1 over the classes; or None.
        source: where the image came from (a path), or None.

    >>> found = SegmentationMap(np.array([[0, 0, 1, 1]]), LabelMap(("sky", "road")), ((0, 0, 255), (90, 90, 90)))
    >>> found.size, found.shares()
    ((1, 4), {'sky': 0.5, 'road': 0.5})
    """

    labels: NDArray[np.uint8]
    classes: LabelMap
    palette: tuple[Colour, ...]
    probabilities: NDArray[np.floating[Any]] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        given = np.asarray(self.labels)
        if given.ndim != 2 or given.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers of shape (H, W), got {given.dtype} of shape {given.shape}")
        if len(self.classes) > MOST_CLASSES or len(self.palette) != len(self.classes):
            raise ValueError(
                f"{len(self.classes)} classes with {len(self.palette)} colours; there can be {MOST_CLASSES} classes, "
                "each with its colour"
            )
        wrong = np.unique(given[(given != IGNORED) & ((given < 0) | (given >= len(self.classes)))])
        if len(wrong):
            raise ValueError(f"labels must lie in [0, {len(self.classes)}) or be {IGNORED}, got {wrong[:5].tolist()}")
        if self.probabilities is not None and self.probabilities.shape != (len(self.classes), *given.shape):
            shape = (len(self.classes), *given.shape)
            raise ValueError(f"probabilities must have shape {shape}, got {self.probabilities.shape}")
        object.__setattr__(self, "labels", given.astype(np.uint8, copy=False))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.labels.shape[0], self.labels.shape[1]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """(H, W): where the image shows this class; ``ValueError`` for an unknown name."""
        return self.labels == self.classes.index(name)

    def shares(self) -> dict[str, float]:
        """The share of the pixels of each class that occurs, largest first; pixels of no class count as pixels."""
        # Row by row, for what is counted is widened to 8 bytes a pixel.
        rows = (np.bincount(row, minlength=MOST_CLASSES + 1) for row in self.labels)
        counts = sum(rows, np.zeros(MOST_CLASSES + 1, np.int64))[: len(self.classes)]
        order = sorted(np.flatnonzero(counts).tolist(), key=lambda label: (-counts[label], label))
        return {self.classes[label]: float(counts[label] / self.labels.size) for label in order}
