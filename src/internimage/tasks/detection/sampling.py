"""How often an epoch shows a picture, where classes are very unequal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

# Apart from what else follows from a training's seed.
_DRAWS = 3


class Repeated:
    """Every picture a fixed number of times.

    Args:
        times: of each picture.

    >>> Repeated([1, 2]).of_epoch(seed=0, epoch=0)
    [0, 1, 1]
    """

    def __init__(self, times: Sequence[int]) -> None:
        self.indices = [index for index, count in enumerate(times) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.indices)

    def of_epoch(self, seed: int, epoch: int) -> Sequence[int]:
        """The same in every epoch."""
        return self.indices


class ClassAware:
    """All classes alike: they take turns in a random order, each with its next picture in a random order of its own.

    An epoch is as long as there are pictures.

    Source: ``ClassAwareSampler`` of mmdet 2.28, with one sample a turn.

    Args:
        shown: of each picture the classes in it.

    Raises:
        ValueError: no picture shows anything.
    """

    def __init__(self, shown: Sequence[frozenset[int]]) -> None:
        self.length = len(shown)
        self.pictures: dict[int, list[int]] = {}
        for index, labels in enumerate(shown):
            for label in sorted(labels):
                self.pictures.setdefault(label, []).append(index)
        if not self.pictures:
            raise ValueError("class_aware draws a class first, but no training picture has an object")

    def __len__(self) -> int:
        return self.length

    def of_epoch(self, seed: int, epoch: int) -> Sequence[int]:
        """Drawn anew for each epoch."""
        random = np.random.default_rng((seed, _DRAWS, epoch))
        turns = {label: _cycle(self.pictures[label], random) for label in sorted(self.pictures)}
        return [next(turns[label]) for label in islice(_cycle(sorted(turns), random), self.length)]


def _cycle(values: Sequence[int], random: np.random.Generator) -> Iterator[int]:
    """All in a random order, again and again."""
    while True:
        yield from (values[place] for place in random.permutation(len(values)))
