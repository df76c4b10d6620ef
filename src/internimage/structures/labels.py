"""Class names, and what every way of making inputs has: normalisation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

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


def finite(given: Any) -> tuple[float, ...]:
    """Numbers as floats; ``ValueError`` for anything else in them, or none."""
    values = tuple(cast(Iterable[Any], given)) if isinstance(given, Iterable) else ()
    if not values or not all(isinstance(value, Real) and math.isfinite(value) for value in values):
        raise ValueError(f"mean and std must be made of finite numbers, got {given!r}")
    return tuple(float(value) for value in values)
