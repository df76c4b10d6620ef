"""A classifier's inputs, and what it says of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, Literal, cast

from internimage.structures.labels import IMAGENET_MEAN, IMAGENET_STD, LabelMap, finite


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
        object.__setattr__(self, "mean", finite(self.mean))
        object.__setattr__(self, "std", finite(self.std))
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
