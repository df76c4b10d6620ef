"""Where a network looks, against sums by hand and the operator's own gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from internimage.ops.dcnv3 import dcnv3
from internimage.structures import BlockSampling, SamplingTrace
from internimage.structures.sampling import _doubled

HEIGHT, WIDTH, GROUPS, POINTS = 5, 7, 2, 9


def block(seed: int, *, stage: int = 1, number: int = 1, stride: int = 2, whole: bool = False) -> BlockSampling:
    """A map of 5 x 7 with points around every cell, some outside; ``whole`` puts them on cells."""
    dice = np.random.default_rng(seed)
    rows, columns = np.indices((HEIGHT, WIDTH))
    centers = np.stack((columns, rows), -1)[:, :, None, None]
    moves = dice.normal(0, 1.5, (HEIGHT, WIDTH, GROUPS, POINTS, 2))
    positions = centers + (moves.round() if whole else moves)
    logits = dice.normal(size=(HEIGHT, WIDTH, GROUPS, POINTS))
    modulations = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return BlockSampling(stage, number, stride, (positions * stride).astype(np.float32), modulations.astype(np.float32))


def trace(*blocks: BlockSampling) -> SamplingTrace:
    return SamplingTrace((HEIGHT * blocks[0].stride, WIDTH * blocks[0].stride), blocks)


def test_points_are_those_of_the_nearest_cell() -> None:
    one = block(0)
    points = trace(one).points((4.9, 3.2), 1)
    assert points.query_xy == (4.0, 4.0)
    assert (points.num_groups, len(points.weights)) == (GROUPS, GROUPS * POINTS)
    np.testing.assert_array_equal(points.positions_xy, one.positions_xy[2, 2].reshape(-1, 2))
    np.testing.assert_array_equal(points.weights, one.modulations[2, 2].reshape(-1) / GROUPS)
    assert points.groups.tolist() == [0] * POINTS + [1] * POINTS
    second = points.of_group(2)
    np.testing.assert_array_equal(second.positions_xy, one.positions_xy[2, 2, 1])
    assert second.weights.sum() == pytest.approx(1)
    inside = [0 - 0.5 <= x <= 13.5 and 0 - 0.5 <= y <= 9.5 for x, y in points.positions_xy]
    assert points.inside().tolist() == inside
    assert points.seen() == pytest.approx(float(points.weights[inside].sum()), abs=1e-6)


def test_flow_is_the_operators_gradient() -> None:
    """Of a value that is 1 everywhere: what counts for one place, back through one block."""
    one = block(1)
    rows, columns = np.indices((HEIGHT, WIDTH))
    kernel = np.array([(ix - 1, iy - 1) for ix in range(3) for iy in range(3)])
    grid = np.stack((columns, rows), -1)[:, :, None, None] + kernel
    offset = torch.from_numpy(one.positions_xy / one.stride - grid)[None]
    value = torch.ones(1, HEIGHT, WIDTH, GROUPS, 1, requires_grad=True, dtype=torch.float64)
    mask = torch.from_numpy(one.modulations)[None]
    out = dcnv3(value, offset.double(), mask.double(), normalize="none")
    (out[0, 3, 4].sum() / GROUPS).backward()
    assert value.grad is not None
    found = trace(one).flow((8, 6), 1, depth=1)
    np.testing.assert_allclose(found, value.grad[0].sum((-1, -2)).numpy(), atol=1e-6)
    assert 0 < found.sum() < 1, "some of it lies outside"


def test_flow_through_two_blocks_by_hand() -> None:
    lower, upper = block(2), block(3, number=2)

    def spread(each: BlockSampling, weights: np.ndarray) -> np.ndarray:
        total = np.zeros((HEIGHT, WIDTH))
        for row, column, group, point in np.ndindex(HEIGHT, WIDTH, GROUPS, POINTS):
            share = weights[row, column] * each.modulations[row, column, group, point] / GROUPS
            x, y = (float(value) / each.stride for value in each.positions_xy[row, column, group, point])
            for cell_y in (math.floor(y), math.floor(y) + 1):
                for cell_x in (math.floor(x), math.floor(x) + 1):
                    if 0 <= cell_y < HEIGHT and 0 <= cell_x < WIDTH:
                        total[cell_y, cell_x] += share * (1 - abs(x - cell_x)) * (1 - abs(y - cell_y))
        return total

    start = np.zeros((HEIGHT, WIDTH))
    start[1, 5] = 1
    expected = spread(lower, spread(upper, start))
    np.testing.assert_allclose(trace(lower, upper).flow((10, 2), 1), expected, atol=1e-6)


def test_points_followed_back_are_the_flow_where_they_lie_on_cells() -> None:
    lower, upper = block(4, whole=True), block(5, number=2, whole=True)
    both = trace(lower, upper)
    points = both.points((6, 4), 1, depth=2, limit=10**6)
    total = np.zeros((HEIGHT, WIDTH))
    cells = np.rint(points.positions_xy / lower.stride).astype(int)
    for (x, y), weight in zip(cells, points.weights, strict=True):
        if 0 <= y < HEIGHT and 0 <= x < WIDTH:
            total[y, x] += weight
    np.testing.assert_allclose(total, both.flow((6, 4), 1), atol=1e-6)
    # Every point belongs to the group by which the place saw it; what lay outside was not followed.
    first = both.points((6, 4), 1)
    for group in range(GROUPS):
        seen = first.weights[first.inside() & (first.groups == group)].sum()
        assert points.weights[points.groups == group].sum() == pytest.approx(float(seen), abs=1e-6)
    few = both.points((6, 4), 1, depth=2, limit=10)
    np.testing.assert_array_equal(few.weights, np.sort(points.weights)[::-1][:10])


def test_between_stages_three_by_three_cells_count_alike() -> None:
    for height, width in ((5, 7), (6, 8)):
        above = np.random.default_rng(0).random(((height + 1) // 2, (width + 1) // 2))
        kernel = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
        extra = (1 - height % 2, 1 - width % 2)
        expected = F.conv_transpose2d(
            torch.from_numpy(above)[None, None], kernel, stride=2, padding=1, output_padding=extra
        )
        np.testing.assert_allclose(_doubled(above, (height, width)), expected[0, 0].numpy(), atol=1e-12)


def test_distances_and_entropy_by_hand() -> None:
    positions = np.zeros((1, 2, 1, 2, 2), np.float32)
    positions[0, 1, 0] = [[4.0, 0.0], [7.0, 4.0]]
    modulations = np.array([[[[0.5, 0.5]], [[1.0, 0.0]]]], np.float32)
    one = BlockSampling(1, 1, 4, positions, modulations)
    assert one.centers_xy.tolist() == [[[0, 0], [4, 0]]]
    assert one.distances()[0, :, 0].tolist() == [[0, 0], [0, 5]]
    assert one.entropy()[0, :, 0].tolist() == [1, 0]


def test_what_is_not_there_is_named() -> None:
    both = trace(block(0), block(1, number=2))
    for call, message in (
        (lambda: both.find(2), "there is no stage 2; this network has 1"),
        (lambda: both.find(1, 3), "stage 1 has no block 3; it has 2"),
        (lambda: both.points((14, 0), 1), "must lie in the image of 14 x 10 pixels"),
        (lambda: both.points((math.nan, 0), 1), "must lie in the image"),
        (lambda: both.points((0, 0), 1, depth=0), "depth must be at least 1"),
        (lambda: both.points((0, 0), 1, limit=0), "limit must be at least 1"),
        (lambda: both.points((0, 0), 1).of_group(3), "there is no group 3; this block has 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
