"""Values that travel between rooms: label names, preprocessing, and what a network says of an image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LabelMap:
    """Class names in the order of a model's outputs.

    >>> labels = LabelMap(("cat", "dog"))
    >>> len(labels), labels[1], labels.index("dog")
    (2, 'dog', 1)
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        given: Any = self.names
        # A text is a list of letters, which nobody means.
        listed: bool = isinstance(given, Iterable) and not isinstance(given, str)
        names = tuple(cast(Iterable[Any], given)) if listed else ()
        if not listed or not all(isinstance(name, str) for name in names):
            raise ValueError(f"class names must be a list of texts, got {cast(object, given)!r:.80}")
        object.__setattr__(self, "names", names)
        if doubles := sorted(name for name, count in Counter(self.names).items() if count > 1):
            raise ValueError(f"class names must be unique, but {', '.join(doubles)} occurs more than once")

    @classmethod
    def numbered(cls, num_classes: int) -> LabelMap:
        """Placeholder names ``class 0`` ... for a model that came without names."""
        return cls(tuple(f"class {index}" for index in range(num_classes)))

    @classmethod
    def telling_apart(cls, names: Sequence[str]) -> LabelMap:
        """Names of which some may stand for several classes, as ImageNet's crane: the index tells these apart."""
        counts = Counter(names)
        return cls(tuple(f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(names)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def index(self, name: str) -> int:
        """Position of ``name``; raises ``ValueError`` with the known names when there is none."""
        if name not in self.names:
            raise ValueError(f"unknown class {name!r}; the classes are {', '.join(self.names[:20])}")
        return self.names.index(name)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input: one definition for training, prediction and export.

    The shorter side is resized to ``size / crop_ratio`` and the middle ``size x size`` pixels are taken
    (the official evaluation uses ``crop_ratio=1``); values in [0, 1] are then normalised per channel.

    Args:
        size: height and width of the network's input in pixels.
        crop_ratio: share of the resized shorter side that the centre crop keeps, in (0, 1].
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        mean: per channel, for values in [0, 1]; its length (1 or 3) says whether images are grey or RGB.
        std: per channel, positive.
    """

    size: int = 224
    crop_ratio: float = 1.0
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _finite(self.mean))
        object.__setattr__(self, "std", _finite(self.std))
        # JSON, YAML and command lines bring text and 224.5 where pixels belong.
        if type(self.size) is not int or self.size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {self.size!r}")
        ratio: Any = self.crop_ratio
        if not isinstance(ratio, Real) or not 0 < float(ratio) <= 1:
            raise ValueError(f"crop_ratio must be in (0, 1], got {ratio!r}")
        if self.interpolation not in ("bicubic", "bilinear", "nearest"):
            raise ValueError(f"interpolation must be bicubic, bilinear or nearest, got {self.interpolation!r}")
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std need 1 (grey) or 3 (RGB) values each, got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def in_chans(self) -> int:
        """Number of channels of the network's input."""
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            key: list(cast(tuple[float, ...], value)) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`; unknown keys raise ``ValueError``."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown preprocessing settings {unknown}; known are {sorted(known)}")
        return cls(**values)


def _finite(given: Any) -> tuple[float, ...]:
    values = tuple(cast(Iterable[Any], given)) if isinstance(given, Iterable) else ()
    if not values or not all(isinstance(value, Real) and math.isfinite(value) for value in values):
        raise ValueError(f"mean and std must be made of finite numbers, got {given!r}")
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one image.

    Args:
        probabilities: one value in [0, 1] per class, in the order of ``labels``; they sum to 1.
        labels: the class names.
        source: where the image came from (a path), or None.
    """

    probabilities: tuple[float, ...]
    labels: LabelMap
    source: str | None = None

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(self.labels):
            raise ValueError(f"{len(self.probabilities)} probabilities but {len(self.labels)} class names")

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    @property
    def score(self) -> float:
        """The probability of the most probable class."""
        return self.top(1)[0][1]

    def top(self, count: int = 5) -> Sequence[tuple[str, float]]:
        """The ``count`` most probable (name, probability) pairs, best first; ``ValueError`` for a negative count."""
        if count < 0:
            raise ValueError(f"count must be 0 or more, got {count}")
        order = sorted(range(len(self.labels)), key=lambda index: (-self.probabilities[index], index))
        return [(self.labels[index], self.probabilities[index]) for index in order[:count]]


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
        object.__setattr__(self, "mean", _finite(self.mean))
        object.__setattr__(self, "std", _finite(self.std))
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
