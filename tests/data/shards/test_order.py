"""The order of an epoch: everything once, shuffled, a few shards at a time, and to be entered anywhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from internimage.data.shards import epoch_order

COUNTS = [7, 1, 12, 5, 0, 9, 3, 3, 10, 2]


def share(process: int, processes: int, *, counts: list[int] = COUNTS, epoch: int = 0, start: int = 0) -> list[int]:
    place = {"process": process, "processes": processes}
    return list(epoch_order(counts, seed=1, epoch=epoch, start=start, window=2, **place))


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 52, 60])
def test_each_sample_once(processes: int) -> None:
    """Where the samples can't be shared out evenly, as few as possible come twice."""
    shares = [share(process, processes) for process in range(processes)]
    assert len({len(each) for each in shares}) == 1
    taken = [index for each in shares for index in each]
    total = sum(COUNTS)
    assert set(taken) == set(range(total))
    assert len(taken) == -(-total // processes) * processes


def test_every_epoch_and_seed_has_its_order() -> None:
    orders = [share(0, 1, epoch=epoch) for epoch in range(4)]
    orders.append(list(epoch_order(COUNTS, seed=2, epoch=0, window=2)))
    assert len(set(map(tuple, orders))) == 5
    assert share(0, 1, epoch=2) == orders[2]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_it_can_be_entered_anywhere(processes: int) -> None:
    for process in range(processes):
        whole = share(process, processes, epoch=3)
        for start in range(len(whole) + 2):
            assert share(process, processes, epoch=3, start=start) == whole[start:]


def test_a_few_shards_at_a_time() -> None:
    """Each process opens a shard once and never goes back; the processes share one at most with each neighbour."""
    counts, window = [50] * 24, 3
    shard_of = np.repeat(np.arange(24), 50)
    seen: list[set[int]] = []
    for process in range(3):
        order = list(epoch_order(counts, seed=0, epoch=0, process=process, processes=3, window=window))
        shards = shard_of[order]
        places = {int(shard): np.flatnonzero(shards == shard) for shard in np.unique(shards)}
        open_at = np.zeros(len(order), int)
        for at in places.values():
            open_at[at[0] : at[-1] + 1] += 1
        assert open_at.max() <= window
        seen.append(set(places))
    assert sum(map(len, seen)) == 24
    assert all(one.isdisjoint(other) for one, other in pairwise(seen))


def test_samples_of_a_window_are_mixed() -> None:
    """Neighbours come from the same shard as often as chance has it."""
    order = np.array(list(epoch_order([1000] * 4, seed=0, epoch=0, window=4))) // 1000
    assert abs((order[1:] == order[:-1]).mean() - 0.25) < 0.03


def test_the_next_window_is_told_in_time() -> None:
    """Once for each window but the first, before the one in front of it is read."""
    told: list[tuple[int, list[int]]] = []
    order: list[int] = []
    for index in epoch_order(
        [10] * 8, seed=0, epoch=0, window=2, on_window=lambda each: told.append((len(order), each))
    ):
        order.append(index)
    assert [at for at, _ in told] == [0, 20, 40]
    for number, (_, shards) in enumerate(told, 1):
        assert {index // 10 for index in order[20 * number : 20 * (number + 1)]} == set(shards)


@pytest.mark.parametrize("counts", [[], [0], [0, 0], [1], [3]])
def test_very_small_sets(counts: list[int]) -> None:
    assert sorted(share(0, 1, counts=counts)) == list(range(sum(counts)))
    taken = [index for process in range(7) for index in share(process, 7, counts=counts)]
    assert set(taken) == set(range(sum(counts)))
