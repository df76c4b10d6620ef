"""Where DCNv3 looks: the sampling points of every block of a network at one image.

Shape legend: H W a block's map, G groups, K sampling points per group, P points.

Positions are (x, y) in pixels of the network's input; (0, 0) is the middle of its first pixel. A map's cell (row,
column) belongs to the input's pixel (stride*column, stride*row): each halving of the network reads three pixels around
every second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SamplingPoints:
    """The points that one place of the image is computed from.

    Args:
        query_xy: the place, the middle of a map's cell.
        positions_xy: (P, 2); points may lie outside the image, where there is nothing to see.
        weights: (P,), how much each counts; at most 1 in sum.
        groups: (P,), the group of each, from 0.
        num_groups: G.
        size: height and width of the network's input in pixels.
    """

    query_xy: tuple[float, float]
    positions_xy: Floats
    weights: Floats
    groups: Ints
    num_groups: int
    size: tuple[int, int]

    def inside(self) -> NDArray[np.bool_]:
        """(P,): which of them lie in the image."""
        return _is_inside(self.positions_xy, self.size)

    def seen(self) -> float:
        """The share of all weight that lies in the image, from 0 to 1."""
        total = float(self.weights.sum())
        return float(self.weights[self.inside()].sum()) / total if total > 0 else 0.0

    def of_group(self, group: int) -> SamplingPoints:
        """Those of one group, from 1, weighted as within it: at most 1 in sum."""
        if not 1 <= group <= self.num_groups:
            raise ValueError(f"there is no group {group}; this block has {self.num_groups}, from 1")
        chosen = self.groups == group - 1
        return replace(
            self,
            positions_xy=self.positions_xy[chosen],
            weights=self.weights[chosen] * np.float32(self.num_groups),
            groups=self.groups[chosen],
        )


@dataclass(frozen=True)
class BlockSampling:
    """Where one block looks, from every cell of its map.

    Args:
        stage: from 1, as in the paper.
        block: from 1 within its stage.
        stride: pixels of the input between neighbouring cells.
        positions_xy: (H, W, G, K, 2), in pixels of the input.
        modulations: (H, W, G, K), at least 0, and 1 in sum over K; 0 where nothing counts.
    """

    stage: int
    block: int
    stride: int
    positions_xy: Floats
    modulations: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.modulations.shape[0], self.modulations.shape[1]

    @property
    def num_groups(self) -> int:
        """G."""
        return self.modulations.shape[2]

    @property
    def centers_xy(self) -> Floats:
        """(H, W, 2): the place of every cell in the input."""
        rows, columns = np.indices(self.shape, dtype=np.float32)
        return np.stack((columns, rows), axis=-1) * np.float32(self.stride)

    def distances(self) -> Floats:
        """(H, W, G, K): from a cell's place to each of its points, in pixels of the input."""
        return np.linalg.norm(self.positions_xy - self.centers_xy[:, :, None, None], axis=-1)

    def entropy(self) -> Floats:
        """(H, W, G): of the modulations, from 0 (one point counts alone) to 1 (all count alike)."""
        shares = self.modulations.astype(np.float64)
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        most = np.log(shares.shape[-1]) if shares.shape[-1] > 1 else 1.0
        return (-(shares * logs).sum(-1) / most).clip(0, 1).astype(np.float32)

    def cells(self, positions_xy: Floats) -> tuple[Ints, Ints]:
        """Rows and columns, each (P,), of the cells nearest to positions (P, 2) in the input."""
        nearest = np.rint(positions_xy / self.stride).astype(np.int64)
        height, width = self.shape
        return nearest[:, 1].clip(0, height - 1), nearest[:, 0].clip(0, width - 1)

    def points_of(self, rows: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """Positions (P, G, K, 2) and weights (P, G, K) of the points of P cells; 1 in sum over G and K."""
        return self.positions_xy[rows, columns], self.modulations[rows, columns] / np.float32(self.num_groups)

    def spread(self, weights_HW: NDArray[np.float64]) -> NDArray[np.float64]:
        """What every cell of the block's input counts, where those of its output count ``weights_HW``.

        Each group counts alike. A point between cells counts for its four neighbours, bilinearly as it was sampled;
        what lies outside the map is lost. This is the gradient of Eq. (2), arXiv:2211.05778, with respect to x for
        features that are all 1.
        """
        height, width = self.shape
        found, shares_PGK = self.points_of(*np.nonzero(weights_HW))
        positions = found / np.float64(self.stride)
        weights = shares_PGK * weights_HW[np.nonzero(weights_HW)][:, None, None]
        corner = np.floor(positions)
        part = positions - corner
        total = np.zeros(height * width)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x, y = corner[..., 0] + dx, corner[..., 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            shares = weights * np.abs(1 - dx - part[..., 0]) * np.abs(1 - dy - part[..., 1])
            cells = (y[inside] * width + x[inside]).astype(np.int64)
            total += np.bincount(cells, shares[inside], minlength=height * width)
        return total.reshape(height, width)


@dataclass(frozen=True)
class SamplingTrace:
    """Where every block of a network looks at one image.

    Args:
        size: height and width of the network's input in pixels.
        blocks: first to last.
    """

    size: tuple[int, int]
    blocks: tuple[BlockSampling, ...]

    def find(self, stage: int, block: int | None = None) -> BlockSampling:
        """A block by its numbers from 1; None takes the last of its stage. ``ValueError`` for unknown ones."""
        return self.blocks[self._index(stage, block)]

    def points(
        self, xy: Sequence[float], stage: int, block: int | None = None, *, depth: int = 1, limit: int = 1000
    ) -> SamplingPoints:
        """The points that a place of the image is computed from, through one block or several.

        Through several, every point of a block is looked at again by the block before it, from the cell nearest to it.
        Halvings between stages keep the place. The identity path around each block is left out.

        Args:
            xy: a place in the input in pixels; the cell nearest to it is taken.
            stage: from 1.
            block: from 1; None takes the last of the stage.
            depth: through how many blocks, back from this one; more than there are ends at the first.
            limit: beyond this many points only those that count most are kept.

        Raises:
            ValueError: no such block, a place outside the image, or a depth or limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        blocks = self._back(stage, block, depth)
        position = self._inside(xy)[None]
        row, column = blocks[0].cells(position)
        query = blocks[0].centers_xy[row[0], column[0]]
        positions, weights = query[None], np.ones(1, np.float32)
        groups = np.zeros(1, np.int64)
        for step, each in enumerate(blocks):
            found, shares = each.points_of(*each.cells(positions))
            # Later blocks belong to the group by which the first one saw them.
            own = np.broadcast_to(np.arange(each.num_groups)[:, None], shares.shape[1:])
            groups = own.reshape(-1) if step == 0 else np.repeat(groups, own.size)
            weights = (weights[:, None, None] * shares).reshape(-1)
            positions = found.reshape(-1, 2)
            kept = (
                np.flatnonzero(_is_inside(positions, self.size)) if step + 1 < len(blocks) else np.arange(len(weights))
            )
            if len(kept) > limit:
                kept = kept[np.argsort(-weights[kept], kind="stable")[:limit]]
            positions, weights, groups = positions[kept], weights[kept], groups[kept]
        place = float(query[0]), float(query[1])
        return SamplingPoints(place, positions, weights, groups, blocks[0].num_groups, self.size)

    def flow(
        self, xy: Sequence[float], stage: int, block: int | None = None, *, depth: int | None = None
    ) -> NDArray[np.float64]:
        """How much each cell of the lowest map counts for a place, through ``depth`` blocks, or all before this one.

        All points are followed with their bilinear weights, and all groups count alike; halvings count as an average
        of three by three cells. The identity path around each block is left out.

        Returns:
            (H, W) of the lowest block's map, at most 1 in sum: what looks outside of a map is lost.

        Raises:
            ValueError: no such block, a place outside the image, or a depth below 1.
        """
        blocks = self._back(stage, block, len(self.blocks) if depth is None else depth)
        row, column = blocks[0].cells(self._inside(xy)[None])
        weights = np.zeros(blocks[0].shape)
        weights[row[0], column[0]] = 1.0
        for above, each in zip((blocks[0], *blocks), blocks, strict=False):
            weights = each.spread(weights if each.stage == above.stage else _doubled(weights, each.shape))
        return weights

    def _index(self, stage: int, block: int | None) -> int:
        numbers = [(each.stage, each.block) for each in self.blocks]
        last = max((index for index, (each, _) in enumerate(numbers) if each == stage), default=None)
        if last is None:
            raise ValueError(f"there is no stage {stage}; this network has {numbers[-1][0]}, from 1")
        if block is None:
            return last
        if (stage, block) not in numbers:
            raise ValueError(f"stage {stage} has no block {block}; it has {numbers[last][1]}, from 1")
        return numbers.index((stage, block))

    def _back(self, stage: int, block: int | None, depth: int) -> list[BlockSampling]:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        index = self._index(stage, block)
        return list(self.blocks[max(0, index - depth + 1) : index + 1])[::-1]

    def _inside(self, xy: Sequence[float]) -> Floats:
        values: Any = np.asarray(xy, dtype=np.float32)
        if values.shape != (2,) or not _is_inside(values[None], self.size)[0]:
            raise ValueError(f"the place must lie in the image of {self.size[1]} x {self.size[0]} pixels, got {xy}")
        return values


def _is_inside(positions_xy: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(P,): which of the positions (P, 2) lie in a pixel of the image."""
    x, y = positions_xy[:, 0], positions_xy[:, 1]
    return (x >= -0.5) & (x <= size[1] - 0.5) & (y >= -0.5) & (y <= size[0] - 0.5)


def _doubled(weights_HW: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Back through a 3x3 convolution of stride 2 whose nine weights are 1/9; what it reads of the padding is lost."""
    padded = np.zeros((shape[0] + 2, shape[1] + 2))
    height, width = weights_HW.shape
    for dy in range(3):
        for dx in range(3):
            padded[dy : dy + 2 * height : 2, dx : dx + 2 * width : 2] += weights_HW / 9
    return padded[1:-1, 1:-1]
