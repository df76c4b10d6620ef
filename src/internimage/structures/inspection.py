"""What a network's answer rests on: an effective receptive field, the regions that speak for a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReceptiveField:
    """How much each pixel of the input changes the middle of a map.

    Args:
        values: (H, W), not negative, 1 in sum.
        num_images: over how many images it was averaged.

    Raises:
        ValueError: values that are negative, no numbers, or all zero.
    """

    values: NDArray[np.float64]
    num_images: int

    def __post_init__(self) -> None:
        total = float(self.values.sum())
        if self.values.ndim != 2 or not np.isfinite(total) or total <= 0 or self.values.min() < 0:
            raise ValueError("a receptive field needs a map (H, W) of numbers from 0, not all of them 0")
        object.__setattr__(self, "values", self.values / total)

    @property
    def center_yx(self) -> tuple[int, int]:
        """The pixel nearest to the centre of mass."""
        rows, columns = np.indices(self.values.shape)
        return round(float((rows * self.values).sum())), round(float((columns * self.values).sum()))

    def side(self, share: float) -> int:
        """Side in pixels of the smallest square around the centre of mass that holds ``share`` of the whole, in (0, 1].

        Where the square would leave the image it goes on as if there were nothing.

        >>> values = np.zeros((9, 9))
        >>> values[3:6, 3:6] = 1
        >>> ReceptiveField(values, 1).side(0.1), ReceptiveField(values, 1).side(0.5)
        (1, 3)
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        row, column = self.center_yx
        height, width = self.values.shape
        for reach in range(max(height, width)):
            top, left = max(0, row - reach), max(0, column - reach)
            # Rounding must not ask for more than there is.
            if self.values[top : row + reach + 1, left : column + reach + 1].sum() >= share - 1e-9:
                return 2 * reach + 1
        raise AssertionError("the whole image holds everything")


@dataclass(frozen=True)
class ClassActivation:
    """Which regions of an image speak for a class.

    Args:
        values: (h, w) of a map, from 0 (nothing) to 1 (most); all 0 where nothing speaks for it.
        label: the class.
        score: its probability, in [0, 1].
        stride: pixels of the network's input between neighbouring cells.
        size: height and width of the network's input in pixels.
    """

    values: NDArray[np.float32]
    label: str
    score: float
    stride: int
    size: tuple[int, int]
